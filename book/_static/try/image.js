// Reads PNG and JPEG files as gray slices, like braintumor.data.raster.

class ImageError extends Error {}

const imageReader = (() => {
  const PNG_MAGIC = [137, 80, 78, 71, 13, 10, 26, 10];
  const JPEG_MAGIC = [255, 216, 255];
  const OTHER_FORMATS = "Export it as PNG, or use braintumor predict, which reads DICOM, NIfTI and others";

  function require(isValid, what, got, expected, remedy) {
    if (!isValid) throw new ImageError(`${what}: got ${got}, expected ${expected}. ${remedy}.`);
  }

  const hasMagic = (bytes, magic) => magic.every((byte, n) => bytes[n] === byte);

  function checkSize(rows, columns, maxSide) {
    const isValid = Math.min(rows, columns) >= 16 && Math.max(rows, columns) <= maxSide;
    require(isValid, "Size", `${rows} × ${columns}`, `16 to ${maxSide} pixels per side`, "Export one slice");
  }

  // Returns the header and the compressed pixels of a PNG file; a truncated file is an error.
  function readPngChunks(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const parts = [];
    let type = "";
    let header;
    for (let start = 8; type !== "IEND";) {
      const isComplete = start + 12 <= bytes.length && start + 12 + view.getUint32(start) <= bytes.length;
      require(isComplete, "PNG file", "a truncated file", "a whole file", "Export it again");
      const data = bytes.subarray(start + 8, start + 8 + view.getUint32(start));
      type = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
      if (type === "IHDR") {
        const [width, height] = [view.getUint32(start + 8), view.getUint32(start + 12)];
        header = { width, height, depth: data[8], color: data[9], interlace: data[12] };
      }
      if (type === "IDAT") parts.push(data);
      start += 12 + data.length;
    }
    require(header, "PNG file", "no header", "a PNG image", "Export it again");
    return { ...header, parts };
  }

  // A truncated JPEG file has no end marker behind its last scan.
  function checkJpegEnd(bytes) {
    const isMarker = (n, code) => bytes[n] === 0xff && bytes[n + 1] === code;
    let n = bytes.length - 2;
    while (n > 0 && !isMarker(n, 0xd9) && !isMarker(n, 0xda)) n -= 1;
    require(isMarker(n, 0xd9), "JPEG file", "a truncated file", "a whole file", "Export it again");
  }

  // Browsers reduce 16-bit pixels to 8 bits, which would lose a slice of 12 bits.
  async function decodeGray16({ width, height, color, interlace, parts }) {
    const isPlain = color === 0 && interlace === 0;
    require(isPlain, "PNG file", "16-bit colors or interlaced pixels", "16-bit gray or 8 bits", "Save it as gray");
    const bytes = await decompress(new Blob(parts), "deflate");
    const stride = 2 * width;
    require(bytes.length >= height * (stride + 1), "PNG file", "too few pixels", "all", "Export it again");
    const pixels = new Float32Array(height * width);
    let above = new Uint8Array(stride);
    for (let row = 0; row < height; row += 1) {
      const start = row * (stride + 1);
      const line = bytes.subarray(start + 1, start + 1 + stride);
      unfilter(bytes[start], line, above);
      for (let n = 0; n < width; n += 1) pixels[row * width + n] = 256 * line[2 * n] + line[2 * n + 1];
      above = line;
    }
    return pixels;
  }

  // Reverses the filter of one line of 16-bit pixels in place (PNG specification, chapter 9).
  function unfilter(filter, line, above) {
    for (let n = 0; n < line.length; n += 1) {
      const [left, up, corner] = n < 2 ? [0, above[n], 0] : [line[n - 2], above[n], above[n - 2]];
      const distances = [left, up, corner].map((value) => Math.abs(left + up - corner - value));
      const [toLeft, toUp, toCorner] = distances;
      const nearest = toUp <= toCorner ? up : corner;
      const paeth = toLeft <= toUp && toLeft <= toCorner ? left : nearest;
      line[n] += [0, left, up, (left + up) >> 1, paeth][filter];
    }
  }

  async function decodeByBrowser(bytes, type, { max_side: maxSide, color_tolerance: tolerance }) {
    const bitmap = await createImageBitmap(new Blob([bytes], { type }), { colorSpaceConversion: "none" });
    const { width: columns, height: rows } = bitmap;
    checkSize(rows, columns, maxSide);
    const context = makeContext(columns, rows);
    context.fillRect(0, 0, columns, rows); // transparent pixels become black
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, columns, rows);
    const pixels = new Float32Array(rows * columns);
    let range = 0;
    for (let n = 0; n < pixels.length; n += 1) {
      const [red, green, blue] = [data[4 * n], data[4 * n + 1], data[4 * n + 2]];
      range = Math.max(range, Math.max(red, green, blue) - Math.min(red, green, blue));
      pixels[n] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16; // as Pillow
    }
    return { pixels, rows, columns, isColor: range > tolerance };
  }

  function makeContext(width, height) {
    return new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  }

  // Browsers that hide from trackers change the pixels that a page reads: nothing could be predicted then.
  function checkCanvas() {
    const context = makeContext(16, 16);
    const written = context.createImageData(16, 16);
    written.data.forEach((_, n) => { written.data[n] = n % 4 === 3 ? 255 : (37 * n) % 251; });
    context.putImageData(written, 0, 0);
    const read = context.getImageData(0, 0, 16, 16).data;
    const isSame = read.every((value, n) => value === written.data[n]);
    const remedy = "Allow this page to read canvases, or use another browser";
    require(isSame, "This browser", "changed pixels when an image is read", "the pixels as they are", remedy);
  }

  async function decodePng(bytes, config) {
    const png = readPngChunks(bytes);
    checkSize(png.height, png.width, config.max_side);
    if (png.depth !== 16) return decodeByBrowser(bytes, "image/png", config);
    return { pixels: await decodeGray16(png), rows: png.height, columns: png.width, isColor: false };
  }

  async function decodeJpeg(bytes, config) {
    checkJpegEnd(bytes);
    return decodeByBrowser(bytes, "image/jpeg", config);
  }

  // Reads the bytes of a file: {pixels, rows, columns, isColor}.
  async function read(bytes, config) {
    checkCanvas();
    const isPng = hasMagic(bytes, PNG_MAGIC);
    const got = bytes.length ? "another format" : "an empty file";
    require(isPng || hasMagic(bytes, JPEG_MAGIC), "File", got, "a PNG or JPEG image", OTHER_FORMATS);
    let image;
    try {
      image = await (isPng ? decodePng(bytes, config) : decodeJpeg(bytes, config));
    } catch (error) {
      if (error instanceof ImageError) throw error;
      throw new ImageError("The image cannot be decoded; the file may be damaged. Export it again.");
    }
    const { pixels } = image;
    const isConstant = pixels.every((value) => value === pixels[0]);
    require(!isConstant, "Image", `${pixels[0]} in every pixel`, "an MR slice", "Choose another image");
    return image;
  }

  return { read };
})();

// Decompresses a Blob: "gzip" or "deflate" (zlib).
async function decompress(blob, format) {
  const stream = blob.stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
