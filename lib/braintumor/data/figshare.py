"""Slices, and the MATLAB files of the dataset doi:10.6084/m9.figshare.1512427."""

import os
import re
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import h5py
import numpy as np
import pandas as pd
import pydantic
from pydantic import AfterValidator, Field

from braintumor.core.errors import DatasetError, describe_problem, require, shorten
from braintumor.core.files import atomic_write
from braintumor.data.hdf5 import open_mat, read_field
from braintumor.data.labels import LABELS, PLANES
from braintumor.data.preprocessing import find_intensity_problem, pad_to_square
from braintumor.data.raster import MAX_SIDE, file_errors
from braintumor.data.splits import FOLDS

SPACING_MM = 0.49  # at 512 pixels, from the dataset's paper
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Sun Apr 02 2017 "
HEADER = (HEADER + b"HDF5 schema 1.00 .").ljust(116) + bytes(8) + b"\0\2IM"
SAVE_OTHERWISE = "Of HDF5 only figshare's .mat is read: save the slice as PNG or .npy"
MATLAB_CLASSES = dict(uint16="char", int16="int16", uint8="logical", float64="double")


def _check_image(image):
    if image.ndim != 2 or not 16 <= min(image.shape) <= max(image.shape) <= MAX_SIDE:
        raise ValueError(f"got shape {image.shape}, expected 16 to {MAX_SIDE} pixels")
    if problem := find_intensity_problem(image):
        raise ValueError(problem)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _check_mask(mask, info: pydantic.ValidationInfo):
    image = info.data.get("image", mask)
    if mask.shape != image.shape:
        raise ValueError(f"got shape {mask.shape}, expected the image's {image.shape}")
    if not np.isin(mask, (0, mask.max())).all() or not mask.any():
        raise ValueError("expected a tumor, with 0 outside and one other value inside")
    return mask > 0


def _check_border(border):
    if border.size < 6 or border.size % 2 or not np.isfinite(border).all():
        raise ValueError("expected x1 y1 x2 y2 ... of 3 or more finite points")
    return border.reshape(-1, 2)


class Slice(pydantic.BaseModel, arbitrary_types_allowed=True):
    """A checked slice, upright and padded to a square.

    `file` is 0 if no number names it; `border` (n_points, 2) is x, y in 1-based pixels.
    """

    file: int
    pid: Annotated[str, Field(max_length=64, pattern=r"^( |[^\p{C}\p{Z}])+$")]
    label: Literal[tuple(LABELS)]
    image: Annotated[np.ndarray, AfterValidator(_check_image)]
    mask: Annotated[np.ndarray, AfterValidator(_check_mask)]
    border: Annotated[np.ndarray, AfterValidator(_check_border)] | None = None
    fold: Annotated[int, Field(ge=1, le=len(FOLDS))] | None = None
    plane: Literal[PLANES] | None = None
    spacing_mm: Annotated[float, Field(gt=0, lt=10)] | None = None

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _read(cls, value):
        try:
            return value() if callable(value) else value
        except ValueError as error:
            raise ValueError(shorten(error)) from None
        except Exception:  # h5py raises half a dozen types
            raise ValueError("cannot be read, may be damaged") from None

    @pydantic.model_validator(mode="after")
    def _complete(self):
        if self.border is None:
            points = np.argwhere(self.mask.T) + 1.0
            (left, top), (right, bottom) = points.min(0), points.max(0)
            corners = [left, top], [right, top], [right, bottom], [left, bottom]
            self.border = np.array(corners)
        self.image, self.mask = pad_to_square(self.image), pad_to_square(self.mask)
        return self


def make_slice(source, names, **values):
    """Make a Slice of values or readers; errors use the `names` in the source."""
    try:
        return Slice(**values)
    except pydantic.ValidationError as error:
        problems = [describe_problem(problem, names) for problem in error.errors()]
        raise DatasetError(f"{source}: {'; '.join(problems)}") from None


def read_mat(path):
    """Read a file of the dataset as a Slice; a DatasetError lists its problems."""
    path = Path(path)
    with file_errors(path), open_mat(path) as mat:
        names = shorten(", ".join(islice(mat, 9))) or "nothing"
        require("cjdata" in set(mat), "HDF5 fields", names, "cjdata", SAVE_OTHERWISE)
        read = partial(read_field, mat)
        return make_slice(
            path,
            {"pid": "PID", "mask": "tumorMask", "border": "tumorBorder"},
            file=int(path.stem) if re.fullmatch(r"\d{1,9}", path.stem) else 0,
            pid=lambda: "".join(map(chr, read("cjdata/PID").ravel())),
            label=lambda: read("cjdata/label").squeeze().tolist(),
            image=lambda: read("cjdata/image").T,  # column-major
            mask=lambda: read("cjdata/tumorMask").T,
            border=lambda: read("cjdata/tumorBorder").astype(float),
        )


def read_cvind(directory):
    """Return the folds of file numbers 1, 2, ... in ``cvind.mat``, or None."""
    path = Path(directory) / "cvind.mat"
    if not os.path.lexists(path):
        return None
    with file_errors(path), open_mat(path) as mat:
        folds = read_field(mat, "cvind").ravel()
    if not np.isin(folds, FOLDS).all():
        raise DatasetError(f"{path}: cvind: got other values, expected folds 1 to 5")
    return folds.astype(int)


def load_figshare_index():
    """Load pid, label and plane of the dataset's slices, indexed by file number."""
    table = Path(__file__).with_name("figshare.csv")
    return pd.read_csv(table, dtype={"pid": str}).set_index("file")


def write_mat(path, image, mask, label, pid, border):
    """Write a slice unchecked; `border` is x1 y1 x2 y2 ... in 1-based pixels."""
    fields = {
        "cjdata/PID": np.array([[ord(character)] for character in pid], np.uint16),
        "cjdata/image": np.transpose(image).astype(np.int16),  # column-major
        "cjdata/label": np.array([[label]], float),
        "cjdata/tumorBorder": np.reshape(border, (1, -1)).astype(float),
        "cjdata/tumorMask": np.transpose(mask).astype(np.uint8),
    }
    _write_fields(path, fields)


def write_cvind(path, folds):
    """Write ``cvind.mat``: the fold of every file, ordered by file number."""
    _write_fields(path, {"cvind": np.reshape(folds, (1, -1)).astype(float)})


def _write_fields(path, fields):
    """Write arrays with the header and the attributes that MATLAB needs."""
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=512) as mat:
            for name, values in fields.items():
                compression = 3 if min(values.shape) > 1 else None
                field = mat.create_dataset(name, data=values, compression=compression)
                kind = MATLAB_CLASSES[field.dtype.name]
                field.attrs["MATLAB_class"] = np.bytes_(kind)
                if field.dtype.kind == "u":  # characters and logical values
                    field.attrs["MATLAB_int_decode"] = np.int32(field.dtype.itemsize)
                if field.parent.name != "/":
                    field.parent.attrs["MATLAB_class"] = np.bytes_("struct")
        with temporary.open("r+b") as file:
            file.write(HEADER)
