"""Slices of NIfTI volumes, and the radiological convention."""

import math

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes

from braintumor.core.errors import require
from braintumor.core.files import open_gzip
from braintumor.data.preprocessing import MAX_SIDE
from braintumor.data.raster import select_slice

MAX_VOXELS = 512**3  # a slice across the first axis may need all of them decompressed
MAX_HEADER = 2**24  # bytes before the voxels; extensions may be of any length
nibabel.imageglobals.logger.disabled = True  # notes on odd headers are not for users


def read_nifti(path, slice_number=None):
    """Return pixels, spacing_mm and warnings of one slice of a volume."""
    with open_gzip(path) as file:
        is_nifti2 = file.read(8)[4:] == b"n+2\0"
        image_class = nibabel.Nifti2Image if is_nifti2 else nibabel.Nifti1Image
        file.seek(0)
        header = image_class.header_class.from_fileobj(file)
        shape, notes = _check_header(header), []
        if header["sform_code"] == header["qform_code"] == 0:
            notes.append("its orientation is a guess: it has neither sform nor qform")
        file.seek(0)
        image = image_class.from_stream(file)
        affine, volume = image.affine, (*shape[:3], 1)[:3]
        has_axes = np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-9
        require(has_axes, "affine", "no directions", "voxels in mm", "Export it again")
        axis = _find_slice_axis(volume, voxel_sizes(affine))
        plane = int(nibabel.io_orientation(affine)[axis, 0])
        kind = ("sagittal", "coronal", "axial")[plane] + " slice"
        index = [slice(None)] * 3 + [0] * (len(shape) - 3)
        index[axis] = select_slice(volume[axis], kind, slice_number)
        pixels = np.asarray(image.dataobj[tuple(index[: len(shape)])])
        return *to_radiological(pixels, axis, affine), notes


def _check_header(header):
    """Return the shape of one volume within the limits."""
    offset, shape = header["vox_offset"], header.get_data_shape()
    require(offset <= MAX_HEADER, "vox_offset", offset, MAX_HEADER, "Export it again")
    is_volume = len(shape) >= 2 and set(shape[3:]) <= {1} and min(shape) >= 1
    is_small = max(shape) <= MAX_SIDE and math.prod(shape) <= MAX_VOXELS
    expected = f"one volume of at most {MAX_SIDE} per axis and {MAX_VOXELS:,} voxels"
    require(is_volume and is_small, "shape", shape, expected, "Export one, cropped")
    is_gray = header.get_data_dtype().names is None
    require(is_gray, "voxels", "colors", "gray levels", "Export it in gray")
    return shape


def _find_slice_axis(shape, sizes):
    """Find the axis across the slices: of length 1, or the coarsest, or the third."""
    if shape.count(1) == 1:
        return shape.index(1)
    coarsest = np.flatnonzero(np.isclose(sizes, sizes.max(), rtol=1e-3))
    return int(coarsest[0]) if len(coarsest) == 1 else 2


def to_radiological(pixels, axis, affine):
    """Turn a slice across `axis` of an `affine` (RAS+) to radiological: pixels, mm."""
    orientation = nibabel.io_orientation(affine)
    volume = nibabel.apply_orientation(np.expand_dims(pixels, axis), orientation)
    sizes = voxel_sizes(affine)[np.argsort(orientation[:, 0])]
    across = int(orientation[axis, 0])
    columns, rows = np.delete(sizes, across)
    return volume.squeeze(across)[::-1, ::-1].T, (float(rows), float(columns))
