"""Folders of slices: figshare's .mat files, or image pairs listed in ``slices.csv``."""

import csv
import io
import os
import re
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path, PureWindowsPath

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, LeakageError, require, shorten
from braintumor.core.files import atomic_write
from braintumor.core.folders import list_files, list_names
from braintumor.data.figshare import make_slice, read_cvind, read_mat
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import preprocess_slice
from braintumor.data.raster import file_errors, read_raster
from braintumor.data.splits import FOLDS, assign_folds, make_split, patient_family

REQUIRED_COLUMNS = ["image", "mask", "label", "patient"]
OPTIONAL_COLUMNS = ["fold", "plane", "spacing_mm"]
LABEL_CODES = {str(label): label for label in LABELS}
LABEL_CODES |= {name: label for label, name in LABELS.items()} | {"pituitary": 3}

MIN_PARALLEL = 200  # slices; for fewer, starting processes takes longer than reading


@dataclass(frozen=True)
class SliceSource:
    """Where a slice is stored: a .mat file, or a row (dict) of the table `path`."""

    file: int
    path: Path
    row: dict | None = None

    def image_path(self, column):
        """Return the path of the image or the mask of a row."""
        path = self.row[column].replace("\\", "/")
        return Path(os.path.normpath(self.path.parent / path))

    def find_image(self, column):
        """Return the path of an image or mask; outside the folder is a DatasetError."""
        path, folder = self.image_path(column), self.path.parent
        is_inside = path.is_relative_to(folder) and path != folder
        if not is_inside or PureWindowsPath(self.row[column]).drive:
            expected = f"a path from {folder} on, such as img/1.png"
            raise DatasetError(f"got {self.row[column]!r}, expected {expected}")
        return path


def find_slices(directory):
    """List the slices of a folder as SliceSource, ordered by file number."""
    directory, paths = Path(os.path.abspath(directory)), {}
    files = list_files(directory)
    if directory / "slices.csv" in files:
        return read_rows(directory / "slices.csv")
    for path in files:
        is_slice = re.fullmatch(r"\d{1,9}\.mat", path.name, re.IGNORECASE)
        if is_slice and (other := paths.setdefault(int(path.stem), path)) != path:
            raise DatasetError(f"{path}: file number repeated in {other}. Keep one.")
    expected, remedy = "1.mat, ... or slices.csv", "Check the folder"
    if any(path.suffix == ".zip" for path in files):
        remedy = f"Unpack the zip files; or move those of figshare to {directory}/"
        remedy += ".download and run `braintumor data download` on the folder"
    require(paths, directory, list_names(files, directory), expected, remedy)
    return [SliceSource(number, paths[number]) for number in sorted(paths)]


def read_rows(table, required=REQUIRED_COLUMNS):
    """Read the rows of a CSV file as Excel, pandas or a person writes it."""
    header, *rows = _parse_table(table)
    columns = [cell.lower() for cell in header]
    known = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}.intersection(columns)
    wrong = [name for name in {*required, *known} if columns.count(name) != 1]
    expected = f"{', '.join(required)}, each once"
    require(not wrong, f"{table}: columns", shorten(header), expected, "Correct line 1")
    sources, images = [], {}
    for number, cells in enumerate(rows, 1):
        place, remedy = f"{table}, row {number}", 'Quote commas: "Doe, J"'
        has_place = not any(cells[len(columns) :])
        require(has_place, place, "more cells than columns", "one each", remedy)
        if any(cells):  # Excel leaves rows of commas below a table
            row = dict(zip_longest(columns, cells[: len(columns)], fillvalue=""))
            source = SliceSource(number, table, row)
            other = images.setdefault(source.image_path("image"), number)
            got = f"the image of row {other}"
            require(other == number, place, got, "each image once", "Remove one")
            sources.append(source)
    require(sources, table, "no rows", "a row per slice", "Add rows")
    return sources


def _parse_table(table):
    content = table.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        kind = "an Excel workbook" if content.startswith(b"PK") else "another encoding"
        expected = "a table in UTF-8. In Excel, save it as CSV UTF-8"
        raise DatasetError(f"{table}: got {kind}, expected {expected}.") from None
    text = re.sub(r"^sep=.\s+", "", text)  # a line for Excel
    separator = max(",;\t", key=text.partition("\n")[0].count)
    require(text.count('"') % 2 == 0, table, "an open quote", "CSV", "Close it")
    lines = io.StringIO(text, newline=None)
    with file_errors(table, "Correct it"):
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in rows] or [[]]


def read_slice(source):
    """Read a SliceSource as a Slice; a DatasetError lists its problems."""
    if source.row is None:
        return read_mat(source.path)
    row = {name: cell.lower() for name, cell in source.row.items()}
    return make_slice(
        f"{source.path}, row {source.file}",
        {"pid": "patient"},
        file=source.file,
        image=lambda: read_raster(source.find_image("image"))[0],
        mask=partial(_read_mask, source),
        label=partial(read_label, row["label"]),
        pid=source.row["patient"],
        fold=row.get("fold") or None,
        plane=row.get("plane") or None,
        spacing_mm=row.get("spacing_mm", "").replace(",", ".") or None,
    )


def read_label(text):
    """Return the label of a cell of a table: 1, 2 or 3."""
    name = text.removesuffix(".0")  # pandas writes numbers beside empty cells so
    if name not in LABEL_CODES:
        raise DatasetError(f"got {text!r}, expected one of {', '.join(LABEL_CODES)}")
    return LABEL_CODES[name]


def _read_mask(source):
    mask = read_raster(source.find_image("mask"))[0]
    check_mask(mask, source.row["mask"])
    return mask


