"""Files of the figshare dataset 1512427 (MATLAB v7.3): reading, checking, writing.

References
----------
Cheng, J. (2017). Brain tumor dataset. figshare. doi:10.6084/m9.figshare.1512427
"""

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from braintumor.core.errors import DatasetError, ProblemCollector
from braintumor.core.files import atomic_write
from braintumor.data.hdf5 import get_member, open_mat, read_field
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import find_intensity_problem
from braintumor.data.splits import FOLDS

SPACING_MM = 0.49  # at 512 pixels, from the dataset's paper
MATLAB_HEADER = (
    b"MATLAB 7.3 MAT-file, Platform: GLNXA64, "
    b"Created on: Sun Apr 02 2017 HDF5 schema 1.00 ."
)


@dataclass(frozen=True)
class Slice:
    """A checked slice, upright.

    Attributes
    ----------
    file : int
        Number of the slice in its folder; 0 if the file is not named by a number.
    pid : str
        Patient identifier.
    label : int
        Key of LABELS.
    image : ndarray of shape (side, side), numeric as stored
    mask : ndarray of shape (side, side), bool
    border : ndarray of shape (n_points, 2), float64
        x and y in 1-based pixel coordinates.
    fold, plane, spacing_mm : optional
        None if the source does not specify them.
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


def read_mat(path):
    """Read and check one file of the figshare dataset as a Slice.

    Raises DatasetError naming the file and every field that is not as expected.
    """
    path = Path(path)
    problems = ProblemCollector(path)
    with open_mat(path) as mat:
        struct = get_member(mat, "cjdata")
        if not isinstance(struct, h5py.Group):
            raise DatasetError(f"{path}: cjdata is missing, expected figshare's struct")

        def read(name, check):
            return problems.check(name, lambda: check(read_field(struct, name)))

        label = read("label", _check_label)
        pid = read("PID", _decode_pid)
        border = read("tumorBorder", _check_border)
        image = read("image", lambda values: check_image(values.T))  # column-major
        shape = None if image is None else image.shape
        mask = read("tumorMask", lambda values: check_mask(values.T, shape))
    problems.raise_problems()
    number = int(path.stem) if re.fullmatch(r"\d{1,9}", path.stem) else 0
    return Slice(number, pid, label, image, mask, border)


def _check_label(value):
    if value.size != 1 or value.item() not in LABELS:
        names = ", ".join(f"{label} ({name})" for label, name in LABELS.items())
        raise ValueError(f"got {value.ravel()[:3].tolist()}, expected one of {names}")
    return int(value.item())


def _decode_pid(codes):
    codes = codes.ravel()
    is_text = codes.dtype.kind in "iu" and np.all((codes > 32) & (codes < 127))
    if is_text and codes.size <= 64:
        return "".join(map(chr, codes))
    raise ValueError("expected up to 64 codes of printable characters")


def _check_border(values):
    points = values.astype(np.float64).ravel()
    if points.size >= 6 and points.size % 2 == 0 and np.isfinite(points).all():
        return points.reshape(-1, 2)
    raise ValueError(
        f"got {points.size} values, expected x1 y1 x2 y2 ... of 3 or more finite points"
    )


def check_image(image):
    """Return a square image in native byte order; ValueError if it is unusable."""
    if image.ndim != 2 or image.shape[0] != image.shape[1] or image.shape[0] < 16:
        raise ValueError(
            f"got shape {image.shape}, expected a square of 16 x 16 or more"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError("got NaN or infinity, expected finite intensities")
    if problem := find_intensity_problem(image):
        raise ValueError(problem)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def check_mask(mask, shape=None):
    """Return a mask as bool; ValueError if it is not binary, or empty."""
    if shape is not None and mask.shape != shape:
        raise ValueError(f"got shape {mask.shape}, expected the image's {shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("got other values than 0 and 1, expected a binary mask")
    if not mask.any():
        raise ValueError("is empty, expected a tumor in every slice")
    return mask.astype(bool)


def read_cvind(directory):
    """Read ``cvind.mat``: the fold of file numbers 1, 2, ... as an int array.

    Returns None if the folder does not have the file.
    """
    path = Path(directory) / "cvind.mat"
    if not path.exists() and not path.is_symlink():
        return None
    problems = ProblemCollector(path)
    with open_mat(path) as mat:
        folds = problems.check("cvind", read_field, mat, "cvind")
    problems.raise_problems()
    if not np.isin(folds, FOLDS).all():
        raise DatasetError(f"{path}: cvind: got other values, expected folds 1 to 5")
    return folds.ravel().astype(int)


def load_figshare_index():
    """Load pid, label and plane of the dataset's slices, indexed by file number.

    The planes are derived by ``workflow/planes.py``.
    """
    table = Path(__file__).with_name("figshare.csv")
    return pd.read_csv(table, dtype={"pid": str}).set_index("file")


def write_mat(path, image, mask, label, pid, border):
    """Write one slice in figshare's layout; nothing is checked.

    `image` and `mask` are upright (rows, columns), stored as int16 and uint8; `border`
    holds x1 y1 x2 y2 ... in 1-based pixel coordinates.
    """
    image = np.ascontiguousarray(np.asarray(image, np.int16).T)  # column-major
    mask = np.ascontiguousarray(np.asarray(mask, np.uint8).T)
    border = np.asarray(border, np.float64).reshape(1, -1)
    codes = np.array([[ord(character)] for character in pid], np.uint16)
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as mat:
            struct = mat.create_group("cjdata")
            struct.attrs["MATLAB_class"] = np.bytes_("struct")
            _write_field(struct, "PID", codes, "char")
            _write_field(struct, "image", image, "int16")
            _write_field(struct, "label", np.array([[label]], np.float64), "double")
            _write_field(struct, "tumorBorder", border, "double")
            _write_field(struct, "tumorMask", mask, "logical")
        _write_header(temporary)


def write_cvind(path, folds):
    """Write ``cvind.mat``: the fold of every file, ordered by file number."""
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as mat:
            folds = np.asarray(folds, np.float64).reshape(1, -1)
            _write_field(mat, "cvind", folds, "double")
        _write_header(temporary)


def _write_field(group, name, value, matlab_class):
    storage = {}
    if min(value.shape) >= 64:
        storage = {"compression": "gzip", "compression_opts": 3, "chunks": (64, 64)}
    field = group.create_dataset(name, data=value, **storage)
    field.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    if matlab_class in ("char", "logical"):
        field.attrs["MATLAB_int_decode"] = np.int32(2 if matlab_class == "char" else 1)


def _write_header(path):
    header = MATLAB_HEADER.ljust(116) + b"\0" * 8 + b"\0\2IM"
    with open(path, "r+b") as file:
        file.write(header.ljust(512, b"\0"))
