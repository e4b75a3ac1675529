"""Folders of slices: figshare's .mat files, or PNG pairs listed in ``slices.csv``."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import pandas as pd
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import atomic_write
from braintumor.data.figshare import make_slice, read_cvind, read_mat
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import preprocess_slice
from braintumor.data.raster import read_raster

REQUIRED_COLUMNS = ["image", "mask", "label", "patient"]
OPTIONAL_COLUMNS = ["fold", "plane", "spacing_mm"]
LABEL_CODES = {name: label for label in LABELS for name in (LABELS[label], str(label))}
MIN_PARALLEL = 64  # slices; for fewer, starting processes takes longer than reading


@dataclass(frozen=True)
class SliceSource:
    """Where a slice is stored: a .mat file, or a row (dict) of the table `path`."""

    file: int
    path: Path
    row: dict | None = None


def find_slices(directory):
    """List the slices of a folder as SliceSource, ordered by file number."""
    directory, paths = Path(directory), {}
    if (directory / "slices.csv").exists():
        return _read_table(directory / "slices.csv")
    for path in sorted(directory.rglob("*.mat")):
        name = path.relative_to(directory).as_posix()
        match = re.fullmatch(r"([^./][^/]*/)*(\d{1,9})\.mat", name)  # none is hidden
        if match and (other := paths.setdefault(int(match[2]), path)) != path:
            raise DatasetError(f"{path}: file number repeated in {other}. Keep one.")
    if not paths:
        expected = f"1.mat, ... or slices.csv with {', '.join(REQUIRED_COLUMNS)}"
        raise DatasetError(f"{directory}: holds no slices, expected {expected}.")
    return [SliceSource(number, paths[number]) for number in sorted(paths)]


def _read_table(table):
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DatasetError(f"{table}: got {shorten(error)}, expected CSV") from None
    is_complete = len(rows) and set(REQUIRED_COLUMNS) <= set(rows)
    has_more_cells = not isinstance(rows.index, pd.RangeIndex)
    if not is_complete or has_more_cells or rows["image"].duplicated().any():
        expected = f"rows of {', '.join(REQUIRED_COLUMNS)}, each image once"
        raise DatasetError(f"{table}: got {shorten([*rows])}, expected {expected}.")
    records = rows.to_dict("records")
    return [SliceSource(number, table, row) for number, row in enumerate(records, 1)]


def read_slice(source):
    """Read a SliceSource as a Slice; a DatasetError lists its problems."""
    if source.row is None:
        return read_mat(source.path)
    row = {name: cell.strip() for name, cell in source.row.items()}
    return make_slice(
        f"{source.path}, row {source.file}",
        {"pid": "patient"},
        file=source.file,
        image=partial(_read_image, source, "image"),
        mask=partial(_read_image, source, "mask"),
        label=LABEL_CODES.get(row["label"].lower(), row["label"]),
        pid=row["patient"],
        **{name: row[name].lower() for name in OPTIONAL_COLUMNS if row.get(name)},
    )


def _read_image(source, column):
    folder = source.path.parent.resolve()
    path = Path(os.path.realpath(folder / source.row[column]))
    if not path.is_relative_to(folder):
        raise ValueError(f"got {path}, expected a file in {folder}")
    return read_raster(path)[0]


def map_slices(function, sources, n_jobs=None, description="", progress=True):
    """Return an iterator of ``function(source)``, computed by `n_jobs` processes."""
    n_jobs = n_jobs or (-1 if len(sources) >= MIN_PARALLEL else 1)
    parallel = joblib.Parallel(n_jobs, return_as="generator")
    results = parallel(joblib.delayed(function)(source) for source in sources)
    return tqdm(results, description, len(sources), disable=not progress)


def check_folder(directory, n_jobs=None, progress=True):
    """Return what a folder has: found (per class), missing files, notes, problems."""
    directory, sources = Path(directory), find_slices(directory)
    results = list(map_slices(_check_slice, sources, n_jobs, "checking", progress))
    errors = [result for result in results if isinstance(result, DatasetError)]
    rows = [result for result in results if isinstance(result, tuple)]
    table = pd.DataFrame(rows, columns=["file", "pid", "label", "fold"])
    kind, missing = None, set()
    try:
        _, kind = find_folds(directory, table)
    except DatasetError as error:
        errors.append(error)
    if kind == "cvind":
        missing = set(range(1, len(read_cvind(directory)) + 1))
    return {
        "found": {name: int(table["label"].eq(k).sum()) for k, name in LABELS.items()},
        "missing": sorted(missing.difference(source.file for source in sources)),
        "notes": ["no folds are given: families are grouped"] if kind == "made" else [],
        "problems": [tuple(str(error).split(": ", 1)) for error in errors],
    }


def _check_slice(source):
    try:
        item = read_slice(source)
    except DatasetError as error:
        return error
    return item.file, item.pid, item.label, item.fold


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


def export_png(directory, out, progress=True):
    """Export slices as the original study did; return the number of files."""
    sources = find_slices(directory)
    for source in tqdm(sources, "exporting", disable=not progress):
        item = read_slice(source)
        name = f"{item.label}/{item.file}.matlabel={item.label}.png"
        gray = preprocess_slice(item.image, len(item.image), (0, 100))
        with atomic_write(Path(out) / name) as path:
            Image.fromarray(gray).save(path)
    return len(sources)
