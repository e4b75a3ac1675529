"""From figshare's files, or a reader's own, to checked slices, an index and memory-mapped arrays.

Source of the layout: Cheng, Jun (2017), brain tumor dataset, figshare, doi 10.6084/m9.figshare.1512427.
"""

import hashlib
import json
import math
import re
import shutil
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from braintumor.core.errors import DatasetError, in_short
from braintumor.core.files import ROOT, atomic, atomic_folder, mapped, write_json
from braintumor.core.processes import pool
from braintumor.data.splits import FOLDS, family, grouped_folds

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary tumor"}
PLANES = ("axial", "coronal", "sagittal", "unknown")
SPACING_MM = 0.49  # at 512 pixels, from the dataset's paper; the field of view is taken as the same at 256
PERCENTILES = (1, 99.5)  # a slice's intensities between these become 0 to 255
LARGEST_SIDE = 4096  # pixels; a file that declares more is broken or hostile, not an MR slice
LARGEST_VALUE, LEAST_RANGE = 1e15, 1e-15  # intensities beyond cannot be scaled in float32
LONGEST_CELL = 500  # characters of a cell of slices.csv
MOST_CHUNKS = 2**16  # pieces in which HDF5 stores a field; MATLAB makes some dozens
DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
KINDS = {
    "phantom": "the synthetic phantom: drawn patients, no real images",
    "figshare": "the figshare dataset 1512427 (Jun Cheng, CC BY 4.0), original int16 files",
    "figshare-jpeg": "the figshare dataset 1512427 (Jun Cheng, CC BY 4.0), from an 8-bit JPEG copy of its slices",
    "folder": "a reader's own folder of slices",
}


@dataclass(frozen=True)
class Source:
    """Where one slice is: a .mat file, or a row of slices.csv (a dict of its columns)."""

    file: int
    path: Path
    row: dict | None = None


@dataclass(frozen=True)
class Slice:
    """One checked slice, upright.

    `image` (side, side) numeric as stored, `mask` (side, side) bool, `border` (points, 2) float64:
    x to the right and y down, in 1-based pixel coordinates; `label` 1 meningioma, 2 glioma, 3 pituitary
    tumor. `fold`, `plane` and `spacing_mm` are None where the source does not say.
    """

    file: int
    pid: str
    label: int
    image: np.ndarray
    mask: np.ndarray
    border: np.ndarray
    fold: int | None = None
    plane: str | None = None
    spacing_mm: float | None = None


# Reading one slice: every reader collects what is wrong, so that `check` can list it all.


def read_slice(source):
    """Read and check one slice; `source` is a Source or the path of a figshare .mat file.

    Raises DatasetError naming the file and every field that is not as expected.
    """
    if not isinstance(source, Source):
        source = Source(_file_number(Path(source)), Path(source))
    return _read_png_pair(source) if source.row is not None else _read_mat(source)


def _read_mat(source):
    faults = []
    try:
        with _opened(source.path) as mat:
            struct = _own(mat, "cjdata")
            if not isinstance(struct, h5py.Group):
                raise DatasetError(f"{source.path}: field cjdata is missing; expected figshare's struct cjdata")
            fields = {
                name: _read_field(struct, name, faults)
                for name in ("image", "tumorMask", "label", "PID", "tumorBorder")
            }
    except DatasetError:
        raise
    except Exception as error:  # h5py answers a damaged file with half a dozen exception types
        raise DatasetError(
            f"{source.path}: cannot be read as a MATLAB v7.3 (HDF5) file ({in_short(error)}); "
            "it may be cut short: download it again"
        ) from None
    label = pid = border = image = mask = None
    if (value := fields["label"]) is not None:
        label = _label(value.item(), faults) if value.size == 1 else faults.append("label: expected one number")
    if (value := fields["PID"]) is not None:
        pid = _pid(value, faults)
    if (value := fields["tumorBorder"]) is not None:
        border = _border(value, faults)
    if (value := fields["image"]) is not None:
        image = _image(value.T, faults)
    if (value := fields["tumorMask"]) is not None and image is not None:
        mask = _mask(value.T, image, faults)
    _raise(source.path, faults)
    return Slice(source.file, pid, label, image, mask, border)


