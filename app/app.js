// Shows the HTML of app.py and sends what the user does.

const TEXTS = ["status", "error"];
const REGIONS = ["gallery", "selector", "prediction"];
const PART_SIZE = 4e6; // bytes of a file per message: a larger one closes the connection
const TIMEOUT = 30000; // ms until a missing response is reported

function render({ model, el }) {
  el.classList.add("braintumor");
  el.innerHTML = model.get("page");
  document.documentElement.lang = "en";
  const find = (id) => el.querySelector(`#${id}`);
  let timer;
  let nFiles = 0;

  function showText(id) {
    find(id).textContent = model.get(id);
  }

  // Replaces a region; its focus and the values of [data-keep] stay.
  function showRegion(id) {
    const region = find(id);
    const focus = region.contains(document.activeElement) && document.activeElement.id;
    const kept = {};
    for (const input of region.querySelectorAll("[data-keep]")) kept[input.id] = input;
    region.innerHTML = model.get(id);
    for (const input of region.querySelectorAll("[data-keep]")) {
      const old = kept[input.id];
      if (old) [input.value, input.checked] = [old.value, old.checked];
    }
    if (focus) find(focus)?.focus();
  }

  function showError(message) {
    find("error").textContent = message;
    find("error").scrollIntoView({ block: "nearest" });
  }

  function send(content, buffers) {
    find("error").textContent = "";
    clearTimeout(timer);
    timer = setTimeout(() => {
      showError("The app does not respond. Check the terminal where it was started, then reload this page.");
    }, TIMEOUT);
    model.send(content, undefined, buffers);
  }

  function unmarkThumbnail() {
    el.querySelector("[aria-current]")?.removeAttribute("aria-current");
  }

  async function upload(files) {
    if (files.length !== 1) {
      showError(`Files: got ${files.length}, expected one image file.`);
      return;
    }
    const [file] = files;
    const limit = model.get("max_bytes");
    if (file.size > limit) {
      const size = Math.ceil(file.size / 1e6);
      showError(`${file.name}: got ${size} MB, expected at most ${limit / 1e6} MB. Export one slice.`);
      return;
    }
    unmarkThumbnail();
    const number = ++nFiles;
    try {
      for (let start = 0; start === 0 || start < file.size; start += PART_SIZE) {
        const part = await file.slice(start, start + PART_SIZE).arrayBuffer();
        if (number !== nFiles) return; // replaced by another file meanwhile
        send({ kind: "file", name: file.name, start, size: file.size }, [part]);
      }
    } catch {
      showError(`${file.name}: could not be opened, expected a file. Choose a file in the folder.`);
    }
  }

  function browse(start) {
    const filters = {};
    for (const select of el.querySelectorAll("select")) filters[select.name] = select.value;
    send({ kind: "browse", start, ...filters });
  }

  el.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.getAttribute("aria-disabled") === "true") return;
    if (button.id === "report") send({ kind: "report" });
    if (button.dataset.start) browse(Number(button.dataset.start));
    if (button.dataset.file) {
      unmarkThumbnail();
      button.setAttribute("aria-current", "true");
      nFiles++; // stops an upload
      send({ kind: "thumbnail", file: Number(button.dataset.file) });
    }
  });

  el.addEventListener("input", ({ target }) => {
    if (target.id === "opacity") el.style.setProperty("--opacity", target.value / 100);
    if (target.id === "true") el.style.setProperty("--true", target.checked ? "visible" : "hidden");
    if (target.id === "number") el.querySelector("output").textContent = target.value;
  });

  el.addEventListener("change", ({ target }) => {
    if (target.name && target.matches("select")) browse(0);
    if (target.id === "number") send({ kind: "slice", number: Number(target.value) });
    if (target.id === "file" && target.files.length) {
      upload([...target.files]);
      target.value = ""; // so that the same file can be chosen again
    }
  });

  // On the whole document: a file dropped beside the field would replace the app.
  const listeners = new AbortController();
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    const onDrag = (event) => {
      event.preventDefault();
      find("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") upload([...event.dataTransfer.files]);
    };
    document.addEventListener(kind, onDrag, { signal: listeners.signal });
  }

  for (const id of TEXTS) {
    showText(id);
    model.on(`change:${id}`, () => showText(id));
  }
  for (const id of REGIONS) {
    showRegion(id);
    model.on(`change:${id}`, () => showRegion(id));
  }
  model.on("change:error", () => find("error").scrollIntoView({ block: "nearest" }));
  model.on("change:prediction", () => {
    // on a phone the prediction is below the controls
    const { top } = find("prediction").getBoundingClientRect();
    if (model.get("prediction") && top > innerHeight / 2) find("prediction").scrollIntoView();
  });
  const markBusy = () => el.setAttribute("aria-busy", model.get("busy"));
  model.on("change:busy", markBusy);
  markBusy();
  model.on("msg:custom", ({ kind, name }, buffers) => {
    clearTimeout(timer);
    if (kind !== "report") return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]], { type: "text/html" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  model.send({ kind: "open" });
  return () => listeners.abort();
}

export default { render };
