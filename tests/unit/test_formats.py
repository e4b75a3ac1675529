"""One image of any format: the same upright slice, or an error that names the file."""

import gzip
import os
import struct
import tracemalloc
from contextlib import suppress

import h5py
import numpy as np
import pytest
from image_files import (
    GRAY,
    MASK,
    PIXELS,
    SIDE,
    WIDE,
    WRITERS,
    as_volume,
    refuse,
    save,
    write_dicom,
    write_nifti,
)

from braintumor.core.errors import DatasetError
from braintumor.inference.formats import InputImage, find_images, read_image

# warnings of the libraries must not reach the user
pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("has_own_name", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_slice(tmp_path, name, has_own_name):
    path = tmp_path / name
    WRITERS[name](path)
    if not has_own_name:
        path = path.rename(tmp_path / "export.jpg")
    image = read_image(str(path))
    assert np.array_equal(image.pixels, PIXELS)
    assert image.pixels.dtype == (np.int16 if name == "slice.mat" else np.uint16)
    assert image.name == path.name and not image.is_color


def test_figshare_slice_has_its_ground_truth(tmp_path):
    WRITERS["slice.mat"](tmp_path / "slice.mat")
    image = read_image(tmp_path / "slice.mat")
    assert (image.patient, image.label) == ("MR040240B", 2)
    assert np.array_equal(image.mask, MASK) and image.mask.dtype == bool
    assert image.spacing_mm == pytest.approx((0.49 * 512 / SIDE,) * 2)


@pytest.mark.parametrize("name", [name for name in WRITERS if ".mat" not in name])
def test_other_formats_have_no_patient(tmp_path, name):
    WRITERS[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.patient, image.label, image.mask) == (None, None, None)
    has_spacing = "nii" in name or "dcm" in name
    assert image.spacing_mm == (pytest.approx((0.5, 0.75)) if has_spacing else None)
    assert "SECRET" not in repr(image)


@pytest.mark.parametrize("pixels", [WIDE, WIDE.T])
def test_padding_to_a_square_is_undone(pixels):
    image = InputImage("a.png", pixels)
    square = image.square_pixels
    assert square.shape == (SIDE, SIDE) and square.dtype == np.uint16
    assert np.array_equal(image.crop_to_image(square), pixels)
    assert square.sum() - pixels.sum() == pixels.min() * 12 * SIDE


@pytest.mark.parametrize("name", WRITERS)
def test_slice_number_beyond_the_file_is_refused(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert read_image(tmp_path / name, 1).pixels.shape == (SIDE, SIDE)
    refuse(tmp_path / name, "slice_number", slice_number=2)


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "int64", "float16", ">f8"])
def test_npy_keeps_its_dtype_in_native_byte_order(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.asfortranarray(GRAY.astype(dtype)))
    pixels = read_image(tmp_path / "a.npy").pixels
    assert np.array_equal(pixels, GRAY) and pixels.dtype.isnative
    assert pixels.dtype == np.dtype(dtype).newbyteorder("=")
    assert type(pixels) is np.ndarray  # not a map of a file that may be removed


@pytest.mark.parametrize(
    "header",
    ["{'descr': '<u2'}", "(" * 500, "__import__('os').mkdir('trapped')", " " * 20_000],
)
def test_npy_with_a_damaged_header_is_refused(tmp_path, monkeypatch, header):
    monkeypatch.chdir(tmp_path)
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    (tmp_path / "a.npy").write_bytes(content + GRAY.tobytes())
    refuse(tmp_path / "a.npy")
    assert not (tmp_path / "trapped").exists()


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_npy_with_python_objects_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.full((20, 20), Trap()), allow_pickle=True)
    refuse(tmp_path / "a.npy")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("shape", [(512,), (3, 20, 32), (20, 32, 3)])
def test_npy_of_other_dimensions_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    refuse(tmp_path / "a.npy", "shape")


@pytest.mark.parametrize("shape", [(10**6, 10**6), (5000, 20), (8, 20)])
def test_npy_size_is_checked_before_reading(tmp_path, shape):
    header = {"shape": shape, "fortran_order": False, "descr": "<f8"}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    refuse(tmp_path / "a.npy")


@pytest.mark.parametrize("values", [GRAY * 1j, GRAY.astype("U3")])
def test_values_that_are_no_gray_levels_are_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    refuse(tmp_path / "a.npy", "pixels")


