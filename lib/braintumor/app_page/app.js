// Puts the page in place that braintumor.app_page.app makes, and reports what was done with it.

const REGIONS = ["status", "error", "gallery", "chooser", "answer"];
const PART = 4e6; // bytes of a file that go at once: a larger message would close the connection
const SILENCE = 30000; // ms without a sign of life after which the reader is told

function render({ model, el }) {
  el.classList.add("braintumor");
  el.innerHTML = model.get("page");
  document.documentElement.lang = "en";
  const find = (id) => el.querySelector(`#${id}`);
  let silence;
  let taken = 0;

  function show(id) {
    const region = find(id);
    const focus = region.contains(document.activeElement) && document.activeElement.id;
    const kept = Object.fromEntries([...region.querySelectorAll("[data-keep]")].map((one) => [one.id, one]));
    region.innerHTML = model.get(id);
    for (const one of region.querySelectorAll("[data-keep]")) {
      if (kept[one.id]) [one.value, one.checked] = [kept[one.id].value, kept[one.id].checked];
    }
    if (focus) find(focus)?.focus();
  }

  function tell(words) {
    find("error").textContent = words;
    find("error").scrollIntoView({ block: "nearest" });
  }

  function send(content, buffers) {
    find("error").textContent = "";
    clearTimeout(silence);
    silence = setTimeout(() => {
      tell("The app does not answer. See whether it still runs in the terminal where it was started, then load this page anew.");
    }, SILENCE);
    model.send(content, undefined, buffers);
  }

  function unmark() {
    el.querySelector("[aria-current]")?.removeAttribute("aria-current");
  }

  async function take(files) {
    if (files.length !== 1) {
      tell(files.length ? "Those were several files: give one at a time." : "That was not a file: give an image file.");
      return;
    }
    const [file] = files;
    const megabytes = model.get("limit") / 1e6;
    if (file.size > model.get("limit")) {
      const size = Math.ceil(file.size / 1e6);
      tell(`${file.name} has ${size} MB; up to ${megabytes} MB are read: give one slice, or a smaller volume.`);
      return;
    }
    unmark();
    const mine = ++taken;
    try {
      for (let at = 0; at === 0 || at < file.size; at += PART) {
        const part = await file.slice(at, at + PART).arrayBuffer();
        if (mine !== taken) return; // another file was given meanwhile
        send({ kind: "file", name: file.name, at, size: file.size }, [part]);
      }
    } catch {
      tell(`${file.name} could not be opened: if it is a folder, give one of the files in it.`);
    }
  }

  function browse(start) {
    const chosen = [...el.querySelectorAll("select")].map((one) => [one.name, one.value]);
    send({ kind: "browse", start, ...Object.fromEntries(chosen) });
  }

  el.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.getAttribute("aria-disabled") === "true") return;
    if (button.id === "report") send({ kind: "report" });
    if (button.dataset.start) browse(Number(button.dataset.start));
    if (button.dataset.file) {
      unmark();
      button.setAttribute("aria-current", "true");
      send({ kind: "row", file: Number(button.dataset.file) });
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
      take([...target.files]);
      target.value = ""; // the same file can be given again
    }
  });

  // anywhere on the page: a file dropped beside the field would be opened in the app's place
  const drop = new AbortController();
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    const react = (event) => {
      event.preventDefault();
      find("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files]);
    };
    document.addEventListener(kind, react, { signal: drop.signal });
  }

  REGIONS.forEach((id) => {
    show(id);
    model.on(`change:${id}`, () => show(id));
  });
  model.on("change:error", () => find("error").scrollIntoView({ block: "nearest" }));
  model.on("change:answer", () => {
    // on a telephone the answer is below what it was asked with
    if (model.get("answer").startsWith("<h2") && find("answer").getBoundingClientRect().top > innerHeight / 2) {
      find("answer").scrollIntoView();
    }
  });
  const mark = () => el.setAttribute("aria-busy", model.get("busy"));
  model.on("change:busy", mark);
  mark();
  model.on("msg:custom", ({ kind, name }, buffers) => {
    clearTimeout(silence);
    if (kind !== "report") return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]], { type: "text/html" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  model.send({ kind: "open" });
  return () => drop.abort();
}

export default { render };
