// Predicts as braintumor.inference.predictor does. Maps are Float32Arrays of side × side values.

const predictor = (() => {
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const meanOfMaps = (maps) => maps[0].map((_, n) => sum(maps.map((map) => map[n])) / maps.length);
  const argmax = (values) => values.indexOf(Math.max(...values));

  // Pillow's resize of a square map with the filter BOX or BILINEAR. Of a Uint8Array weights and
  // sums are rounded as Pillow does.
  function resize(map, side, size, isBox = false) {
    if (side === size) return map;
    const weights = resizeWeights(side, size, isBox, map instanceof Uint8Array);
    const pass = (input, rows) => { // along the rows, and transposes
      const output = new map.constructor(rows * size);
      for (let row = 0; row < rows; row += 1) {
        weights.forEach(([first, ...factors], column) => {
          let value = map instanceof Uint8Array ? 1 << 21 : 0;
          factors.forEach((factor, n) => { value += factor * input[row * side + first + n]; });
          output[column * rows + row] = map instanceof Uint8Array ? value >> 22 : value;
        });
      }
      return output;
    };
    return pass(pass(map, side), size);
  }

  // Returns for each output pixel its first input pixel, and the weights of this and the next ones.
  function resizeWeights(side, size, isBox, isInteger) {
    const scale = side / size;
    const stretch = Math.max(scale, 1);
    const support = (isBox ? 0.5 : 1) * stretch;
    const kernel = (x) => (isBox ? Number(x > -0.5 && x <= 0.5) : Math.max(1 - Math.abs(x), 0));
    return Array.from({ length: size }, (_, pixel) => {
      const center = (pixel + 0.5) * scale;
      const first = Math.max(Math.trunc(center - support + 0.5), 0);
      const last = Math.min(Math.trunc(center + support + 0.5), side);
      const values = [];
      for (let n = first; n < last; n += 1) values.push(kernel((n - center + 0.5) / stretch));
      const total = sum(values);
      const normalized = values.map((value) => value / total);
      return [first, ...normalized.map((value) => (isInteger ? Math.trunc(value * 2 ** 22 + 0.5) : value))];
    });
  }

  function padToSquare({ pixels, rows, columns }) {
    const side = Math.max(rows, columns);
    const square = new Float32Array(side * side).fill(pixels.reduce((a, b) => Math.min(a, b)));
    for (let row = 0; row < rows; row += 1) {
      square.set(pixels.subarray(row * columns, (row + 1) * columns), row * side);
    }
    return square;
  }

  // Scales the percentiles of a square slice to 0 and 255.
  function scaleIntensity(square, percentiles) {
    const ordered = square.slice().sort();
    let [low, high] = percentiles.map((percent) => ordered[Math.round((percent / 100) * (square.length - 1))]);
    if (low === high) [low, high] = [ordered[0], ordered[ordered.length - 1]];
    const factor = Math.fround(255 / (high - low));
    return Uint8Array.from(square, (value) => clamp(Math.fround(Math.fround((value - low) * factor) + 0.5), 0, 255));
  }

  // Finds the head in a slice of gray levels: {left, top, side} in pixels.
  function headBox(gray, size, { blocks, bright }) {
    const block = size / blocks;
    const sums = new Float64Array(blocks * blocks);
    gray.forEach((value, n) => {
      sums[Math.floor(n / size / block) * blocks + Math.floor((n % size) / block)] += value;
    });
    const isBright = sums.map((value) => Number(value > 255 * bright * block ** 2));
    const numbers = [...Array(blocks).keys()];
    const findExtent = (index) => {
      const isHead = numbers.map((n) => sum(numbers.map((m) => isBright[index(n, m)])) >= 2);
      if (!isHead.includes(true)) return [0, size];
      return [isHead.indexOf(true) * block, (isHead.lastIndexOf(true) + 1) * block];
    };
    const [left, right] = findExtent((column, row) => row * blocks + column);
    const [top, bottom] = findExtent((row, column) => row * blocks + column);
    const side = Math.min(Math.max(right - left, bottom - top) + Math.floor(size / 32), size);
    return {
      left: clamp((left + right - side) / 2, 0, size - side),
      top: clamp((top + bottom - side) / 2, 0, size - side),
      side,
    };
  }

  function scaleBox({ left, top, side }, factor) {
    const margin = (side * (1 - factor)) / 2;
    return { left: left + margin, top: top + margin, side: side * factor };
  }

  function cropAndResize(map, side, box, size) {
    const scale = box.side / size;
    const first = (scale - 1) / 2;
    return resample(map, side, [box.left + first, box.top + first], scale, size);
  }

  function pasteBack(crop, side, box, size) {
    const scale = side / box.side;
    return resample(crop, side, [(0.5 - box.left) * scale - 0.5, (0.5 - box.top) * scale - 0.5], scale, size);
  }

  // Samples a map linearly on a grid whose first pixel lies at `first`; outside it is 0.
  function resample(map, side, first, step, size) {
    const output = new Float32Array(size * size);
    const isInside = (n) => n >= 0 && n < side;
    const read = (row, column) => (isInside(row) && isInside(column) ? map[row * side + column] : 0);
    for (let n = 0; n < output.length; n += 1) {
      const [x, y] = [first[0] + (n % size) * step, first[1] + Math.floor(n / size) * step];
      const [column, row] = [Math.floor(x), Math.floor(y)];
      const [right, down] = [x - column, y - row];
      const above = read(row, column) * (1 - right) + read(row, column + 1) * right;
      const below = read(row + 1, column) * (1 - right) + read(row + 1, column + 1) * right;
      output[n] = above * (1 - down) + below * down;
    }
    return output;
  }

  function mirror(map, side) {
    return map.map((_, n) => map[n - 2 * (n % side) + side - 1]);
  }

  const mergeViews = ([map, mirrored], side) => meanOfMaps([map, mirror(mirrored, side)]);

  // Thresholds a map where the expected Dice is greatest: 1 in the mask, else 0.
  function thresholdByExpectedDice(map) {
    const ordered = map.slice().sort().reverse();
    const total = sum(ordered);
    let [best, threshold, cumulative] = [-1, 0, 0];
    ordered.forEach((value, n) => {
      cumulative += value;
      const expected = (2 * cumulative) / (n + 1 + total);
      if (expected > best) [best, threshold] = [expected, value];
    });
    return Uint8Array.from(map, (value) => Number(value >= threshold && value > 0));
  }

  function expectedDice(map, mask) {
    const total = sum(mask) + sum(map);
    return total ? (2 * sum(map.map((value, n) => value * mask[n]))) / total : 0;
  }

  function dice(mask, other) {
    const total = sum(mask) + sum(other);
    return total ? (2 * sum(mask.map((value, n) => value & other[n]))) / total : 1;
  }

  // Averages a crop over blocks.
  function makeThumbnail(crop, side, size) {
    const block = side / size;
    const thumbnail = new Float64Array(size * size);
    crop.forEach((value, n) => {
      thumbnail[Math.floor(n / side / block) * size + Math.floor((n % side) / block)] += value / block ** 2;
    });
    return thumbnail;
  }

  // Multiplies a vector with a matrix that is stored by rows.
  function multiply(vector, matrix) {
    const output = new Float64Array(matrix.length / vector.length);
    vector.forEach((value, row) => {
      for (let n = 0; n < output.length; n += 1) output[n] += value * matrix[row * output.length + n];
    });
    return output;
  }

  // As braintumor.inference.ood.compute_ood_scores, in its order.
  function oodScores(reference, features, dice, thumbnail) {
    const dot = (a, b) => sum(a.map((value, n) => value * b[n]));
    const centered = thumbnail.map((value, n) => value - reference.pca_mean[n]);
    let squaredDistance = dot(centered, centered);
    for (let start = 0; start < reference.pca_components.length; start += centered.length) {
      squaredDistance -= dot(centered, reference.pca_components.subarray(start)) ** 2; // of orthonormal rows
    }
    const hidden = multiply(thumbnail, reference.orientation_weights_0)
      .map((value, n) => Math.max(value + reference.orientation_bias_0[n], 0));
    const logit = dot(hidden, reference.orientation_weights_1) + reference.orientation_bias_1[0];
    const delta = Float64Array.from(features, (value, n) => value - reference.features_mean[n]);
    const scores = [
      Math.sqrt(Math.max(squaredDistance, 0)),
      Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit))),
      Math.sqrt(Math.max(dot(multiply(delta, reference.features_precision), delta), 0)),
      1 - dice,
    ];
    return scores.map((score, n) => score / reference.thresholds[n]);
  }

  // Runs a network on crops of one side: {classify, segment, features, gradcam}, an array of a map
  // or vector per crop; `gradcam` has a map per class.
  async function runNetwork({ ort, session }, crops, side) {
    const input = new Float32Array(crops.length * side * side);
    crops.forEach((crop, n) => input.set(crop, n * side * side));
    const outputs = await session.run({ image: new ort.Tensor("float32", input, [crops.length, 1, side, side]) });
    return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => {
      const length = data.length / crops.length;
      return [name, crops.map((_, n) => data.subarray(n * length, (n + 1) * length))];
    }));
  }

  // Predicts an image of imageReader with loaded networks: {session, reference}.
  async function predict(image, networks, config, onProgress) {
    const { image_size: size, zooms } = config;
    const square = padToSquare(image);
    const side = Math.max(image.rows, image.columns);
    const gray = scaleIntensity(square, config.percentiles);
    const resized = resize(gray, side, size, size < side);
    const slice = Float32Array.from(resized, (value) => value / 255);
    const head = headBox(resized, size, config);
    const boxes = zooms.map((zoom) => scaleBox(head, zoom));
    const outputs = [];
    for (const network of networks) {
      await onProgress(outputs.length + 1);
      const cropSize = network.session.inputMetadata[0].shape[3];
      const views = boxes.flatMap((box) => {
        const crop = cropAndResize(slice, size, box, cropSize);
        return [crop, mirror(crop, cropSize)];
      });
      outputs.push({ cropSize, views, ...await runNetwork(network, views, cropSize) });
    }
    const first = 2 * zooms.indexOf(1); // the crop of the head, then its mirror image
    const ofHead = (name, output) => output[name].slice(first, first + 2);
    const byView = outputs.flatMap((output) => output.classify).map((view) => [...view]);
    const probabilities = meanOfMaps(byView);
    const label = argmax(probabilities);
    const variances = probabilities.map((mean, n) => sum(byView.map((view) => (view[n] - mean) ** 2)) / byView.length);

    const maps = outputs.map((output) => meanOfMaps(boxes.map((box, n) => {
      const merged = mergeViews(output.segment.slice(2 * n, 2 * n + 2), output.cropSize);
      return pasteBack(merged, output.cropSize, box, size);
    })));
    const meanMap = meanOfMaps(maps);
    const crop = (map) => cropToImage(map, side, image);
    const mask = crop(thresholdByExpectedDice(resize(meanMap, size, side)));

    const gradcams = outputs.map((output) => {
      const coarse = output.gradcam[0].length / probabilities.length;
      const ofClass = (view) => view.subarray(label * coarse, (label + 1) * coarse);
      const merged = mergeViews(ofHead("gradcam", output).map(ofClass), Math.sqrt(coarse));
      return pasteBack(resize(merged, Math.sqrt(coarse), output.cropSize), output.cropSize, head, size);
    });
    const gradcam = crop(resize(meanOfMaps(gradcams), size, side));
    const greatest = gradcam.reduce((a, b) => Math.max(a, b), 1e-9);

    const meanMask = thresholdByExpectedDice(meanMap);
    const agreements = maps.map((map) => dice(meanMask, thresholdByExpectedDice(map)));
    const scores = outputs.map((output, n) => {
      const map = mergeViews(ofHead("segment", output), output.cropSize);
      const expected = expectedDice(map, thresholdByExpectedDice(map));
      const thumbnail = makeThumbnail(output.views[first], output.cropSize, config.thumbnail_size);
      return oodScores(networks[n].reference, ofHead("features", output)[0], expected, thumbnail);
    });
    return {
      gray: crop(gray),
      rows: image.rows,
      columns: image.columns,
      isColor: image.isColor,
      probabilities,
      label,
      probabilityStd: Math.sqrt(variances[label]),
      mask,
      gradcam: gradcam.map((value) => value / greatest),
      maskAgreement: sum(agreements) / agreements.length,
      oodScores: meanOfMaps(scores).map((score) => Math.round(1000 * score) / 1000),
    };
  }

  // Crops a square map to the rows and columns of the image.
  function cropToImage(map, side, { rows, columns }) {
    const output = new map.constructor(rows * columns);
    for (let row = 0; row < rows; row += 1) {
      output.set(map.subarray(row * side, row * side + columns), row * columns);
    }
    return output;
  }

  return { predict };
})();
