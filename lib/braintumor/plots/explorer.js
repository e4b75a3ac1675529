// The slice explorer of a page: what braintumor.plots.explorer gives it, plotted, filtered and sorted. It asks for nothing else.
{
  const { names, colors, columns, rows } = JSON.parse(document.getElementById("slice-explorer-data").textContent);
  const slices = rows.map((row) => Object.fromEntries(row.map((value, n) => [columns[n], value])));
  const place = document.getElementById("slice-explorer");
  const PAGE = 10; // rows of the table at once
  const [WIDTH, HEIGHT, LEFT, BOTTOM] = [640, 300, 46, 40];
  const SORTS = {
    "lowest Dice": (a, b) => a.dice - b.dice,
    "highest Dice": (a, b) => b.dice - a.dice,
    "smallest tumor": (a, b) => a.area_true - b.area_true,
    "largest tumor": (a, b) => b.area_true - a.area_true,
    "least probability of the true class": (a, b) => a.true - b.true,
    "least sure": (a, b) => a.surety - b.surety,
    "surest": (a, b) => b.surety - a.surety,
  };
  const options = (values) => values.map(([value, name]) => `<option value="${value}">${name}</option>`).join("");
  const plain = (value) => String(value).replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
  const folds = [...new Set(slices.map((one) => one.fold))].sort();

  place.innerHTML = `
    <form>
      <label>Tumor <select name="label">${options([["", "all"], ...names.map((name, n) => [n + 1, name])])}</select></label>
      <label>Fold <select name="fold">${options([["", "all"], ...folds.map((fold) => [fold, fold])])}</select></label>
      <label>Called <select name="call">${options([["", "right or wrong"], ["right", "right"], ["wrong", "wrong"]])}</select></label>
      <label>First <select name="sort">${options(Object.keys(SORTS).map((name) => [name, name]))}</select></label>
      <label>Probability of the call at least <output name="least"></output>
        <input type="range" name="surety" min="0.33" max="1" step="0.01" value="0.33"></label>
      <label>Dice at most <output name="most"></output>
        <input type="range" name="dice" min="0" max="1" step="0.01" value="1"></label>
    </form>
    <p class="found" role="status"></p>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Dots of the chosen slices: tumor area against Dice"></svg>
    <p class="legend"></p>
    <div class="rows"><table><thead><tr>${["slice", "patient", "fold", "plane", "tumor", "called", "of the true class", "area", "Dice"]
      .map((name) => `<th scope="col">${name}</th>`).join("")}</tr></thead><tbody></tbody></table></div>
    <p><button type="button" name="back">Back</button> <button type="button" name="on">Further</button> <span></span></p>`;
  const find = (words) => place.querySelector(words);
  const form = find("form");
  let chosen = [];
  let first = 0;

  find(".legend").innerHTML = `Across: true tumor area in native pixels, logarithmic. Up: Dice. A ring is a wrong call. ${names
    .map((name, n) => `<b style="--color: ${colors[n]}">${name}</b>`).join(" ")}`;

  const areas = slices.map((one) => Math.log10(one.area_true));
  const [low, high] = [Math.floor(Math.min(...areas)), Math.ceil(Math.max(...areas))];
  const x = (area) => LEFT + ((Math.log10(area) - low) / (high - low)) * (WIDTH - LEFT - 30);
  const y = (dice) => 10 + (1 - dice) * (HEIGHT - BOTTOM - 10);

  function axes() {
    const lines = [];
    for (let power = low; power <= high; power += 1) {
      lines.push(`<text x="${x(10 ** power)}" y="${HEIGHT - 14}" text-anchor="middle">${(10 ** power).toLocaleString("en")}</text>`);
    }
    for (const dice of [0, 0.25, 0.5, 0.75, 1]) {
      lines.push(`<line x1="${LEFT}" x2="${WIDTH - 30}" y1="${y(dice)}" y2="${y(dice)}"/>`);
      lines.push(`<text x="${LEFT - 8}" y="${y(dice) + 4}" text-anchor="end">${dice}</text>`);
    }
    return lines.join("");
  }

  function dot(one) {
    const color = colors[one.label - 1];
    const fill = one.called === one.label ? `fill="${color}" fill-opacity="0.55"` : `fill="none" stroke="${color}" stroke-width="1.8"`;
    return `<circle data-file="${one.file}" cx="${x(one.area_true).toFixed(1)}" cy="${y(one.dice).toFixed(1)}" r="3.2" ${fill}/>`;
  }

  function list() {
    find("tbody").innerHTML = chosen.slice(first, first + PAGE).map((one) => `<tr tabindex="0" data-file="${one.file}">${[
      one.file, one.pid, one.fold, one.plane, names[one.label - 1], names[one.called - 1],
      `${(100 * one.true).toFixed(1)} %`, one.area_true.toLocaleString("en"), one.dice.toFixed(3),
    ].map((value) => `<td>${plain(value)}</td>`).join("")}</tr>`).join("");
    find("[name=back]").disabled = first === 0;
    find("[name=on]").disabled = first + PAGE >= chosen.length;
    const last = Math.min(first + PAGE, chosen.length);
    find("button ~ span").textContent = chosen.length ? `${first + 1} to ${last} of ${chosen.length.toLocaleString("en")}` : "";
    mark();
  }

  function mark(file) {
    for (const one of place.querySelectorAll(".marked")) one.classList.remove("marked");
    for (const one of file ? place.querySelectorAll(`[data-file="${file}"]`) : []) one.classList.add("marked");
  }

  function choose() {
    const { label, fold, call, sort, surety, dice } = Object.fromEntries(new FormData(form));
    find("[name=least]").textContent = `${Math.round(100 * surety)} %`;
    find("[name=most]").textContent = Number(dice).toFixed(2);
    chosen = slices.filter((one) => (!label || one.label === Number(label)) && (!fold || one.fold === Number(fold))
      && (!call || (one.called === one.label) === (call === "right")) && one.surety >= surety && one.dice <= dice);
    chosen.sort((a, b) => SORTS[sort](a, b) || a.file - b.file);
    const right = chosen.filter((one) => one.called === one.label).length / chosen.length;
    const mean = chosen.reduce((sum, one) => sum + one.dice, 0) / chosen.length;
    const patients = new Set(chosen.map((one) => one.pid)).size;
    find(".found").textContent = `${chosen.length.toLocaleString("en")} of ${slices.length.toLocaleString("en")} slices, of ${patients} patients`
      + (chosen.length ? `: ${(100 * right).toFixed(1)} % called right, mean Dice ${mean.toFixed(3)}.` : ".");
    find("svg").innerHTML = axes() + chosen.map(dot).join("");
    first = 0;
    list();
  }

  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  find("[name=back]").addEventListener("click", () => { first -= PAGE; list(); });
  find("[name=on]").addEventListener("click", () => { first += PAGE; list(); });
  for (const kind of ["focusin", "mouseover"]) {
    find("tbody").addEventListener(kind, (event) => mark(event.target.closest("tr").dataset.file));
  }
  find("svg").addEventListener("click", (event) => {
    const file = Number(event.target.dataset.file);
    if (!file) return;
    first = PAGE * Math.floor(chosen.findIndex((one) => one.file === file) / PAGE);
    list();
    mark(file);
  });
  choose();
}
