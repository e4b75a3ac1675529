"""Prepared sets: an index and memory-mapped arrays of all slices at one size."""

import hashlib
import json
import os
import shutil
import warnings
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap

from braintumor.core.errors import DatasetError, require
from braintumor.core.files import ROOT, atomic_directory, directory_lock, write_json
from braintumor.core.folders import list_files
from braintumor.data.figshare import SPACING_MM, load_figshare_index
from braintumor.data.folder import (
    check_folder,
    find_folds,
    find_slices,
    map_slices,
    read_slice,
)
from braintumor.data.labels import PHANTOM_VERSION, PLANES
from braintumor.data.preprocessing import PERCENTILES, preprocess_slice, resize_mask
from braintumor.data.raster import MAX_SIDE
from braintumor.data.splits import (
    assign_folds,
    make_split,
    patient_family,
    patient_source,
)

FORMAT_VERSION = 2  # raise it when the same slices would be prepared differently


@dataclass(frozen=True)
class PreparedData:
    """Uint8 memory maps (n, side, side), and an index with values of native slices.

    The `source` in the index is an inference, see ``patient_source``.
    """

    index: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    info: dict

    def native_mask(self, row):
        """Return the mask of one row at its native size: (size, size) bool."""
        size, bits = self.index.iloc[row][["size", "mask_bits"]]
        packed = np.frombuffer(zlib.decompress(bits), np.uint8)
        bits = np.unpackbits(packed, count=size**2)
        return bits.reshape(size, size).T.astype(bool)


def prepare_data(directory, out, image_size, percentiles=PERCENTILES):
    """Prepare all slices of a folder in `out`; the first broken slice raises."""
    directory, out = Path(directory), Path(out)
    if not 16 <= image_size <= MAX_SIDE:
        raise DatasetError(f"image_size: got {image_size}, expected 16 to {MAX_SIDE}")
    if out.exists() and not (out / "prepared.json").exists() and any(out.iterdir()):
        raise DatasetError(f"{out}: holds other files, expected a prepared set")
    sources, rows = find_slices(directory), []
    shape = (len(sources), image_size, image_size)
    prepare = partial(_prepare_slice, image_size=image_size, percentiles=percentiles)
    results = map_slices(prepare, sources, "preparing")
    with atomic_directory(out) as folder:
        images = open_memmap(folder / "images.npy", "w+", np.uint8, shape)
        masks = open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
        for number, (row, image, mask) in enumerate(results):
            images[number], masks[number] = image, mask
            rows.append(row)
        index = pd.DataFrame(rows)
        kind = _detect_kind(directory, index, sources)
        info = dict(kind=kind, folds=_complete_index(directory, index, kind))
        info |= dict(digest=_compute_digest(index, images, masks), slices=len(index))
        info |= dict(size=image_size, percentiles=list(percentiles))
        source, fingerprint = str(directory.resolve()), _fingerprint(directory)
        info |= dict(source=source, fingerprint=fingerprint)
        index.to_parquet(folder / "index.parquet", index=False)
        write_json(folder / "prepared.json", info)
    return open_prepared(out)


def _prepare_slice(source, image_size, percentiles):
    item = read_slice(source)
    row = dict(file=item.file, pid=item.pid, family=patient_family(item.pid))
    row |= dict(label=item.label, plane=item.plane, fold=item.fold)
    row |= dict(size=len(item.image), spacing_mm=item.spacing_mm)
    row |= dict(tumor_area=int(item.mask.sum()), border=item.border.ravel())
    row["mask_bits"] = zlib.compress(np.packbits(item.mask.T), 1)  # as in .mat files
    image = preprocess_slice(item.image, image_size, percentiles)
    return row, image, resize_mask(item.mask, image_size)


def _compute_digest(index, images, masks):
    """Hash index and pixels; compressed masks differ between versions of zlib."""
    digest = hashlib.sha256(index.drop(columns="mask_bits").to_json().encode())
    for bits in index["mask_bits"]:
        digest.update(hashlib.sha256(zlib.decompress(bits)).hexdigest().encode())
    digest.update(images)
    digest.update(masks)
    return digest.hexdigest()


def _detect_kind(directory, index, sources):
    if (directory / "phantom.json").exists():
        return "phantom"
    columns = ["file", "pid", "label"]
    figshare = load_figshare_index().reindex(index["file"]).reset_index()
    if not figshare[columns].eq(index[columns]).all(axis=None):
        return "folder"
    is_jpeg = read_slice(sources[0]).image.max() <= 255
    return "figshare-jpeg" if is_jpeg else "figshare"


def _complete_index(directory, index, kind):
    """Add plane, fold and spacing; return the source of the folds."""
    if kind.startswith("figshare"):
        index["plane"] = index["file"].map(load_figshare_index()["plane"])
    elif (directory / "planes.csv").exists():
        planes = pd.read_csv(directory / "planes.csv", index_col="file")["plane"]
        index["plane"] = index["file"].map(planes)
    index["plane"] = pd.Categorical(index["plane"].fillna("unknown"), PLANES)
    folds, source = find_folds(directory, index)
    folds = assign_folds(index, "family") if folds is None else folds
    index["fold"] = folds.astype(int)
    if kind != "folder":
        index["spacing_mm"] = SPACING_MM * 512 / index["size"]
    index["spacing_mm"] = index["spacing_mm"].astype(float)
    index["spacing_assumed"] = index["size"].ne(512) & (kind != "folder")
    return source