def _opened(path):
    if not path.is_file():  # a named pipe would be waited for
        raise DatasetError(f"{path}: no such file; expected a MATLAB v7.3 (HDF5) file: check the name")
    with mapped(path) as content:
        if _heap_is_endless(content):
            raise DatasetError(f"{path}: a heap of this HDF5 file has objects of no size; download it again")
    return h5py.File(path, "r")


def _heap_is_endless(content):
    """Whether HDF5 2.0 would read a global heap of these bytes for ever: one with an object that takes no room."""
    for found in re.finditer(rb"GCOL\x01\0\0\0", content):
        at, end = found.start() + 16, found.start() + int.from_bytes(content[found.end() : found.end() + 8], "little")
        while at + 16 <= min(end, len(content)):
            number, size = (int.from_bytes(content[at + n : at + n + m], "little") for n, m in ((0, 2), (8, 8)))
            taken = 16 + -(-size // 8) * 8 if number else size
            if not 0 < taken < 2**64:  # in 64 bits, 2**64 is nothing
                return True
            at += taken
    return False


def _own(group, name):
    """What an HDF5 group holds by itself: a link could lead into any other file. None if it holds nothing so."""
    return group.get(name) if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _read_field(group, name, faults):
    item = _own(group, name)
    if not isinstance(item, h5py.Dataset):
        faults.append(f"{name}: is missing")
    elif item.dtype.kind not in "biuf":
        faults.append(f"{name}: holds {in_short(item.dtype)}; expected numbers")
    elif not item.size or item.size > LARGEST_SIDE**2:
        faults.append(f"{name}: declares shape {item.shape}; expected 1 to {LARGEST_SIDE}^2 values")
    elif item.external or item.is_virtual:
        faults.append(f"{name}: refers to values elsewhere; expected them in the file itself")
    else:
        try:
            return _values(item)
        except ValueError as error:
            faults.append(f"{name}: {in_short(error)}")
    return None


def _values(item):
    """The values of an HDF5 dataset whose shape is no danger. Raises ValueError if not as many are stored as declared.

    Chunks are decompressed here: of one that is shorter or longer than declared, HDF5 2.0 reads and writes what lies
    behind it in this process's memory.
    """
    if not item.chunks:
        if item.id.get_storage_size() != item.nbytes:
            raise ValueError(f"stores {item.id.get_storage_size()} bytes; expected {item.nbytes}")
        return item[()]
    settings = item.id.get_create_plist()
    filters = [settings.get_filter(n)[0] for n in range(settings.get_nfilters())]
    plain = item.id.get_type().equal(h5py.h5t.py_create(item.dtype))
    if not plain or filters not in ([], [DEFLATE], [SHUFFLE, DEFLATE]):
        raise ValueError("is stored in a way that MATLAB does not use; expected plain numbers, or gzip")
    size = math.prod(item.chunks) * item.dtype.itemsize
    count = math.prod(-(-n // m) for n, m in zip(item.shape, item.chunks, strict=True))
    if size > 8 * LARGEST_SIDE**2 or count > MOST_CHUNKS:
        raise ValueError(f"is stored in {count} pieces of {size} bytes; expected fewer or smaller ones")
    values, chunks = np.zeros(item.shape, item.dtype), []
    item.id.chunk_iter(chunks.append)
    if len(chunks) != count:
        raise ValueError(f"stores {len(chunks)} pieces; expected {count}")
    least, most = (0, size + size // 1000 + 64) if filters else (size, size)  # gzip makes nothing much larger
    for chunk in chunks:
        if not least <= chunk.size <= most:
            raise ValueError(f"a piece has {chunk.size} bytes; expected {size}")
        skipped, stored = item.id.read_direct_chunk(chunk.chunk_offset, out=np.empty(chunk.size, np.uint8))
        content = _unpacked(stored, [one for n, one in enumerate(filters) if not skipped >> n & 1], size, item.dtype)
        part = values[tuple(slice(at, at + length) for at, length in zip(chunk.chunk_offset, item.chunks, strict=True))]
        part[...] = content.reshape(item.chunks)[tuple(map(slice, part.shape))]
    return values


def _unpacked(stored, filters, size, dtype):
    """The numbers in the bytes of one HDF5 chunk, which must be `size` bytes without its filters."""
    if DEFLATE in filters:
        unpacking = zlib.decompressobj()
        stored = unpacking.decompress(stored, size + 1)
        if not unpacking.eof:
            raise ValueError(f"a compressed piece is cut short, or has over {size} bytes")
    if len(stored) != size:
        raise ValueError(f"a piece has {len(stored)} bytes; expected {size}")
    if SHUFFLE in filters:
        stored = np.frombuffer(stored, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(stored, np.uint8 if dtype.kind == "b" else dtype)


def _label(value, faults):
    if value in LABELS:
        return int(value)
    faults.append(f"label: is {value}; expected 1 (meningioma), 2 (glioma) or 3 (pituitary tumor)")
    return None


def _pid(value, faults):
    codes = np.asarray(value).ravel()
    if codes.dtype.kind in "iu" and codes.size <= 64 and np.all((codes > 32) & (codes < 127)):
        return "".join(map(chr, codes))
    faults.append("PID: expected up to 64 printable character codes, such as those of 100360")
    return None


def _border(value, faults):
    xy = np.asarray(value, np.float64).ravel()
    if xy.size >= 6 and xy.size % 2 == 0 and np.isfinite(xy).all():
        return xy.reshape(-1, 2)
    faults.append(f"tumorBorder: holds {xy.size} values; expected x1 y1 x2 y2 ..., three finite points or more")
    return None


def _image(value, faults):
    if value.ndim != 2 or value.shape[0] != value.shape[1] or value.shape[0] < 16:
        faults.append(f"image: has shape {value.shape}; expected a square of at least 16 x 16 pixels")
    elif value.dtype.kind == "f" and not np.isfinite(value).all():
        faults.append("image: holds NaN or infinite values; expected finite intensities")
    elif fault := intensity_fault(value):
        faults.append(f"image: {fault}")
    else:
        return value.astype(value.dtype.newbyteorder("="), copy=False)
    return None


def intensity_fault(image):
    """Why finite pixels show nothing that could be scaled, in words; None if they do."""
    if image.min() == image.max():
        return f"every pixel is {image.min()}; expected an MR slice"
    low, high = float(image.min()), float(image.max())
    if max(-low, high) > LARGEST_VALUE or high - low < LEAST_RANGE:
        return (
            f"intensities are from {low:g} to {high:g}; expected an MR slice: none over {LARGEST_VALUE:g}, and "
            f"the brightest at least {LEAST_RANGE:g} over the darkest"
        )
    return None


def _mask(value, image, faults):
    if value.shape != image.shape:
        faults.append(f"tumorMask: has shape {value.shape}; expected the image's {image.shape}")
    elif value.min() < 0 or value.max() > 1 or (value.dtype.kind == "f" and not np.isin(value, (0, 1)).all()):
        faults.append("tumorMask: holds values other than 0 and 1")
    elif not value.any():
        faults.append("tumorMask: is empty; expected a tumor in every slice")
    else:
        return value.astype(bool)
    return None


def _raise(path, faults):
    if faults:
        error = DatasetError("; ".join(f"{path}: {fault}" for fault in faults))
        error.faults = [(str(path), fault) for fault in faults]
        raise error


# A reader's own PNG pairs: slices.csv with the columns image, mask, label, patient
# (and, where known, fold, plane and spacing_mm).


def _read_png_pair(source):
    row, faults, folder = source.row, [], source.path.parent
    image = _read_png(folder, "image", row["image"], faults)
    mask = _read_png(folder, "mask", row["mask"], faults)
    if image is not None and mask is not None and image.shape != mask.shape:
        faults.append(f"mask: {row['mask']} has shape {mask.shape}; expected the image's {image.shape}")
        mask = None
    if image is not None:
        image = _image(squared(image), faults)
    if mask is not None and image is not None:
        if mask.max() > 1 and set(np.unique(mask)) <= {0, mask.max()}:
            mask = mask > 0  # painting programs store a mask as 0 and 255
        mask = _mask(squared(mask), image, faults)
    names = {name: number for number, name in LABELS.items()} | {str(n): n for n in LABELS}
    label = names.get(row["label"].strip().lower()) or _label(row["label"], faults)
    if not (pid := row["patient"].strip()):
        faults.append("patient: is empty; expected the patient's identifier, which keeps folds apart")
    elif len(pid) > 64:
        faults.append(f"patient: has {len(pid)} characters; expected an identifier of up to 64")
    plane = (row.get("plane") or "unknown").lower()
    if plane not in PLANES:
        faults.append(f"plane: is {plane!r}; expected one of {', '.join(PLANES)}")
    fold = _number(row, "fold", int, lambda n: 1 <= n <= 5, "1 to 5", faults)
    spacing = _number(row, "spacing_mm", float, lambda x: 0 < x < 10, "millimetres, over 0 and under 10", faults)
    _raise(f"{source.path}, row {source.file}", faults)
    border = np.argwhere(mask)[:, ::-1].astype(np.float64) + 1
    box = np.array([border.min(0), border.max(0)])  # a box stands in for the border, which the PNGs do not give
    border = np.array([[box[i, 0], box[j, 1]] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])
    return Slice(source.file, pid, label, image, mask, border, fold, plane, spacing)


def _read_png(folder, column, name, faults):
    from braintumor.data.formats import picture  # in here: it imports this module

    try:
        path = (folder / name).resolve()
        there = path.is_file()  # a named pipe would be waited for
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a zero byte, and the like
        faults.append(f"{column}: {name} is no name of a file ({in_short(error)}); expected an image")
        return None
    if not path.is_relative_to(folder.resolve()):
        faults.append(f"{column}: {name} lies outside {folder}")
        return None
    if not there:
        faults.append(f"{column}: {name} cannot be read: no such file; expected an image")
        return None
    try:
        return picture(path)[0]
    except DatasetError as error:
        faults.append(f"{column}: {name} {error}")
        return None


def squared(image):
    """Pad (rows, columns) at the right and the bottom with the least value: resizing must not distort anatomy."""
    side = max(image.shape)
    return np.pad(image, [(0, side - n) for n in image.shape], constant_values=image.min())


def _number(row, column, kind, fits, expected, faults):
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        if fits(value := kind(text)):
            return value
    except ValueError:
        pass
    faults.append(f"{column}: is {text!r}; expected {expected}")
    return None


# A folder of slices.


def find_slices(directory):
    """List the slices of a folder: .mat files named by number (in subfolders too), or the rows of slices.csv.

    Returns Sources ordered by file number. Raises DatasetError if the folder is not there, holds neither,
    or has one file number twice.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DatasetError(f"{directory}: no such folder; expected figshare's .mat files or slices.csv in it")
    table = directory / "slices.csv"
    if table.exists():
        return _csv_sources(table)
    sources, twice = _mat_sources(directory)
    if twice:
        raise DatasetError("; ".join(f"{path}: {fault}" for path, fault in twice))
    return sources


def _mat_sources(directory):
    """Sources of the folder's .mat files, and the faults of those whose number is there already."""
    found, twice = {}, []
    for path in sorted(directory.rglob("*.mat")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)  # a download under way
        if hidden or not re.fullmatch(r"\d+\.mat", path.name):
            continue
        number = _file_number(path)
        if number in found:
            twice.append((str(path), f"file number {number} is there twice, also as {found[number]}; keep one"))
        else:
            found[number] = path
    if not found:
        raise DatasetError(
            f"{directory}: holds no slices; expected figshare's 1.mat, 2.mat, ... or a slices.csv with the "
            "columns image, mask, label, patient"
        )
    return [Source(number, found[number]) for number in sorted(found)], twice


def _file_number(path):
    if not re.fullmatch(r"\d{1,9}\.mat", path.name):
        raise DatasetError(f"{path}: expected a file named by its number, such as 30.mat")
    return int(path.stem)


def _csv_sources(table):
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DatasetError(f"{table}: cannot be read as a CSV table in UTF-8 ({in_short(error)})") from None
    missing = {"image", "mask", "label", "patient"} - set(rows.columns)
    if missing or rows.empty:
        raise DatasetError(
            f"{table}: columns {sorted(missing)} are missing; expected image, mask, label, patient and at least one row"
        )
    if not isinstance(rows.index, pd.RangeIndex):  # pandas took the first cells for names of the rows
        raise DatasetError(f"{table}: rows have more cells than the first line has columns; expected as many")
    for column in rows.columns:
        strange = ~rows[column].map(lambda cell: cell.isprintable() and len(cell) <= LONGEST_CELL)
        if strange.any():
            raise DatasetError(
                f"{table}, row {strange.argmax() + 1}: {in_short(column)}: expected up to {LONGEST_CELL} printable "
                "characters, without line ends"
            )
    if (twice := rows["image"].duplicated()).any():
        raise DatasetError(f"{table}: image {rows['image'][twice].iloc[0]} is there twice; keep one row")
    return [Source(n, table, row) for n, row in enumerate(rows.to_dict("records"), start=1)]


def read_cvind(directory):
    """The fold (1 to 5) of file numbers 1, 2, ... from cvind.mat: int array; None if the folder has no cvind.mat.

    Raises DatasetError if it is there but cannot be read or holds other values.
    """
    path = Path(directory) / "cvind.mat"
    if not path.exists() and not path.is_symlink():
        return None
    faults = []
    try:
        with _opened(path) as mat:
            folds = _read_field(mat, "cvind", faults)
    except DatasetError:
        raise
    except Exception as error:  # as in _read_mat
        raise DatasetError(f"{path}: field cvind cannot be read ({in_short(error)}); expected MATLAB v7.3") from None
    _raise(path, faults)
    if folds.dtype.kind not in "iuf" or not np.isin(folds, FOLDS).all():
        raise DatasetError(f"{path}: cvind holds values other than 1 to 5; expected one fold a file number")
    return folds.ravel().astype(int)


def _folds_of(directory, cvind, files):
    if min(files) < 1 or max(files) > cvind.size:
        raise DatasetError(
            f"{Path(directory) / 'cvind.mat'}: cvind covers file numbers 1 to {cvind.size}, but the folder holds "
            f"{min(files)}.mat to {max(files)}.mat; expected one entry a file number"
        )
    return cvind[np.asarray(files) - 1]


def check(directory, workers=None, progress=True):
    """What is there, missing and broken in a folder of slices; nothing is changed and nothing stops it.

    Returns a dict: found (readable slices by class name), missing (file numbers that cvind.mat covers and the
    folder lacks), notes (what a reader should know), faults (a list of (file, what is wrong)).
    """
    directory = Path(directory)
    report = {"found": {}, "missing": [], "notes": [], "faults": []}
    try:
        pairs = not directory.is_dir() or (directory / "slices.csv").exists()
        sources, twice = (find_slices(directory), []) if pairs else _mat_sources(directory)
    except DatasetError as error:
        return report | {"faults": [(str(directory), str(error))]}
    report["faults"] += twice
    read = []
    for found, faults in _in_processes(_check_one, sources, workers, "checking", progress):
        report["faults"] += faults
        read += found
    table = pd.DataFrame(read, columns=["pid", "label", "fold"])
    report["faults"] += [(str(directory), fault) for fault in _faults_across(table)]
    report["found"] = {name: int((table["label"] == number).sum()) for number, name in LABELS.items()}
    if sources[0].row is not None:
        return report
    try:
        files = [source.file for source in sources]
        cvind = read_cvind(directory)
        if cvind is None:
            report["notes"].append("cvind.mat is not there: folds will be made by family")
        else:
            _folds_of(directory, cvind, files)
            report["missing"] = sorted(set(range(1, cvind.size + 1)) - set(files))
    except DatasetError as error:
        report["faults"].append((str(directory / "cvind.mat"), str(error)))
    return report


def _check_one(source):
    try:
        one = read_slice(source)
        return [(one.pid, one.label, one.fold)], []
    except DatasetError as error:
        return [], getattr(error, "faults", [(str(source.path), str(error))])


def _faults_across(table):
    """What is wrong between slices that are each fine; `table` has pid, label, and fold where a slice names it."""
    faults = []
    if table["fold"].isna().any() and table["fold"].notna().any():
        faults.append("slices.csv: fold is given for some rows only; give all or none")
    labels = table.groupby("pid")["label"].nunique()
    faults += [f"patient {pid} has slices of different labels; expected one" for pid in labels.index[labels > 1]]
    return faults


def _in_processes(function, items, workers, what, progress):
    """Yield function(item) in order; workers=1 stays in this process (no start-up cost for a few slices)."""
    bar = partial(tqdm, total=len(items), desc=what, unit=" slices", disable=not progress)
    if workers == 1 or len(items) < 64:
        yield from bar(map(function, items))
        return
    with pool(workers) as processes:
        yield from bar(processes.map(function, items, chunksize=16))


# Prepared data: an index and one memory-mapped array for an image size.


@dataclass(frozen=True)
class Prepared:
    """A prepared set, opened in milliseconds.

    `index` has one row a slice: file, pid, family, label, plane, fold, size (native pixels a side), spacing_mm
    and spacing_assumed, tumor_area (native pixels), border (flat x1 y1 x2 y2 ...), mask_bits (the native mask, packed).
    `images` (n, side, side) uint8, scaled by slice; `masks` (n, side, side) uint8, 0 or 1; both memory-mapped.
    `about` is prepared.json: kind of data, digest, percentiles of the scaling, source.
    """

    index: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    about: dict

    def native_mask(self, row):
        """The mask of one row at the size it was drawn: (size, size) bool."""
        one = self.index.iloc[row]
        bits = np.frombuffer(zlib.decompress(one["mask_bits"]), np.uint8)
        return np.unpackbits(bits, count=one["size"] ** 2).reshape(one["size"], one["size"]).T.astype(bool)


def scaled(image, size, percentiles=PERCENTILES):
    """Scale a slice to uint8, `percentiles` of its own intensities to 0 and 255, and resize it to (size, size).

    Area averaging downwards, linear upwards. Eight bits between the percentiles are finer than the noise of a slice.
    (0, 100) is from least to greatest, as the original study's export with MATLAB's mat2gray.
    """
    ordered = np.sort(image, axis=None)  # faster than np.percentile, which interpolates too
    low, high = (float(ordered[round(percent / 100 * (image.size - 1))]) for percent in percentiles)
    if high - low < LEAST_RANGE:  # a small bright object on a constant ground
        low, high = float(image.min()), float(image.max())

    gray = image.astype(np.float32)
    gray -= low
    gray *= 255 / (high - low)
    gray += 0.5
    return _resized(np.clip(gray, 0, 255, out=gray).astype(np.uint8), size)


def scaled_mask(mask, size):
    """Resize a mask to (size, size) uint8: 1 where the tumor covers at least half of the pixel."""
    return (_resized(np.uint8(255) * mask, size) >= 128).astype(np.uint8)


def _resized(image, size):
    """Resize (side, side) uint8."""
    if image.flags.f_contiguous:  # as h5py gives MATLAB's arrays: a view turned over is cheaper than a copy
        return _resized(image.T, size).T
    method = Image.BOX if size < len(image) else Image.BILINEAR
    return np.asarray(Image.fromarray(image).resize((size, size), method))


def prepare(directory, out, size, percentiles=PERCENTILES, workers=None, progress=True):
    """Read every slice of `directory` and write the prepared set `out` (a folder): all of it, or nothing.

    `size` is the side of the arrays in pixels, 16 or more; `percentiles` are those of `scaled`. The masks' native
    pixels are kept too, packed in the index. Reading runs in `workers` processes (default: one a core). Returns the
    opened set.
    Raises DatasetError at the first broken slice (`check` lists them all), BusyError while another process prepares
    the same, FullDiskError if there is no room.
    """
    if not 16 <= size <= LARGEST_SIDE:
        raise DatasetError(f"image size {size}: expected 16 to {LARGEST_SIDE} pixels")
    out, sources = Path(out), find_slices(directory)
    if out.exists() and not (out / "prepared.json").exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DatasetError(f"{out}: holds something else; expected a prepared set, an empty folder, or nothing there")
    shape = (len(sources), size, size)
    with atomic_folder(out, f"{out} is being prepared", needed=2 * math.prod(shape)) as unfinished:
        rows = []
        results = _in_processes(
            partial(_prepare_one, size=size, percentiles=percentiles), sources, workers, "preparing", progress
        )
        # written, not mapped: the system ends a process without a word that writes to a map on a full disk
        with open(unfinished / "images.npy", "wb") as images, open(unfinished / "masks.npy", "wb") as masks:
            for file in (images, masks):
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            for row, image, mask in results:
                rows.append(row)
                images.write(image.tobytes())
                masks.write(mask.tobytes())
        index = pd.DataFrame(rows)
        kind = _recognise(directory, index)
        index, folds = _completed(directory, index, kind)
        index, native = index.drop(columns=["brightest", "mask_sha256"]), index["mask_sha256"]
        digest = hashlib.sha256(index.drop(columns="mask_bits").to_json().encode())
        digest.update("".join(native).encode())  # compressed bytes differ between versions of zlib
        for name in ("images", "masks"):
            digest.update(np.load(unfinished / f"{name}.npy", mmap_mode="r"))
        index.to_parquet(unfinished / "index.parquet", index=False)
        about = {
            "kind": kind,
            "digest": digest.hexdigest(),
            "size": size,
            "percentiles": list(percentiles),
            "slices": len(index),
            "folds": folds,
        }
        about |= {"source": str(Path(directory).resolve()), "fingerprint": _fingerprint(directory, sources)}
        write_json(unfinished / "prepared.json", about)
        if out.exists():
            shutil.rmtree(out)
    return open_prepared(out)


def _prepare_one(source, size, percentiles):
    one = read_slice(source)
    bits = np.packbits(one.mask.T)  # by columns, as MATLAB and so h5py's arrays have them: no copy
    row = {
        "file": one.file,
        "pid": one.pid,
        "label": one.label,
        "plane": one.plane,
        "fold": one.fold,
        "size": one.image.shape[0],
        "spacing_mm": one.spacing_mm,
        "tumor_area": int(one.mask.sum()),
        "border": one.border.ravel(),
        "mask_bits": zlib.compress(bits, 1),
        "brightest": float(one.image.max()),
        "mask_sha256": hashlib.sha256(bits).hexdigest(),
    }
    return row, scaled(one.image, size, percentiles), scaled_mask(one.mask, size)


def _recognise(directory, index):
    if (Path(directory) / "phantom.json").exists():
        return "phantom"
    known = figshare_table().reindex(index["file"]).reset_index()
    if not (known["pid"].eq(index["pid"]) & known["label"].eq(index["label"])).all():
        return "folder"
    return "figshare" if index["brightest"].max() > 255 else "figshare-jpeg"


def figshare_table():
    """File number to pid, label and plane of figshare's slices; planes as derived by workflow/planes.py."""
    table = Path(__file__).parent / "figshare.csv"
    return pd.read_csv(table, dtype={"pid": str}).set_index("file")


def _completed(directory, index, kind):
    """Add family, fold, plane and spacing, from where this kind of data has them; also says where folds are from."""
    if faults := _faults_across(index):
        raise DatasetError(f"{directory}: {'; '.join(faults)}")
    index.insert(2, "family", index["pid"].map(family))
    if kind.startswith("figshare"):
        index["plane"] = figshare_table()["plane"].reindex(index["file"]).to_numpy()
    elif (planes := Path(directory) / "planes.csv").exists():
        index["plane"] = pd.read_csv(planes).set_index("file")["plane"].reindex(index["file"]).to_numpy()
        if foreign := set(index["plane"].dropna()) - set(PLANES):
            raise DatasetError(f"{planes}: plane is {sorted(foreign)}; expected {', '.join(PLANES)}")
    index["plane"] = pd.Categorical(index["plane"].fillna("unknown"), PLANES)
    if (cvind := read_cvind(directory)) is not None and not (Path(directory) / "slices.csv").exists():
        index["fold"], folds = _folds_of(directory, cvind, index["file"]), "cvind"
    elif index["fold"].isna().any():
        index["fold"], folds = grouped_folds(index["label"], index["family"], seed=0), "made"
    else:
        folds = "given"
    index["fold"] = index["fold"].astype(int)
    if kind != "folder":
        index["spacing_mm"] = SPACING_MM * 512 / index["size"]
    index["spacing_mm"] = index["spacing_mm"].astype(float)
    index["spacing_assumed"] = index["size"].ne(512) & (kind != "folder")
    return index, folds


def _fingerprint(directory, sources):
    """Names, sizes and times of the files that the set was made from, and the code that made it.

    Cheap to compare at every opening.
    """
    paths = {source.path for source in sources} | set(Path(directory).glob("*.[cm]*"))
    if sources[0].row is not None:
        paths |= {source.path.parent / source.row[column] for source in sources for column in ("image", "mask")}
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(paths)]
    code = [Path(__file__).with_name(name).read_bytes() for name in ("prepared.py", "formats.py", "figshare.csv")]
    return hashlib.sha256(json.dumps(stats).encode() + b"".join(code)).hexdigest()


def open_prepared(folder):
    """Open a prepared set. Raises DatasetError if it is not there."""
    folder = Path(folder)
    try:
        about = json.loads((folder / "prepared.json").read_text())
    except (OSError, ValueError):
        raise DatasetError(f"{folder}: is not a prepared set; run braintumor.data.prepared.prepare") from None
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks")]
    return Prepared(pd.read_parquet(folder / "index.parquet"), *arrays, about)


def open_data(data, size, percentiles=PERCENTILES):
    """The prepared set of `data` at `size` pixels, prepared first if it is new or its files have changed.

    `data` is "phantom" (drawn into data/phantom on first use) or a folder that `find_slices` understands.
    """
    directory = _folder(data)
    return find_prepared(data, size, percentiles) or prepare(
        directory, _place(directory, size, percentiles), size, percentiles
    )


def find_prepared(data, size, percentiles=PERCENTILES):
    """The prepared set that `open_data` would open as it is; None if it would have to draw or prepare something."""
    directory = _folder(data, draw=False)
    try:
        prepared = open_prepared(_place(directory, size, percentiles))
        return prepared if prepared.about["fingerprint"] == _fingerprint(directory, find_slices(directory)) else None
    except (DatasetError, OSError):  # also a file that slices.csv names and that is gone: prepare tells which
        return None


def count_slices(data):
    """How many slices `data` (as in `open_data`) holds, without reading them, or drawing the phantom."""
    directory = _folder(data, draw=False)
    if data == "phantom" and not directory.exists():
        from braintumor.data.phantom import slice_count

        return slice_count()
    return len(find_slices(directory))


def _place(directory, size, percentiles):
    name = f"{directory.name[:50]}-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"
    scaling = "" if tuple(percentiles) == PERCENTILES else "-{:g}-{:g}".format(*percentiles)
    return ROOT / "data" / "prepared" / name / f"{size}{scaling}"


def slice_by_number(data, file):
    """Read one slice of `data` (as in `open_data`) by its number. Raises DatasetError if it has no such slice."""
    directory = _folder(data)
    for source in find_slices(directory):
        if source.file == file:
            return read_slice(source)
    raise DatasetError(f"{directory}: holds no slice {file}")


def _folder(data, draw=True):
    if data != "phantom":
        return (ROOT / Path(data).expanduser()).resolve()
    directory = ROOT / "data" / "phantom"
    if draw and not directory.exists():
        from braintumor.data.phantom import write_phantom  # in here: processes that read slices start sooner without it

        write_phantom(directory)
    return directory


# The original study's export.


def export_png(directory, out, progress=True):
    """Write each slice as the original study's MATLAB script did: OUT/<label>/<number>.matlabel=<label>.png.

    Intensities are scaled as MATLAB's mat2gray does, from the slice's own least and greatest to 0 and 255, and
    rounded as its imwrite does. Returns the number of files written.
    """
    sources = find_slices(directory)
    for source in tqdm(sources, desc="exporting", unit=" slices", disable=not progress):
        one = read_slice(source)
        low, high = float(one.image.min()), float(one.image.max())
        gray = np.floor((one.image.astype(np.float64) - low) / (high - low) * 255 + 0.5).astype(np.uint8)
        with atomic(Path(out) / str(one.label) / f"{one.file}.matlabel={one.label}.png") as path:
            Image.fromarray(gray).save(path)
    return len(sources)
