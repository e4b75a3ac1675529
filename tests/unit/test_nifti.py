"""NIfTI volumes: any slice in radiological convention, limits from the header."""

import gzip
import struct
import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from image_files import PIXELS, SIDE, as_volume, refuse, write_nifti

from braintumor.core.errors import AmbiguousSliceError
from braintumor.inference.formats import read_image

pytestmark = pytest.mark.filterwarnings("error")

# a voxel's value encodes its position in mm to the right, the front and the head
COUNTS, SIZES = (18, 21, 24), (1.0, 1.25, 1.5)  # along these three axes
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


def encode(right, front, head):
    return right + 100 * front + 10_000 * head


def make_volume(across, axes, signs):
    """A volume with its indices along `axes` in the directions `signs`."""
    sizes = np.where(np.arange(3) == across, 6, SIZES)  # the slice axis is the coarsest
    counts = [COUNTS[axis] for axis in axes]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        length = (COUNTS[axis] - 1) * sizes[axis]
        affine[axis, index] = sign * sizes[axis]
        affine[axis, 3] = -20 if sign > 0 else -20 + length
    indices = np.indices(counts).reshape(3, -1)
    positions = affine[:3, :3] @ indices + affine[:3, 3:]
    return encode(*positions).reshape(counts), affine, sizes


def radiological_slice(plane, across_mm, sizes):
    """The expected slice and spacing: right or front at the left, head at the top."""
    right, front, head = (
        -20 + size * np.arange(count)[::-1]
        for count, size in zip(COUNTS, sizes, strict=True)
    )
    if plane == "axial":
        return encode(right, front[:, None], across_mm), (sizes[1], sizes[0])
    if plane == "coronal":
        return encode(right, across_mm, head[:, None]), (sizes[2], sizes[0])
    return encode(across_mm, front, head[:, None]), (sizes[2], sizes[1])


@pytest.mark.parametrize("plane", PLANES)
def test_slice_of_any_orientation_is_radiological(tmp_path, plane):
    across = PLANES[plane]
    orientations = product(permutations(range(3)), product((1, -1), repeat=3))
    for axes, signs in orientations:
        volume, affine, sizes = make_volume(across, axes, signs)
        path = write_nifti(tmp_path / "a.nii", volume, affine)
        image = read_image(path, slice_number=3)
        index = np.array([0, 0, 0, 1])
        index[axes.index(across)] = 2  # counted from 1 in stored order
        across_mm = (affine @ index)[across]
        expected, spacing = radiological_slice(plane, across_mm, sizes)
        assert np.allclose(image.pixels, expected), (axes, signs)
        assert image.spacing_mm == pytest.approx(spacing)
        assert image.name == "a.nii, slice 3"


@pytest.mark.parametrize("plane", PLANES)
def test_slice_of_a_volume_is_chosen(tmp_path, plane):
    volume, affine, _ = make_volume(PLANES[plane], (1, 2, 0), (1, -1, 1))
    path = write_nifti(tmp_path / "a.nii.gz", volume, affine)
    count = COUNTS[PLANES[plane]]
    error = refuse(path, "slice_number", plane)
    assert isinstance(error, AmbiguousSliceError) and error.n_slices == count
    for number in (0, count + 1):
        refuse(path, "slice_number", slice_number=number)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 1), (1, 1, 3), (1.0004, 1, 1)])
def test_slices_are_across_the_third_axis_unless_one_is_coarsest(tmp_path, sizes):
    volume = np.arange(20 * 22 * 24, dtype=np.int16).reshape(20, 22, 24)
    path = write_nifti(tmp_path / "a.nii", volume, np.diag([*sizes, 1]))
    assert refuse(path, "axial").n_slices == 24


@pytest.mark.parametrize(
    "shape", [(1, 32, 32), (32, 1, 32), (32, 32), (32, 32, 1, 1), (32, 32, 1, 1, 1)]
)
def test_volume_of_one_slice_needs_no_number(tmp_path, shape):
    path = write_nifti(tmp_path / "a.nii", PIXELS.reshape(shape), np.eye(4))
    assert read_image(path).pixels.shape == (SIDE, SIDE)


def write_header(path, offset, content):
    """Write a NIfTI-1 file and change some bytes of its header."""
    write_nifti(path, as_volume(PIXELS))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    return path


def test_series_of_volumes_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.ones((20, 20, 4, 3), np.uint8))
    refuse(path, "shape", slice_number=1)


@pytest.mark.parametrize(
    "shape", [(30_000, 30_000, 1), (4000, 4000, 4000), (32, -4, 1), (32, 32, 0)]
)
def test_size_is_checked_before_reading(tmp_path, shape):
    path = write_header(tmp_path / "a.nii", 40, struct.pack("<4h", 3, *shape))
    refuse(path, "shape", slice_number=1)


@pytest.mark.parametrize("value", [1e9, np.nan])
def test_huge_header_is_refused(tmp_path, value):
    refuse(write_header(tmp_path / "a.nii", 108, struct.pack("<f", value)), "offset")


@pytest.mark.parametrize("value", [np.nan, 0])
def test_invalid_affine_is_refused(tmp_path, value):
    affine = struct.pack("<12f", *[value] * 12)
    refuse(write_header(tmp_path / "a.nii", 280, affine), "affine")


def test_gzip_is_decompressed_no_further_than_the_volume(tmp_path):
    content = write_nifti(tmp_path / "a.nii", as_volume(PIXELS)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content + bytes(2**28), 1))
    tracemalloc.start()
    assert np.array_equal(read_image(tmp_path / "a.nii.gz").pixels, PIXELS)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize(
    "offset, content",
    [(76, struct.pack("<f", 5)), (252, struct.pack("<h", 99))],  # qfac, qform code
)
def test_odd_headers_are_read_silently(tmp_path, capfd, caplog, offset, content):
    read_image(write_header(tmp_path / "a.nii", offset, content))
    assert capfd.readouterr() == ("", "") and not caplog.records
