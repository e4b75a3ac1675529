"""One image of any format: the same upright slice, or an error that names the file."""

import gzip
import os
import struct
import tracemalloc
from contextlib import suppress

import h5py
import numpy as np
import pytest
from image_files import GRAY, PIXELS, WIDE, WRITERS, refuse, save, write_dicom
from samples import MASK, SIDE

from braintumor.core.errors import DatasetError
from braintumor.inference.formats import InputImage, find_images, read_image

# warnings of the libraries must not reach the user
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def npy(tmp_path):
    return tmp_path / "a.npy"


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
    assert image.name == path.name and not image.warnings
    assert np.array_equal(read_image(path, 1).pixels, PIXELS)
    refuse(path, "slice_number", slice_number=2)
    if name == "slice.mat":
        assert (image.patient, image.label) == ("MR040240B", 2)
        assert np.array_equal(image.mask, MASK) and image.mask.dtype == bool
        assert image.spacing_mm == pytest.approx((0.49 * 512 / SIDE,) * 2)
        return
    assert (image.patient, image.label, image.mask) == (None, None, None)
    has_spacing = "nii" in name or "dcm" in name
    assert image.spacing_mm == (pytest.approx((0.5, 0.75)) if has_spacing else None)
    assert "SECRET" not in repr(image)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("name", WRITERS)
def test_truncated_file_is_refused_silently(tmp_path, capfd, name, share):
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("pixels", [WIDE, WIDE.T])
def test_padding_to_a_square_is_undone(pixels):
    image = InputImage("a.png", pixels)
    square = image.square_pixels
    assert square.shape == (SIDE, SIDE) and square.dtype == np.uint16
    assert np.array_equal(image.crop_to_image(square), pixels)
    assert square.sum() - pixels.sum() == pixels.min() * 12 * SIDE


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "int64", "float16", ">f8"])
def test_npy_keeps_its_dtype_in_native_byte_order(npy, dtype):
    np.save(npy, np.asfortranarray(GRAY.astype(dtype)))
    pixels = read_image(npy).pixels
    assert np.array_equal(pixels, GRAY) and pixels.dtype.isnative
    assert pixels.dtype == np.dtype(dtype).newbyteorder("=")
    assert type(pixels) is np.ndarray  # not a map of a file that may be removed


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_npy_with_python_objects_is_refused(npy, monkeypatch):
    monkeypatch.chdir(npy.parent)
    np.save(npy, np.full((20, 20), Trap()), allow_pickle=True)
    refuse(npy, "Python objects")
    header = "__import__('os').mkdir('trapped')"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    npy.write_bytes(content + GRAY.tobytes())
    refuse(npy)
    assert os.listdir() == ["a.npy"]


BAD_VALUES = [GRAY * 1j, GRAY.astype("U3"), np.full((20, 32), 7)]
BAD_VALUES += [np.full((20, 32), np.nan), np.full((20, 32), np.inf)]
BAD_SHAPES = [(512,), (3, 20, 32), (20, 32, 3), (5000, 20), (8, 20)]


def test_npy_that_is_no_gray_slice_is_refused(npy):
    for values in BAD_VALUES:
        np.save(npy, values)
        refuse(npy, "pixels")
    for shape in BAD_SHAPES:
        np.save(npy, np.arange(np.prod(shape)).reshape(shape))
        refuse(npy, "x" if len(shape) == 2 else "shape")


def test_nan_and_infinity_become_the_minimum(npy):
    brain = np.where(GRAY > 99, GRAY, np.nan)
    brain[0, 0] = np.inf
    np.save(npy, brain)
    expected = np.where(np.isfinite(brain), brain, np.nanmin(brain))
    assert np.array_equal(read_image(npy).pixels, expected)


OTHER_FORMATS = {
    b"": "an empty file",
    b"patient, label\n1, 2\n": "an unknown format",
    b"\x89PNG": "an unknown format",
    b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500): "-v7.3",
    b"PK\x03\x04" + bytes(200): ".npz",
    b"GIF89a" + bytes(100): "GIF",
    b"NRRD0004\ntype: short\n": "NRRD",
    gzip.compress(b"a note", mtime=0): "an unknown format",
    gzip.compress(b"\0\0\0\1" + bytes(300), mtime=0): "MGH",
}


@pytest.mark.parametrize("content", OTHER_FORMATS)
def test_other_formats_are_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refuse(tmp_path / "a.png", OTHER_FORMATS[content])


def test_folder_and_missing_huge_and_other_hdf5_file_are_refused(tmp_path):
    refuse(tmp_path)
    refuse(tmp_path / "missing.png")
    path = save(tmp_path / "a.png", GRAY)
    os.truncate(path, 2**31)  # without a byte on the disk
    refuse(path, "file size")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer"] = PIXELS
    refuse(tmp_path / "weights.h5", "got layer", "only figshare's .mat", "PNG or .npy")


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


NAMES = ['it\'s  "so"', "a\nb\x1b[31m", "$(touch x); 脑 {fold} %s"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff")])
def test_file_of_any_name_is_read_or_refused_on_one_line(tmp_path, name):
    path = tmp_path / name / f"{name}.png"
    path.parent.mkdir()
    image = read_image(save(path, GRAY, format="PNG"))
    assert np.array_equal(image.pixels, GRAY) and image.name.isprintable()
    assert find_images([path.parent]) == [path]
    path.write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value).isprintable() and str(caught.value).count(".png: ") == 1


def test_images_of_folders_are_listed_and_other_files_named(tmp_path, caplog):
    folder = tmp_path / "set"
    names = ["1.MAT", "2.mat", "10.mat", "sub/a9.nii.gz", "sub/a10.nii.gz", "x.DCM"]
    ignored = ["cvind.mat", "notes.txt", "2.bmp", "DICOMDIR"]
    ignored += [".hidden/3.mat", ".4.png", "__MACOSX/5.png", "Thumbs.db"]
    for name in [*reversed(names), *ignored]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.png").mkdir()
    (folder / "loop").symlink_to(folder)
    write_dicom(folder / "IM1", WIDE)
    names.insert(3, "IM1")
    files = [tmp_path / "z.unknown", tmp_path / "missing.png"]
    expected = [files[0], *(folder / name for name in names), files[1]]
    assert find_images([files[0], folder, str(files[1])]) == expected
    assert "4 files (2.bmp, DICOMDIR, cvind.mat, notes.txt)" in caplog.text
    with pytest.raises(DatasetError, match="folder.png"):
        find_images([folder / "folder.png"])
