"""Folders of slices: figshare's .mat files, or PNG pairs listed in ``slices.csv``."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import joblib
import numpy as np
import pandas as pd
import pydantic
from PIL import Image
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from tqdm import tqdm

from braintumor.core.errors import DatasetError, ProblemCollector, shorten
from braintumor.core.files import atomic_write
from braintumor.data.figshare import (
    Slice,
    check_image,
    check_mask,
    read_cvind,
    read_mat,
)
from braintumor.data.labels import LABELS, PLANES
from braintumor.data.preprocessing import pad_to_square

REQUIRED_COLUMNS = ("image", "mask", "label", "patient")
MIN_PARALLEL = 64  # slices; for fewer, starting processes takes longer than reading


@dataclass(frozen=True)
class SliceSource:
    """Where a slice is stored: a .mat file, or a row (dict) of the table `path`."""

    file: int
    path: Path
    row: dict | None = None


def find_slices(directory):
    """List the slices of a folder as SliceSource, ordered by file number.

    The folder holds ``slices.csv``, or .mat files named by number (also in subfolders).
    Raises DatasetError if it holds neither, or a file number twice.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DatasetError(
            f"{directory}: no such folder, expected one with .mat files or slices.csv"
        )
    table = directory / "slices.csv"
    if table.exists():
        return _read_table(table)
    paths = {}
    for path in sorted(directory.rglob("*.mat")):
        folders = path.relative_to(directory).parts
        is_hidden = any(part.startswith(".") for part in folders)  # being downloaded
        if is_hidden or not re.fullmatch(r"\d{1,9}", path.stem):
            continue
        number = int(path.stem)
        if number in paths:
            raise DatasetError(
                f"{path}: file number {number} is there twice, also as "
                f"{paths[number]}. Keep one."
            )
        paths[number] = path
    if not paths:
        raise DatasetError(
            f"{directory}: holds no slices, expected 1.mat, 2.mat, ... or slices.csv "
            f"with the columns {', '.join(REQUIRED_COLUMNS)}"
        )
    return [SliceSource(number, paths[number]) for number in sorted(paths)]


def _read_table(table):
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise DatasetError(
            f"{table}: cannot be read as a CSV table in UTF-8 ({shorten(error)})"
        ) from None
    missing = [name for name in REQUIRED_COLUMNS if name not in rows.columns]
    if missing or rows.empty:
        raise DatasetError(
            f"{table}: got {len(rows)} rows without {missing}, expected rows with "
            f"{', '.join(REQUIRED_COLUMNS)}"
        )
    if not isinstance(rows.index, pd.RangeIndex):  # pandas took cells as row names
        raise DatasetError(f"{table}: rows have more cells than the header has columns")
    repeated = rows["image"][rows["image"].duplicated()]
    if not repeated.empty:
        raise DatasetError(f"{table}: image {repeated.iloc[0]} is there twice")
    records = rows.to_dict("records")
    return [SliceSource(number, table, row) for number, row in enumerate(records, 1)]


def read_slice(source):
    """Read and check a SliceSource, or the path of a .mat file, as a Slice.

    Raises DatasetError naming the file and every field that is not as expected.
    """
    if not isinstance(source, SliceSource):
        return read_mat(source)
    return read_mat(source.path) if source.row is None else _read_png_pair(source)


LABEL_NAMES = {name: label for label, name in LABELS.items()}
LABEL_NAMES |= {str(label): label for label in LABELS}


def _check_printable(text):
    if not text.isprintable():
        raise ValueError("expected printable characters")
    return text


class _Row(pydantic.BaseModel):
    """Cells of a row of slices.csv but for its files; empty cells are left out."""

    label: Annotated[
        Literal[tuple(LABELS)],
        BeforeValidator(lambda cell: LABEL_NAMES.get(cell.strip().lower(), cell)),
    ]
    patient: Annotated[
        str,
        StringConstraints(strip_whitespace=True, max_length=64),
        AfterValidator(_check_printable),
    ]
    fold: Annotated[int, Field(ge=1, le=5)] | None = None
    plane: Annotated[
        Literal[PLANES], BeforeValidator(lambda cell: cell.strip().lower())
    ] = "unknown"
    spacing_mm: Annotated[float, Field(gt=0, lt=10)] | None = None


def _check_row(row, problems):
    """Return a _Row, or None after recording its problems."""
    try:
        return _Row(**{name: cell for name, cell in row.items() if cell.strip()})
    except pydantic.ValidationError as error:
        for item in error.errors():
            field, text = item["loc"][0], item["msg"].removeprefix("Value error, ")
            text = text.replace("Input should be", "expected")
            problems.add(field, f"got {shorten(repr(row[field]))}, {text}")
        return None


def _read_png_pair(source):
    folder = source.path.parent
    problems = ProblemCollector(f"{source.path}, row {source.file}")
    row = _check_row(source.row, problems)
    image = problems.check("image", _read_image, folder, source.row["image"])
    mask = problems.check("mask", _read_mask, folder, source.row["mask"], image)
    if image is not None:
        image = problems.check("image", check_image, pad_to_square(image))
    if image is not None and mask is not None:
        mask = problems.check("mask", check_mask, pad_to_square(mask), image.shape)
    problems.raise_problems()
    return Slice(
        source.file,
        pid=row.patient,
        label=row.label,
        image=image,
        mask=mask,
        border=_bounding_box(mask),  # PNG pairs have no border
        fold=row.fold,
        plane=row.plane,
        spacing_mm=row.spacing_mm,
    )