def _fingerprint(directory):
    """Hash names, sizes and times of the files in a folder: cheap at every opening."""
    paths = sorted(path for path in list_files(directory) if path.is_file())
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return hashlib.sha256(json.dumps([FORMAT_VERSION, stats]).encode()).hexdigest()


def fingerprint_data(data):
    """Return a hash that changes with the source files of `data`, see ``open_data``."""
    if data == "phantom":  # generated, and numbered by its version
        return f"phantom {PHANTOM_VERSION} {FORMAT_VERSION}"
    find_slices(resolve_data(data))  # raises if it holds none
    return _fingerprint(resolve_data(data))


def check_data(data, splits):
    """Raise DatasetError if `data` has problems, or a split cannot be made of it.

    `splits` are (protocol, fold, seed), see ``make_split``.
    """
    directory, index = resolve_data(data), None
    fingerprint = _fingerprint(directory)
    for path in cache_dir(data, 0).parent.glob("*/prepared.json"):
        if json.loads(path.read_text())["fingerprint"] == fingerprint:
            index = pd.read_parquet(path.with_name("index.parquet"))
    if index is None:  # not prepared yet
        report = check_folder(directory)
        if problems := report["problems"]:
            remedy = f"`braintumor data check {data}` lists all problems."
            raise DatasetError(f"{': '.join(problems[0])} {remedy}")
        index = report["index"]
    for split in sorted(splits):
        make_split(index, *split)


def open_prepared(folder):
    """Open a prepared set; DatasetError if it does not exist."""
    path = Path(folder) / "prepared.json"
    if not path.exists():
        raise DatasetError(f"{folder}: no prepared set. Run `braintumor data prepare`.")
    info = json.loads(path.read_text(encoding="utf-8"))
    index = pd.read_parquet(path.with_name("index.parquet"))
    index["source"] = index["pid"].map(patient_source)
    images = np.load(path.with_name("images.npy"), mmap_mode="r")
    masks = np.load(path.with_name("masks.npy"), mmap_mode="r")
    return PreparedData(index, images, masks, info)


def open_data(data, image_size, percentiles=PERCENTILES):
    """Open the prepared set of a folder of slices; prepare it if it is new or changed.

    Parameters
    ----------
    data : str or Path, the folder, or "phantom", which is generated at first
    image_size : int, pixels per side of the prepared slices
    percentiles : tuple, of a slice's intensities, which become 0 and 255

    Returns
    -------
    PreparedData

    Raises
    ------
    DatasetError
        If a slice or the folder is not as expected; the message has the first problem.
    """
    directory = _find_or_generate(data)
    folder = cache_dir(data, image_size, percentiles)
    with directory_lock(folder):  # another process may be preparing it
        if (folder / "prepared.json").exists():
            prepared = open_prepared(folder)
            if prepared.info["fingerprint"] == _fingerprint(directory):
                return prepared
        return prepare_data(directory, folder, image_size, percentiles)


def open_same_data(data, info):
    """Open `data` if it holds the slices of `info`, from a run.json; otherwise None."""
    prepared = open_data(data, info["size"]) if data else None
    if prepared and prepared.info["digest"] != info["digest"]:
        warnings.warn(f"{data}: not shown, since the run has others", stacklevel=2)
        return None
    return prepared


def _find_or_generate(data):
    directory = resolve_data(data)
    if directory == resolve_data("phantom"):
        from braintumor.data.phantom import write_phantom  # SciPy starts slowly

        record = directory / "phantom.json"
        with directory_lock(directory):  # another process may be generating it
            info = json.loads(record.read_text()) if record.exists() else {}
            if info and info["generator"] != PHANTOM_VERSION:
                shutil.rmtree(directory)
            if not directory.exists():
                write_phantom(directory)
    return directory


def cache_dir(data, image_size, percentiles=PERCENTILES):
    """Return the folder in which ``open_data`` keeps the prepared set of `data`."""
    directory = resolve_data(data)
    path_hash = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    parent = ROOT / "data" / "prepared" / f"{directory.name[:50]}-{path_hash}"
    is_default = tuple(percentiles) == PERCENTILES
    scaling = "" if is_default else "-{:g}-{:g}".format(*percentiles)
    return parent / f"{image_size}{scaling}"


def resolve_data(data):
    """Return the folder `data` of slices, below the current or the project folder."""
    if data == "phantom":
        return ROOT / "data" / "phantom"
    path = Path(data).expanduser()
    places = [place for place in (path, ROOT / path) if os.path.lexists(place)]
    expected = "a folder below " + " or ".join(sorted({str(Path.cwd()), str(ROOT)}))
    require(places, data, "no such folder", expected, "Check the name")
    return places[0].resolve()


def read_slice_by_number(data, file):
    """Read the slice with number `file` of `data`, see ``open_data``."""
    for source in find_slices(_find_or_generate(data)):
        if source.file == file:
            return read_slice(source)
    raise DatasetError(f"{data}: holds no slice {file}. Check the number.")
