"""Prepared sets: an index and memory-mapped arrays of all slices at one size."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT, atomic_directory, directory_lock, write_json
from braintumor.data.figshare import SPACING_MM, load_figshare_index, read_cvind
from braintumor.data.folder import (
    find_slices,
    find_table_problems,
    map_slices,
    read_slice,
    select_folds,
)
from braintumor.data.labels import PLANES
from braintumor.data.preprocessing import (
    MAX_SIDE,
    PERCENTILES,
    preprocess_slice,
    resize_mask,
)
from braintumor.data.splits import make_grouped_folds, patient_family

FORMAT_VERSION = 2  # raise it when the same slices would be prepared differently
TEMPORARY = ["max", "mask_sha256"]  # columns of the index while it is made


@dataclass(frozen=True)
class PreparedData:
    """A prepared set.

    Attributes
    ----------
    index : DataFrame
        One row per slice: file, pid, family, label, plane, fold, size (native side in
        pixels), spacing_mm, spacing_assumed, tumor_area (native pixels), border (flat
        x1 y1 x2 y2 ...), mask_bits (compressed native mask).
    images : memmap of shape (n, side, side), uint8
    masks : memmap of shape (n, side, side), uint8
        0 or 1.
    info : dict
        kind, digest, size, percentiles, slices, folds, source, fingerprint.
    """

    index: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    info: dict

    def native_mask(self, row):
        """Return the mask of one row at its native size: (size, size) bool."""
        size, bits = self.index.iloc[row][["size", "mask_bits"]]
        packed = np.frombuffer(zlib.decompress(bits), np.uint8)
        flat = np.unpackbits(packed, count=size**2)
        return flat.reshape(size, size).T.astype(bool)


def prepare_data(
    directory, out, image_size, percentiles=PERCENTILES, n_jobs=None, progress=True
):
    """Read all slices of a folder and write a prepared set, or nothing.

    Parameters
    ----------
    directory, out : str or Path
        Folder of slices, and folder to write; an older prepared set is replaced.
    image_size : int
        Side of the arrays in pixels, 16 to MAX_SIDE.
    percentiles : (float, float)
        See ``preprocess_slice``.
    n_jobs : int or None
        See ``map_slices``.
    progress : bool

    Returns
    -------
    PreparedData

    Raises
    ------
    DatasetError
        At the first broken slice; ``check_folder`` lists all.
    """
    if not 16 <= image_size <= MAX_SIDE:
        raise DatasetError(f"image_size: got {image_size}, expected 16 to {MAX_SIDE}")
    directory, out = Path(directory), Path(out)
    sources = find_slices(directory)
    if out.exists() and not (out / "prepared.json").exists() and any(out.iterdir()):
        raise DatasetError(f"{out}: holds other files, expected a prepared set")
    prepare = partial(_prepare_slice, image_size=image_size, percentiles=percentiles)
    results = map_slices(prepare, sources, n_jobs, "preparing", progress)
    with atomic_directory(out) as folder:
        index, images, masks = _write_arrays(folder, results, len(sources), image_size)
        kind = _detect_kind(directory, index)
        index, folds = _add_metadata(directory, index, kind)
        index.drop(columns=TEMPORARY).to_parquet(folder / "index.parquet", index=False)
        info = {
            "kind": kind,
            "digest": _compute_digest(index, images, masks),
            "size": image_size,
            "percentiles": list(percentiles),
            "slices": len(index),
            "folds": folds,
            "source": str(directory.resolve()),
            "fingerprint": _fingerprint(directory, sources),
        }
        write_json(folder / "prepared.json", info)
    return open_prepared(out)


def _write_arrays(folder, results, n_slices, image_size):
    """Write images.npy and masks.npy; return the index and both memory maps."""
    shape = (n_slices, image_size, image_size)
    images = open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    masks = open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    rows = []
    for number, (row, image, mask) in enumerate(results):
        rows.append(row)
        images[number], masks[number] = image, mask
    images.flush()
    masks.flush()
    return pd.DataFrame(rows), images, masks


def _prepare_slice(source, image_size, percentiles):
    item = read_slice(source)
    bits = np.packbits(item.mask.T)  # column-major as in MATLAB files: no copy
    row = {
        "file": item.file,
        "pid": item.pid,
        "family": patient_family(item.pid),
        "label": item.label,
        "plane": item.plane,
        "fold": item.fold,
        "size": item.image.shape[0],
        "spacing_mm": item.spacing_mm,
        "tumor_area": int(item.mask.sum()),
        "border": item.border.ravel(),
        "mask_bits": zlib.compress(bits, 1),
        "max": float(item.image.max()),
        "mask_sha256": hashlib.sha256(bits).hexdigest(),
    }
    image = preprocess_slice(item.image, image_size, percentiles)
    return row, image, resize_mask(item.mask, image_size)


def _compute_digest(index, images, masks):
    """Hash index and pixels; compressed masks differ between versions of zlib."""
    table = index.drop(columns=["mask_bits", *TEMPORARY])
    digest = hashlib.sha256(table.to_json().encode())
    digest.update("".join(index["mask_sha256"]).encode())
    digest.update(images)
    digest.update(masks)
    return digest.hexdigest()


def _detect_kind(directory, index):
    if (directory / "phantom.json").exists():
        return "phantom"
    figshare = load_figshare_index().reindex(index["file"]).reset_index()
    columns = ["pid", "label"]
    if not figshare[columns].eq(index[columns]).all(axis=None):
        return "folder"
    return "figshare" if index["max"].max() > 255 else "figshare-jpeg"


def _add_metadata(directory, index, kind):
    """Complete plane, fold and spacing; also return where the folds are from."""
    if problems := find_table_problems(index):
        raise DatasetError(f"{directory}: {'; '.join(problems)}")
    planes = directory / "planes.csv"
    if kind.startswith("figshare"):
        plane = load_figshare_index()["plane"]
        index["plane"] = plane.reindex(index["file"]).to_numpy()
    elif planes.exists():
        plane = pd.read_csv(planes).set_index("file")["plane"]
        if unknown := set(plane.dropna()) - set(PLANES):
            expected = ", ".join(PLANES)
            raise DatasetError(f"{planes}: got {sorted(unknown)}, expected {expected}")
        index["plane"] = plane.reindex(index["file"]).to_numpy()
    index["plane"] = pd.Categorical(index["plane"].fillna("unknown"), PLANES)
    folds = "given"
    cvind = None if (directory / "slices.csv").exists() else read_cvind(directory)
    if cvind is not None:
        index["fold"], folds = select_folds(directory, cvind, index["file"]), "cvind"
    elif index["fold"].isna().any():
        index["fold"] = make_grouped_folds(index["label"], index["family"], seed=0)
        folds = "made"
    index["fold"] = index["fold"].astype(int)
    if kind != "folder":
        index["spacing_mm"] = SPACING_MM * 512 / index["size"]
    index["spacing_mm"] = index["spacing_mm"].astype(float)
    index["spacing_assumed"] = index["size"].ne(512) & (kind != "folder")
    return index, folds


def _fingerprint(directory, sources):
    """Hash names, sizes and times of the source files: cheap at every opening."""
    paths = {source.path for source in sources} | set(directory.glob("*.[cm]*"))
    for source in sources:
        if source.row is not None:
            folder = source.path.parent
            paths |= {folder / source.row["image"], folder / source.row["mask"]}
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(paths)]
    return hashlib.sha256(json.dumps([FORMAT_VERSION, stats]).encode()).hexdigest()


def fingerprint_data(data):
    """Return a hash that changes with the source files of `data`, see ``open_data``."""
    directory = resolve_data(data)
    if data == "phantom":  # generated, with a version of its own
        return f"phantom {FORMAT_VERSION}"
    return _fingerprint(directory, find_slices(directory))


def open_prepared(folder):
    """Open a prepared set; DatasetError if it does not exist."""
    folder = Path(folder)
    try:
        info = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DatasetError(
            f"{folder}: not a prepared set. Run `braintumor data prepare`."
        ) from None
    index = pd.read_parquet(folder / "index.parquet")
    images = np.load(folder / "images.npy", mmap_mode="r")
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    return PreparedData(index, images, masks, info)


def open_data(data, image_size, percentiles=PERCENTILES):
    """Open the prepared set of `data`; prepare it first if it is new or has changed.

    `data` is a folder of slices, or "phantom", which is generated on first use.
    """
    directory = _generate_phantom(resolve_data(data))
    folder = cache_dir(data, image_size, percentiles)
    if prepared := _open_current(folder, directory):
        return prepared
    with directory_lock(folder):  # another process may be preparing it
        if prepared := _open_current(folder, directory):
            return prepared
        return prepare_data(directory, folder, image_size, percentiles)


def _open_current(folder, directory):
    """Open a prepared set if it is there and the source files have not changed."""
    try:
        prepared = open_prepared(folder)
        current = _fingerprint(directory, find_slices(directory))
    except (DatasetError, OSError):  # prepare_data reports what is wrong
        return None
    return prepared if prepared.info["fingerprint"] == current else None


def _generate_phantom(directory):
    if directory == ROOT / "data" / "phantom" and not directory.exists():
        from braintumor.data.phantom import write_phantom  # SciPy starts slowly

        with directory_lock(directory):
            if not directory.exists():
                write_phantom(directory)
    return directory


def cache_dir(data, image_size, percentiles=PERCENTILES):
    """Return the folder in which ``open_data`` keeps the prepared set of `data`."""
    directory = resolve_data(data)
    path_hash = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
    name = f"{directory.name[:50]}-{path_hash}"
    scaling = ""
    if tuple(percentiles) != PERCENTILES:
        scaling = "-{:g}-{:g}".format(*percentiles)
    return ROOT / "data" / "prepared" / name / f"{image_size}{scaling}"


def resolve_data(data):
    """Return the folder of slices of `data` as an absolute path.

    A relative path is taken from the current folder, or from the project's if the
    current folder does not have it.
    """
    if data == "phantom":
        return ROOT / "data" / "phantom"
    path = Path(data).expanduser()
    return path.resolve() if path.exists() else (ROOT / path).resolve()


def read_slice_by_number(data, file):
    """Read the slice with number `file` of `data`, see ``open_data``."""
    directory = _generate_phantom(resolve_data(data))
    for source in find_slices(directory):
        if source.file == file:
            return read_slice(source)
    raise DatasetError(f"{directory}: holds no slice {file}. Check the number.")
