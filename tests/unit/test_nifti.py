"""NIfTI volumes: any slice in radiological convention, limits from the header."""

import gzip
import struct
import tracemalloc
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from image_files import PIXELS, as_volume, refuse, write_nifti

from braintumor.inference.formats import read_image

pytestmark = pytest.mark.filterwarnings("error")

# a voxel's value encodes its position in mm to the right, the front and the head
COUNTS, SIZES = (18, 21, 24), (1.0, 1.25, 1.5)  # along these three axes
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.nii"


def encode(right, front, head):
    return right + 100 * front + 10_000 * head


def make_volume(across, axes, signs):
    """A volume with its indices along `axes` in the directions `signs`."""
    sizes = np.where(np.arange(3) == across, 6, SIZES)  # the slice axis is the coarsest
    counts = np.array(COUNTS)[list(axes)]
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * sizes)[:, axes] * signs
    affine[:3, 3] = -20 - np.minimum(affine[:3, :3], 0) @ (counts - 1)
    positions = affine[:3, :3] @ np.indices(counts).reshape(3, -1) + affine[:3, 3:]
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
def test_slice_of_any_orientation_is_radiological(path, plane):
    across = PLANES[plane]
    for axes, signs in ORIENTATIONS:
        volume, affine, sizes = make_volume(across, axes, signs)
        image = read_image(write_nifti(path, volume, affine), slice_number=3)
        index = np.array([0, 0, 0, 1])
        index[axes.index(across)] = 2  # counted from 1 in stored order
        expected, spacing = radiological_slice(plane, (affine @ index)[across], sizes)
        assert np.allclose(image.pixels, expected), (axes, signs)
        assert image.spacing_mm == pytest.approx(spacing)
        assert image.name == "a.nii, slice 3"
    assert refuse(path, "slice_number", plane).n_slices == COUNTS[across]
    for number in (0, COUNTS[across] + 1):
        refuse(path, "slice_number", slice_number=number)


def test_slices_are_across_the_third_axis_unless_one_is_coarsest_or_alone(path):
    for sizes in ((1, 1, 1), (2, 2, 1), (1, 1, 3), (1.0004, 1, 1)):
        write_nifti(path, np.zeros((20, 22, 24), np.int16), np.diag([*sizes, 1]))
        assert refuse(path, "axial").n_slices == 24
    for shape in ((1, 32, 32), (32, 1, 32), (32, 32), (32, 32, 1, 1, 1)):
        write_nifti(path, PIXELS.reshape(shape), np.eye(4))
        assert read_image(path).pixels.shape == (32, 32)


def test_series_color_and_complex_volumes_are_refused(path):
    volume = np.ones((20, 20, 4), np.complex64)
    refuse(write_nifti(path, volume), "complex64", slice_number=1)
    refuse(write_nifti(path, np.ones((20, 20, 4, 3), "u1")), "shape", slice_number=1)
    rgb = np.zeros((20, 20, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    refuse(write_nifti(path, rgb), "colors", slice_number=1)


def test_volume_without_orientation_has_a_warning(path):
    write_nifti(path, as_volume(PIXELS))
    assert read_image(path).warnings == ()
    write_nifti(path, as_volume(PIXELS), affine=None)
    assert "orientation is a guess" in read_image(path).warnings[0]


def test_pair_is_named_by_either_file(tmp_path):
    volume, pair = as_volume(PIXELS).astype(np.int16), tmp_path / "a.img"
    for kind in (nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.AnalyzeImage):
        write_nifti(pair, volume, image_class=kind)
        for path in (pair, pair.with_suffix(".hdr")):
            refuse(path, "pair of .hdr and .img", "one .nii")


def change_header(path, offset, content):
    """Change bytes in the header of a NIfTI-1 file."""
    write_nifti(path, as_volume(PIXELS))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    return path


SHAPES = [(30_000, 30_000, 1), (4000, 4000, 4000), (32, -4, 1), (32, 32, 0)]
BAD_HEADERS = [
    *((40, struct.pack("<4h", 3, *shape), "shape") for shape in SHAPES),
    *((108, struct.pack("<f", value), "offset") for value in (1e9, np.nan)),
    *((280, struct.pack("<12f", *[value] * 12), "affine") for value in (0, np.nan)),
]


@pytest.mark.parametrize("offset, content, field", BAD_HEADERS)
def test_header_beyond_the_limits_is_refused(path, offset, content, field):
    refuse(change_header(path, offset, content), field, slice_number=1)


def test_odd_headers_are_read_silently(path, capfd, caplog):
    read_image(change_header(path, 76, struct.pack("<f", 5)))  # qfac
    read_image(change_header(path, 252, struct.pack("<h", 99)))  # qform code
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_gzip_is_decompressed_no_further_than_the_volume(path):
    content = write_nifti(path, as_volume(PIXELS)).read_bytes()
    path.write_bytes(gzip.compress(content + bytes(2**28), 1))
    tracemalloc.start()
    assert np.array_equal(read_image(path).pixels, PIXELS)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
