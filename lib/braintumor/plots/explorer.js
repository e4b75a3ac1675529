// Slice explorer: plots, filters and sorts the rows that braintumor.plots.explorer embeds. Loads nothing.
{
  const data = JSON.parse(document.getElementById("slice-explorer-data").textContent);
  const { names, colors, columns } = data;
  const slices = data.rows.map((row) => Object.fromEntries(row.map((value, n) => [columns[n], value])));
  const root = document.getElementById("slice-explorer");
  const PAGE_SIZE = 10; // rows of the table
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [640, 300, 46, 30, 10, 40];
  const ORDERS = {
    "lowest Dice": (a, b) => a.dice - b.dice,
    "highest Dice": (a, b) => b.dice - a.dice,
    "smallest tumor": (a, b) => a.area_true - b.area_true,
    "largest tumor": (a, b) => b.area_true - a.area_true,
    "lowest probability of the true class": (a, b) => a.prob_true - b.prob_true,
    "lowest confidence": (a, b) => a.confidence - b.confidence,
    "highest confidence": (a, b) => b.confidence - a.confidence,
  };
  const HEADER = ["slice", "patient", "fold", "plane", "true class", "predicted class", "probability of true class", "area (pixels)", "Dice"];
  const isCorrect = (slice) => slice.y_pred === slice.y_true;
  const percent = (value, digits) => `${(100 * value).toFixed(digits)}%`;
  const escapeHtml = (value) => String(value).replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
  const options = (values) => values.map(([value, name]) => `<option value="${value}">${name}</option>`).join("");
  const folds = [...new Set(slices.map((slice) => slice.fold))].sort();

  root.innerHTML = `
    <form>
      <label>True class <select name="y_true">${options([["", "all"], ...names.map((name, n) => [n + 1, name])])}</select></label>
      <label>Fold <select name="fold">${options([["", "all"], ...folds.map((fold) => [fold, fold])])}</select></label>
      <label>Classification <select name="outcome">${options([["", "all"], ["correct", "correct"], ["misclassified", "misclassified"]])}</select></label>
      <label>Sort by <select name="order">${options(Object.keys(ORDERS).map((name) => [name, name]))}</select></label>
      <label>Confidence at least <output name="min-confidence"></output>
        <input type="range" name="confidence" min="0.33" max="1" step="0.01" value="0.33"></label>
      <label>Dice at most <output name="max-dice"></output>
        <input type="range" name="dice" min="0" max="1" step="0.01" value="1"></label>
    </form>
    <p><strong class="summary" role="status"></strong></p>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Scatter plot of the selected slices: Dice against tumor area"></svg>
    <p class="legend"></p>
    <div class="rows"><table><thead><tr>${HEADER.map((name) => `<th scope="col">${name}</th>`).join("")}</tr></thead><tbody></tbody></table></div>
    <p><button type="button" name="previous">Previous</button> <button type="button" name="next">Next</button> <span></span></p>`;
  const find = (selector) => root.querySelector(selector);
  const form = find("form");
  let selected = [];
  let start = 0;

  find(".legend").innerHTML = `Horizontal: true tumor area in native pixels (log scale). Vertical: Dice. Rings are misclassified slices. ${names
    .map((name, n) => `<b style="--color: ${colors[n]}">${name}</b>`).join(" ")}`;

  const areas = slices.map((slice) => Math.log10(slice.area_true));
  const [low, high] = [Math.floor(Math.min(...areas)), Math.ceil(Math.max(...areas))];
  const x = (area) => LEFT + ((Math.log10(area) - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const y = (dice) => TOP + (1 - dice) * (HEIGHT - TOP - BOTTOM);

  function axes() {
    const parts = [];
    for (let power = low; power <= high; power += 1) {
      parts.push(`<text x="${x(10 ** power)}" y="${HEIGHT - 14}" text-anchor="middle">${(10 ** power).toLocaleString("en")}</text>`);
    }
    for (const dice of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(dice)}" y2="${y(dice)}"/>`);
      parts.push(`<text x="${LEFT - 8}" y="${y(dice) + 4}" text-anchor="end">${dice}</text>`);
    }
    return parts.join("");
  }

  function dot(slice) {
    const color = colors[slice.y_true - 1];
    const fill = isCorrect(slice) ? `fill="${color}" fill-opacity="0.55"` : `fill="none" stroke="${color}" stroke-width="1.8"`;
    return `<circle data-file="${slice.file}" cx="${x(slice.area_true).toFixed(1)}" cy="${y(slice.dice).toFixed(1)}" r="3.2" ${fill}/>`;
  }

  function tableRow(slice) {
    const cells = [
      slice.file, slice.pid, slice.fold, slice.plane, names[slice.y_true - 1], names[slice.y_pred - 1],
      percent(slice.prob_true, 1), slice.area_true.toLocaleString("en"), slice.dice.toFixed(3),
    ];
    return `<tr tabindex="0" data-file="${slice.file}">${cells.map((value) => `<td>${escapeHtml(value)}</td>`).join("")}</tr>`;
  }

  function showTable() {
    const end = Math.min(start + PAGE_SIZE, selected.length);
    find("tbody").innerHTML = selected.slice(start, end).map(tableRow).join("");
    find("[name=previous]").disabled = start === 0;
    find("[name=next]").disabled = end === selected.length;
    find("button ~ span").textContent = selected.length ? `${start + 1}–${end} of ${selected.length.toLocaleString("en")}` : "";
    mark();
  }

  function mark(file) {
    for (const element of root.querySelectorAll(".marked")) element.classList.remove("marked");
    for (const element of file ? root.querySelectorAll(`[data-file="${file}"]`) : []) element.classList.add("marked");
  }

  function summarize() {
    const patients = new Set(selected.map((slice) => slice.pid)).size;
    const counts = `${selected.length.toLocaleString("en")} of ${slices.length.toLocaleString("en")} slices, ${patients} patients`;
    if (!selected.length) return `${counts}.`;
    const accuracy = selected.filter(isCorrect).length / selected.length;
    const meanDice = selected.reduce((sum, slice) => sum + slice.dice, 0) / selected.length;
    return `${counts}: accuracy ${percent(accuracy, 1)}, mean Dice ${meanDice.toFixed(3)}.`;
  }

  function update() {
    const filters = Object.fromEntries(new FormData(form));
    find("[name=min-confidence]").textContent = percent(filters.confidence, 0);
    find("[name=max-dice]").textContent = Number(filters.dice).toFixed(2);
    selected = slices.filter((slice) => (!filters.y_true || slice.y_true === Number(filters.y_true))
      && (!filters.fold || slice.fold === Number(filters.fold))
      && (!filters.outcome || isCorrect(slice) === (filters.outcome === "correct"))
      && slice.confidence >= filters.confidence && slice.dice <= filters.dice);
    selected.sort((a, b) => ORDERS[filters.order](a, b) || a.file - b.file);
    find(".summary").textContent = summarize();
    find("svg").innerHTML = axes() + selected.map(dot).join("");
    start = 0;
    showTable();
  }

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  find("[name=previous]").addEventListener("click", () => { start -= PAGE_SIZE; showTable(); });
  find("[name=next]").addEventListener("click", () => { start += PAGE_SIZE; showTable(); });
  for (const type of ["focusin", "mouseover"]) {
    find("tbody").addEventListener(type, (event) => mark(event.target.closest("tr").dataset.file));
  }
  find("svg").addEventListener("click", (event) => {
    const file = Number(event.target.dataset.file);
    if (!file) return;
    start = PAGE_SIZE * Math.floor(selected.findIndex((slice) => slice.file === file) / PAGE_SIZE);
    showTable();
    mark(file);
  });
  update();
}