@pytest.mark.parametrize("value", [7, np.nan, np.inf])
def test_constant_image_is_refused(tmp_path, value):
    np.save(tmp_path / "a.npy", np.full((20, 32), value))
    refuse(tmp_path / "a.npy", "pixels")


def test_nan_and_infinity_become_the_minimum(tmp_path):
    brain = np.where(GRAY > 99, GRAY, np.nan)
    brain[0, 0] = np.inf
    np.save(tmp_path / "a.npy", brain)
    expected = np.where(np.isfinite(brain), brain, GRAY[GRAY > 99].min())
    expected[0, 0] = np.nanmin(brain)
    assert np.array_equal(read_image(tmp_path / "a.npy").pixels, expected)


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.dcm", "a.nii"])
def test_small_image_is_refused(tmp_path, name):
    tiny = PIXELS[:20, :15].copy()
    writers = {"a.png": save, "a.npy": np.save, "a.dcm": write_dicom}
    if name == "a.nii":
        write_nifti(tmp_path / name, as_volume(tiny))
    else:
        writers[name](tmp_path / name, tiny)
    refuse(tmp_path / name, "20 x 15")


def test_folder_and_missing_file_are_refused(tmp_path):
    refuse(tmp_path)
    refuse(tmp_path / "missing.png")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"patient, label\n1, 2\n",
        b"\x89PNG",
        b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500),
        b"PK\x03\x04" + bytes(200),
        b"GIF89a" + bytes(100),
        gzip.compress(b"a note"),
    ],
)
def test_other_formats_are_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refuse(tmp_path / "a.png")


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", [*WRITERS, "photo.jpg"])
def test_truncated_file_is_refused_silently(tmp_path, capfd, name, share):
    path = tmp_path / name
    if name == "photo.jpg":
        save(path, GRAY)
    else:
        WRITERS[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.dcm", "a.npy", "a.tif"])
def test_declared_bytes_that_do_not_exist_take_no_memory(tmp_path, name):
    path, huge = tmp_path / name, struct.pack("<I", 2**31 - 16)
    path.write_bytes(b"\x93NUMPY\2\0" + huge + bytes(100))
    if name == "a.dcm":
        content = write_dicom(path, WIDE).read_bytes()
        spacing = b"DS" + struct.pack("<H", 8) + b"0.5\\0.75"
        path.write_bytes(content.replace(spacing, b"UN\0\0" + huge + bytes(4)))
    elif name == "a.tif":
        content = save(path, WIDE).read_bytes()
        start = content.index(struct.pack("<HHI", 279, 4, 1)) + 8  # StripByteCounts
        path.write_bytes(content[:start] + huge + content[start + 4 :])
    tracemalloc.start()
    with suppress(DatasetError):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_hdf5_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer"] = PIXELS
    refuse(tmp_path / "weights.h5", "cjdata")


NAMES = [
    "two  words",
    'it\'s "so"',
    "a\nb\x1b[31m",
    "größe 脑",
    "$(touch x); `y` & {fold} %s",
    "-n",
    os.fsdecode(b"\xff"),
]


@pytest.mark.parametrize("name", NAMES)
def test_file_of_any_name_is_read_or_refused_on_one_line(tmp_path, name):
    path = tmp_path / name / f"{name}.png"
    path.parent.mkdir()
    image = read_image(save(path, GRAY, format="PNG"))
    assert np.array_equal(image.pixels, GRAY) and image.name.isprintable()
    assert find_images([path.parent]) == [path]
    path.write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value).isprintable()


def test_images_of_folders_are_listed_in_natural_order(tmp_path):
    folder = tmp_path / "set"
    names = ["1.MAT", "2.mat", "10.mat", "sub/a9.nii.gz", "sub/a10.nii.gz", "x.DCM"]
    others = ["cvind.mat", "notes.txt", "slices.csv", ".hidden/3.mat", ".4.png"]
    for name in [*reversed(names), *others]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.png").mkdir()
    paths = [tmp_path / "z.unknown", folder, str(tmp_path / "missing.png")]
    expected = [folder / name for name in names]
    expected = [tmp_path / "z.unknown", *expected, tmp_path / "missing.png"]
    assert find_images(paths) == expected


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError, match=str(tmp_path)):
        find_images([tmp_path])