def check_mask(mask, name):
    """Refuse gray, empty and inverted masks."""
    values, share = np.unique(mask), (mask > 0).mean()
    is_mask = len(values) == 2 and values[0] == 0
    got = f"{len(values)} gray values from {values[0]} to {values[-1]}"
    expected = "0 outside the tumor and one other value inside"
    remedy = "Save it as PNG; JPEG and smooth edges add values between"
    require(is_mask, name, got, expected, remedy)
    got = f"{share:.0%} of the slice as tumor"
    require(share <= 0.5, name, got, "less than half", "Invert the mask")


def map_slices(function, sources, description, n_jobs=None):
    """Return an iterator of ``function(source)``, computed by `n_jobs` processes."""
    n_jobs = n_jobs or (-1 if len(sources) >= MIN_PARALLEL else 1)
    parallel = joblib.Parallel(n_jobs, return_as="generator")
    results = parallel(joblib.delayed(function)(source) for source in sources)
    return tqdm(results, description, len(sources))


def check_folder(directory):
    """Check all slices of a folder, and whether they can be split into folds.

    Returns
    -------
    report : dict of found (slices per class), missing (file numbers), notes and
        problems (of place and text; files with the same problem are one), and index
        (DataFrame of file, pid, label, fold, family; None if there are problems)
    """
    directory, sources = Path(os.path.abspath(directory)), find_slices(directory)
    results = list(map_slices(_check_slice, sources, "checking"))
    problems = _group_problems([r for r in results if isinstance(r, DatasetError)])
    rows = [result for result in results if isinstance(result, tuple)]
    table = pd.DataFrame(rows, columns=["file", "pid", "label", "fold"])
    notes, missing, index = _find_ignored(directory, sources), set(), None
    try:
        folds, kind = find_folds(directory, table)
        if kind == "cvind":
            missing = set(range(1, len(read_cvind(directory)) + 1))
        if kind == "made":
            notes.append("no folds are given: families are grouped")
        if not problems:
            index = _check_splits(directory, table, folds)
    except (DatasetError, LeakageError) as error:
        problems.append(tuple(str(error).split(": ", 1)))
    return {
        "found": {name: int(table["label"].eq(k).sum()) for k, name in LABELS.items()},
        "missing": sorted(missing.difference(source.file for source in sources)),
        "notes": notes,
        "problems": problems,
        "index": index,
    }


def _check_slice(source):
    try:
        item = read_slice(source)
    except DatasetError as error:
        return error
    return item.file, item.pid, item.label, item.fold


def _group_problems(errors):
    """Join errors that differ in numbers and paths only, as (place, text)."""
    groups = {}
    for error in errors:
        place, text = str(error).split(": ", 1)
        kind = re.sub(r"\S*[/\\.]\S*|\d+|\(.*?\)", "", text)
        groups.setdefault(kind, []).append((place, text))
    problems = []
    for (place, text), *repeated in groups.values():
        names = [re.split(r"[/,] ?", place)[-1] for place, _ in repeated]
        more = f" and {len(names)} more ({shorten(', '.join(names))})" if names else ""
        problems.append((place + more, text))
    return problems


def _find_ignored(directory, sources):
    """Return notes on the files and the columns that are not read."""
    used = {source.path for source in sources}
    used |= {directory / name for name in ("cvind.mat", "planes.csv", "phantom.json")}
    for source in sources:
        used |= {source.image_path(name) for name in ("image", "mask") if source.row}
    files = [path for path in list_files(directory) if path not in used]
    known = [*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS, ""]
    columns = [name for name in sources[0].row or [] if name not in known]
    notes = [f"ignored {list_names(files, directory)}"] if files else []
    return notes + [f"ignored columns {', '.join(columns)}"] * bool(columns)


def _check_splits(directory, table, folds):
    """Return the table with folds; DatasetError if a fold cannot be the test fold."""
    index = table.assign(family=table["pid"].map(patient_family))
    try:
        index["fold"] = assign_folds(index, "family") if folds is None else folds
        if empty := sorted({*FOLDS} - {*index["fold"]}):
            expected = "slices in each of 1 to 5. Complete the folds, or give none"
            raise DatasetError(f"folds: got none in {empty}, expected {expected}.")
        for fold in FOLDS:
            make_split(index, "official", fold)
    except (DatasetError, LeakageError) as error:
        raise DatasetError(f"{directory}: {error}") from None
    return index


def find_folds(directory, table):
    """Return the folds and their source: "given", "cvind", or None and "made"."""
    n_labels = table.groupby("pid")["label"].nunique()
    if mixed := [*n_labels.index[n_labels > 1]]:
        raise DatasetError(f"{directory}: patients {mixed} have slices of two labels")
    path, folds, source = directory / "slices.csv", table["fold"], "given"
    if not path.exists() and (cvind := read_cvind(directory)) is not None:
        path, source = directory / "cvind.mat", "cvind"
        folds = table["file"].map(dict(enumerate(cvind, 1)))
    elif folds.isna().all():
        return None, "made"
    if folds.isna().any():
        raise DatasetError(f"{path}: expected a fold of every slice, or of none")
    return folds, source


def export_png(directory, out):
    """Export slices as the original study did; return the number of files."""
    sources = find_slices(directory)
    for source in tqdm(sources, "exporting"):
        item = read_slice(source)
        name = f"{item.label}/{item.file}.matlabel={item.label}.png"
        gray = preprocess_slice(item.image, len(item.image), (0, 100))
        with atomic_write(Path(out) / name) as path:
            Image.fromarray(gray).save(path)
    return len(sources)
