"""PNG, JPEG and TIFF: gray at their own depth, upright, or refused by name."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import GRAY, WIDE, refuse, save, write_jpeg_scans

from braintumor.data.raster import read_raster

pytestmark = pytest.mark.filterwarnings("error")
SMOOTH = np.add.outer(np.arange(20), np.arange(32) * 4).astype(np.uint8)


@pytest.fixture
def png(tmp_path):
    return tmp_path / "a.png"


@pytest.fixture
def tif(tmp_path):
    return tmp_path / "a.tif"


def write_png(path, width, height, rows=b"", depth=8, color_type=0):
    """Write a PNG file that need not match its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    for name, chunk in chunks.items():
        crc = struct.pack(">I", zlib.crc32(name + chunk))
        content += struct.pack(">I", len(chunk)) + name + chunk + crc
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "mode, name",
    [*((mode, "a.png") for mode in ("L", "RGB", "RGBA", "LA", "P")), ("CMYK", "a.tif")],
)
def test_gray_image_is_gray_in_any_mode(tmp_path, mode, name):
    PIL.Image.fromarray(GRAY).convert(mode).save(tmp_path / name)
    pixels, _, warnings = read_raster(tmp_path / name)
    assert np.array_equal(pixels, GRAY) and pixels.dtype == np.uint8 and not warnings


def test_transparent_pixels_are_black(png):
    rgba = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, 255)])
    rgba[:4] = (255, 0, 255, 0)
    pixels, _, warnings = read_raster(save(png, rgba))
    assert np.array_equal(pixels[4:], GRAY[4:]) and not pixels[:4].any()
    assert not warnings


def test_color_is_converted_and_orientation_applied(tmp_path):
    photo, exif = np.full((20, 32, 3), (200, 40, 90), np.uint8), PIL.Image.Exif()
    for name in ("a.png", "a.jpg", "a.tif"):
        pixels, _, warnings = read_raster(save(tmp_path / name, photo))
        assert warnings and np.allclose(pixels, 93.5, atol=2)  # ITU-R 601 luma
    exif[274] = 6  # a quarter turn to the right
    for name, tolerance in (("a.jpg", 6), ("a.png", 0)):
        pixels, _, _ = read_raster(save(tmp_path / name, SMOOTH, exif=exif))
        assert np.allclose(pixels, np.rot90(SMOOTH, -1), atol=tolerance)


def write_tiff(path, pixels, n_bits, sample_format, photometric=1, compression=1):
    """Write a TIFF file of any kind, with its directory before the pixels."""
    n_channels, content = pixels.shape[2] if pixels.ndim == 3 else 1, pixels.tobytes()
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: n_bits, 259: compression}
    tags |= {262: photometric, 273: 200, 277: n_channels, 279: len(content)}
    tags[339] = sample_format
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries
    path.write_bytes(header.ljust(200, b"\0") + content)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
def test_tiff_keeps_its_values(tif, dtype):
    values = np.random.default_rng(0).bytes(4 * GRAY.size)
    expected = np.frombuffer(values, dtype, GRAY.size).reshape(GRAY.shape)
    write_tiff(tif, expected, 8 * expected.itemsize, "uif".index(dtype[0]) + 1)
    assert np.array_equal(read_raster(tif)[0], expected, equal_nan=True)


UNSUPPORTED = {
    "64-bit floats": (WIDE.astype(float), 64, 3),
    "16-bit floats": (WIDE.astype(np.float16), 16, 3),
    "64-bit complex numbers": (WIDE.astype(np.complex64), 64, 6),
    "64-bit signed integers": (WIDE.astype(int), 64, 2),
    "16-bit unsigned integers in 2 channels": (np.dstack([WIDE] * 2), 16, 1),
    "TIFF compression: got 34887": (GRAY, 8, 1, 1, 34887),  # LERC
    "CIELAB": (np.dstack([GRAY] * 3), 8, 1, 8),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_tiff_that_is_not_read_is_named(tif, kind):
    refuse(write_tiff(tif, *UNSUPPORTED[kind]), kind, "Save it as")


def test_turned_or_damaged_tiff_is_refused_silently(tif, capfd):
    refuse(save(tif, GRAY, tiffinfo={274: 6}), "orientation")
    write_tiff(tif, GRAY, 8, 1, compression=8)  # not what Deflate writes
    assert "libtiff" not in str(refuse(tif, "may be damaged"))
    assert capfd.readouterr() == ("", "")


OTHER_JPEGS = [(0xC1, 12, "12-bit DCT"), (0xC3, 16, "lossless"), (0xF7, 8, "JPEG-LS")]


@pytest.mark.parametrize("marker, bits, name", OTHER_JPEGS)
def test_jpeg_that_is_not_read_is_named(tmp_path, marker, bits, name):
    path = tmp_path / "a.jpg"
    content = save(path, GRAY).read_bytes()
    start = content.index(b"\xff\xc0")
    header = struct.pack(">BBHB", 0xFF, marker, 11, bits)
    path.write_bytes(content[:start] + header + content[start + 5 :])
    refuse(path, name, "expected 8-bit DCT")


def test_page_of_a_tiff_is_chosen_and_inverted_if_white_is_zero(tif):
    for dtype in (np.uint16, np.float32):
        stored = (WIDE // 16).astype(dtype)
        stored[0, :2] = 0, 255
        pixels, _, _ = read_raster(save(tif, stored, tiffinfo={262: 0}))
        assert np.array_equal(pixels, 255 - stored)
    pages = [PIL.Image.fromarray(WIDE + n) for n in range(3)]
    pages[0].save(tif, save_all=True, append_images=pages[1:])
    assert refuse(tif, "slice_number").n_slices == 3
    assert np.array_equal(read_raster(tif, 2)[0], WIDE + 1)
    for page in (0, 4):
        refuse(tif, "slice_number", slice_number=page)


def test_tiff_of_very_many_pages_and_jpeg_of_very_many_scans_are_refused(tif, tmp_path):
    content = write_tiff(tif, GRAY, 8, 1).read_bytes()
    directory, n_bytes = content[8 : 10 + 12 * 9], len(content)
    for _ in range(2002):  # each names the next
        n_bytes += len(directory) + 4
        content += directory + struct.pack("<I", n_bytes)
    first = struct.pack("<I", len(content) - 2002 * (len(directory) + 4))
    tif.write_bytes(content[:4] + first + content[8:])
    refuse(tif, "pages", slice_number=1)
    path = tmp_path / "a.jpg"
    assert read_raster(write_jpeg_scans(path, 20))[0].shape == GRAY.shape
    refuse(write_jpeg_scans(path, 100), "scans")


def test_16_bit_channels_and_declared_size_are_checked_before_decoding(png):
    for color_type, channels in ((2, 3), (4, 2)):
        rows = [b"\0" + np.repeat(row, channels).tobytes() for row in WIDE]
        refuse(write_png(png, 32, 20, b"".join(rows), 16, color_type), "16-bit")
    for side in (5_000, 10_000, 30_000):  # Pillow warns, then raises
        refuse(write_png(png, side, side))
