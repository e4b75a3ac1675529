// The page that predicts without a server. Networks and runtime are scripts, since a page that is
// opened as a file cannot fetch; they are loaded when a prediction needs them.

const tryPage = (() => {
  const root = document.getElementById("try");
  const find = (selector) => root.querySelector(selector);
  const config = JSON.parse(find("script").textContent);
  const folder = new URL(".", document.currentScript.src).href;
  const form = find("form");
  const received = {};
  const loaded = {};
  let isBusy = false;

  // Called by the packed scripts: {key: base64 of gzipped bytes}.
  function receive(name, parts) {
    received[name] = parts;
  }

  // Loads a packed script: {key: bytes}.
  async function loadPack(name) {
    const script = document.createElement("script");
    script.src = `${folder}${name}.js`;
    await new Promise((resolve, reject) => {
      const message = `${name}.js: could not be loaded, expected it in _static/try beside this page. Reload the page, or copy the whole book.`;
      script.onload = resolve;
      script.onerror = () => reject(new ImageError(message));
      document.head.append(script);
    });
    script.remove();
    const parts = await Promise.all(Object.entries(received[name]).map(async ([key, text]) => (
      [key, await decompress(new Blob([decodeBase64(text)]), "gzip")])));
    delete received[name];
    return Object.fromEntries(parts);
  }

  function decodeBase64(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  async function loadRuntime() {
    const { module, wasm } = await loadPack("runtime");
    const url = URL.createObjectURL(new Blob([module], { type: "text/javascript" }));
    const ort = await import(url);
    URL.revokeObjectURL(url);
    Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1, proxy: false });
    return ort;
  }

  async function loadNetwork(name) {
    const ort = loaded.runtime;
    const { network, ...arrays } = await loadPack(name);
    const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
    const reference = Object.entries(arrays).map(([key, bytes]) => [key, new Float32Array(bytes.buffer)]);
    return { ort, session, reference: Object.fromEntries(reference) };
  }

  // Shows a status and lets the browser paint it.
  function showStatus(text) {
    find("[role=status]").textContent = text;
    return new Promise((resolve) => { setTimeout(resolve, 20); });
  }

  async function loadNetworks(names) {
    if (!loaded.runtime) {
      await showStatus("Loading the runtime …");
      loaded.runtime = await loadRuntime();
    }
    for (const name of names) {
      if (!loaded[name]) {
        await showStatus(`Loading the network ${name} …`);
        loaded[name] = await loadNetwork(name);
      }
    }
    return names.map((name) => loaded[name]);
  }

  // Reads the chosen image: {name, trueClass, bytes}.
  async function readChoice() {
    const choice = form.elements.image.value;
    if (choice !== "file") {
      const { src, alt } = find(`input[value="${choice}"] + img`);
      const { label } = find(`input[value="${choice}"]`).dataset;
      return { name: alt, trueClass: label, bytes: decodeBase64(src.split(",")[1]) };
    }
    const { files } = form.elements.file;
    if (files.length !== 1) {
      throw new ImageError(`Files: got ${files.length || "none"}, expected one PNG or JPEG image. Choose a file.`);
    }
    const { name } = files[0];
    const buffer = await files[0].arrayBuffer().catch(() => {
      throw new ImageError(`${name}: got a file that changed or a folder, expected an image file. Choose it again.`);
    });
    return { name, bytes: new Uint8Array(buffer) };
  }

  async function run() {
    if (!("DecompressionStream" in window && "OffscreenCanvas" in window)) {
      throw new ImageError("This browser: got one without DecompressionStream and OffscreenCanvas, expected Chrome 80, Firefox 113, Safari 16.4 or a later version. Update it.");
    }
    const { name, trueClass, bytes } = await readChoice();
    const image = await imageReader.read(bytes, config).catch((error) => {
      throw error instanceof ImageError ? new ImageError(`${name}: ${error.message}`) : error;
    });
    const names = form.elements.networks.value === "all" ? config.networks : config.networks.slice(0, 1);
    const networks = await loadNetworks(names);
    const start = performance.now();
    const onProgress = (n) => showStatus(`Predicting by network ${n} of ${names.length} …`);
    const prediction = await predictor.predict(image, networks, config, onProgress);
    const seconds = (performance.now() - start) / 1000;
    const result = { ...prediction, name, trueClass, networks: names, warnings: listWarnings(prediction) };
    showPrediction(result);
    root.prediction = result; // for tests
    const prefix = result.warnings.length ? "Unreliable prediction" : "Prediction";
    const probability = percent(Math.max(...result.probabilities));
    await showStatus(`${prefix} for ${name}: ${config.classes[result.label]}, ${probability}. It took ${seconds.toFixed(1)} s.`);
  }

  const percent = (value) => `${(100 * value).toFixed(1)}%`;

  function listWarnings({ isColor, oodScores }) {
    const warnings = Object.values(config.ood_scores).filter((_, n) => !(oodScores[n] <= 1));
    return isColor ? [config.color_warning, ...warnings] : warnings;
  }

  // Fills the template with a prediction; braintumor.inference.report.to_dict names the values.
  function showPrediction(result) {
    const content = find("template").content.cloneNode(true);
    const area = result.mask.reduce((a, b) => a + b, 0);
    const names = result.networks;
    const agreement = `mean Dice ${result.maskAgreement.toFixed(2)}`;
    const values = {
      image: result.name,
      predicted_class: config.classes[result.label],
      probability_std: result.probabilityStd.toFixed(3),
      area_pixels: area.toLocaleString("en"),
      box: findBox(result) ?? "none: the mask is empty",
      mask_agreement: names.length > 1 ? agreement : "one network",
      ood_scores: Object.keys(config.ood_scores).map((name, n) => `${name} ${result.oodScores[n].toFixed(2)}`).join(", "),
      networks: (names.length > 1 ? `mean of ${names.length}: ` : "") + names.join(", "),
      true_class: result.trueClass ?? "unknown",
    };
    for (const element of content.querySelectorAll("[data-value]")) {
      element.textContent = values[element.dataset.value];
    }
    content.querySelectorAll(".bars tr").forEach((row, n) => {
      row.querySelector(".bar").style.width = percent(result.probabilities[n]);
      row.lastElementChild.textContent = percent(result.probabilities[n]);
    });
    const warning = content.querySelector(".warning");
    warning.querySelector("ul").replaceChildren(...result.warnings.map((text) => {
      const item = document.createElement("li");
      item.textContent = `${text[0].toUpperCase()}${text.slice(1)}.`;
      return item;
    }));
    (result.warnings.length ? content.querySelector(".note") : warning).remove();
    const images = content.querySelectorAll(".images img");
    [blend(result), maskOverlay(result), gradcamOverlay(result)].forEach((source, n) => { images[n].src = source; });
    find(".prediction").replaceChildren(content);
    find(".prediction").scrollIntoView({ block: "nearest" });
  }

  // Returns "(top, left, bottom, right)" of the mask, or null if it is empty.
  function findBox({ mask, columns }) {
    let [top, left, bottom, right] = [Infinity, Infinity, 0, 0];
    mask.forEach((value, n) => {
      if (!value) return;
      const [row, column] = [Math.floor(n / columns), n % columns];
      [top, left] = [Math.min(top, row), Math.min(left, column)];
      [bottom, right] = [Math.max(bottom, row + 1), Math.max(right, column + 1)];
    });
    return bottom ? `(${top}, ${left}, ${bottom}, ${right})` : null;
  }

  // Draws the gray image with `color(n)` over pixel n as opaque as `opacity(n)`: a data URL.
  function blend({ gray, rows, columns }, opacity = () => 0, color = () => [0, 0, 0]) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    gray.forEach((value, n) => {
      const share = opacity(n);
      color(n).forEach((level, channel) => { image.data[4 * n + channel] = value + share * (level - value); });
      image.data[4 * n + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  function maskOverlay(result) {
    let inside = result.mask;
    for (let n = 0; n < Math.max(1, Math.floor(result.rows / 256)); n += 1) inside = erode(inside, result);
    return blend(result, (n) => (inside[n] ? 0.35 : result.mask[n]), () => config.mask_color);
  }

  function erode(mask, { rows, columns }) {
    return mask.map((value, n) => {
      const [row, column] = [Math.floor(n / columns), n % columns];
      if (row === 0 || column === 0 || row === rows - 1 || column === columns - 1) return 0;
      return value & mask[n - 1] & mask[n + 1] & mask[n - columns] & mask[n + columns];
    });
  }

  function gradcamOverlay(result) {
    const colors = config.gradcam_colors;
    const color = (n) => colors[Math.min(Math.floor(result.gradcam[n] * colors.length), colors.length - 1)];
    return blend(result, (n) => 0.5 * result.gradcam[n], color);
  }

  function showError(error) {
    const isExpected = error instanceof ImageError;
    find("[role=alert]").textContent = isExpected ? error.message : `Unexpected ${error.name}: ${error.message}. Please report it.`;
    find(".prediction").replaceChildren();
    find("[role=status]").textContent = "No prediction.";
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (isBusy) return;
    isBusy = true;
    root.setAttribute("aria-busy", "true");
    find("[role=alert]").textContent = "";
    await run().catch(showError);
    root.setAttribute("aria-busy", "false");
    isBusy = false;
  });

  form.elements.file.addEventListener("change", () => { form.elements.image.value = "file"; });

  // On the whole document: a file dropped beside the field would replace the page.
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      find(".drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind !== "drop" || !event.dataTransfer.files.length) return;
      form.elements.file.files = event.dataTransfer.files;
      form.elements.image.value = "file";
    });
  }

  return { receive };
})();