def _read_image(folder, name):
    from braintumor.data.raster import read_raster

    try:
        path = (folder / name).resolve()
        exists = path.is_file()  # opening a named pipe would block
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: no file name ({shorten(error)})") from None
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is outside {folder}, expected a file in it")
    if not exists:
        raise ValueError(f"{name}: no such file, expected an image")
    return read_raster(path)[0]


def _read_mask(folder, name, image):
    mask = _read_image(folder, name)
    if image is not None and mask.shape != image.shape:
        raise ValueError(f"got shape {mask.shape}, expected the image's {image.shape}")
    if mask.max() > 1 and set(np.unique(mask)) <= {0, mask.max()}:
        return mask > 0  # paint programs store 0 and 255
    return mask


def _bounding_box(mask):
    """Return the corners of a mask's box as points (x, y) in 1-based coordinates."""
    rows, columns = np.nonzero(mask)
    left, right = columns.min() + 1, columns.max() + 1
    top, bottom = rows.min() + 1, rows.max() + 1
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return np.array(corners, np.float64)


def map_slices(function, sources, n_jobs=None, description="", progress=True):
    """Yield ``function(source)`` in order, computed by `n_jobs` processes.

    None takes all cores for MIN_PARALLEL slices or more, otherwise this process.
    """
    if n_jobs is None:
        n_jobs = -1 if len(sources) >= MIN_PARALLEL else 1
    if n_jobs == 1:
        results = map(function, sources)
    else:
        parallel = joblib.Parallel(n_jobs, return_as="generator")
        results = parallel(joblib.delayed(function)(source) for source in sources)
    bar = {"desc": description, "unit": " slices", "disable": not progress}
    yield from tqdm(results, total=len(sources), **bar)


def check_folder(directory, n_jobs=None, progress=True):
    """Report what a folder of slices holds and lacks, and what is wrong with it.

    Returns a dict: found (readable slices per class name), missing (file numbers that
    only cvind.mat has), notes (list of str), problems (list of (file, problem)).
    """
    directory = Path(directory)
    report = {"found": {}, "missing": [], "notes": [], "problems": []}
    try:
        sources = find_slices(directory)
    except DatasetError as error:
        return report | {"problems": [(str(directory), str(error))]}
    rows = []
    for row, problems in map_slices(
        _check_slice, sources, n_jobs, "checking", progress
    ):
        rows += row
        report["problems"] += problems
    table = pd.DataFrame(rows, columns=["pid", "label", "fold"])
    across = find_table_problems(table)
    report["problems"] += [(str(directory), problem) for problem in across]
    report["found"] = {
        name: int(table["label"].eq(k).sum()) for k, name in LABELS.items()
    }
    if sources[0].row is None:
        _check_cvind(directory, [source.file for source in sources], report)
    return report


def _check_slice(source):
    try:
        item = read_slice(source)
        return [(item.pid, item.label, item.fold)], []
    except DatasetError as error:
        return [], error.problems or [(str(source.path), str(error))]


def _check_cvind(directory, files, report):
    try:
        cvind = read_cvind(directory)
        if cvind is None:
            report["notes"].append("cvind.mat is missing: folds will group families")
        else:
            select_folds(directory, cvind, files)
            report["missing"] = sorted(set(range(1, cvind.size + 1)) - set(files))
    except DatasetError as error:
        report["problems"].append((str(directory / "cvind.mat"), str(error)))


def select_folds(directory, cvind, files):
    """Return the folds of file numbers; DatasetError if `cvind` does not cover them."""
    if min(files) < 1 or max(files) > cvind.size:
        raise DatasetError(
            f"{Path(directory) / 'cvind.mat'}: covers file numbers 1 to {cvind.size}, "
            f"expected {min(files)}.mat to {max(files)}.mat"
        )
    return cvind[np.asarray(files) - 1]


def find_table_problems(table):
    """List problems between slices; `table` has the columns pid, label and fold."""
    problems = []
    if table["fold"].isna().any() and table["fold"].notna().any():
        problems.append("slices.csv: fold is given for some rows, expected all or none")
    n_labels = table.groupby("pid")["label"].nunique()
    for pid in n_labels.index[n_labels > 1]:
        problems.append(f"patient {pid} has slices of different labels, expected one")
    return problems


def export_png(directory, out, progress=True):
    """Export slices as the original study: ``OUT/<label>/<n>.matlabel=<label>.png``.

    Minimum and maximum of a slice become 0 and 255, as with MATLAB's ``mat2gray``.
    Returns the number of files.
    """
    sources = find_slices(directory)
    for source in tqdm(sources, "exporting", unit=" slices", disable=not progress):
        item = read_slice(source)
        image = item.image.astype(np.float64)
        gray = (image - image.min()) / (image.max() - image.min()) * 255
        name = f"{item.file}.matlabel={item.label}.png"
        with atomic_write(Path(out) / str(item.label) / name) as path:
            Image.fromarray(np.floor(gray + 0.5).astype(np.uint8)).save(path)
    return len(sources)
