"""One image of any usual kind: upright, gray, at its own depth, or refused in words that help."""

import gzip
import os
import struct
import tracemalloc
import zlib
from contextlib import suppress
from itertools import permutations, product

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    RTStructureSetStorage,
)

from braintumor.core.errors import DatasetError
from braintumor.data import formats as images
from braintumor.data.formats import find, read
from braintumor.data.phantom import write_slice
from braintumor.data.prepared import LARGEST_SIDE

pytestmark = pytest.mark.filterwarnings("error")  # what a library warns of must not reach the reader

SIDE = 32
PIXELS = np.random.default_rng(0).integers(0, 4000, (SIDE, SIDE)).astype(np.uint16)
WIDE = PIXELS[:20]  # (20, 32)
GRAY = (WIDE // 16).astype(np.uint8)
MASK = np.zeros((SIDE, SIDE), bool)
MASK[5:12, 18:22] = True
STANDARD = [1, 0, 0, 0, 1, 0]  # ImageOrientationPatient of an axial slice as scanners store it
# what a file or folder may be called; the last is no UTF-8
NAMES = [
    "two  words",
    'it\'s "so"',
    "a\nb\x1b[31m",
    "größe 脑",
    "$(touch x); `y` & {fold} %s",
    "-n",
    os.fsdecode(b"\xff"),
]


def refusal(path, slice_number=None):
    """The message of the DatasetError that read(path) raises; it begins with the path, and names it once."""
    with pytest.raises(DatasetError) as caught:
        read(path, slice_number)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.count(f"{path}: ") == 1
    return message


def lacks(message, *words):
    return [word for word in words if str(word) not in message]


def save(path, array, **settings):
    PIL.Image.fromarray(array).save(path, **settings)
    return path


def write_nifti(path, volume, affine, kind=nibabel.Nifti1Image):
    nibabel.save(kind(volume, affine), path)
    return path


def dicom(pixels, storage=MRImageStorage, **attributes):
    """A DICOM dataset of (rows, columns), (frames, rows, columns) or, as RGB, (rows, columns, 3); None removes one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID("1.2.3.4")
    dataset.PatientID, dataset.PatientName, dataset.Modality = "SECRET-17", "Secret^Name", "MR"
    rgb = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.ndim == 3 and not rgb:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[:2] if rgb else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if rgb else 1
    if rgb:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if rgb else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [0.5, 0.75], STANDARD
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def write_dicom(path, pixels, **attributes):
    dicom(pixels, **attributes).save_as(path, enforce_file_format=True)
    return path


# Every kind gives the same slice.


def as_volume(pixels):
    """(rows, columns) of an axial slice in NIfTI's order: to the right, to the front, one slice."""
    return pixels[::-1, ::-1].T[..., None]


RAS = np.diag([0.75, 0.5, 4, 1])
KINDS = {
    "slice.mat": lambda path: write_slice(path, PIXELS, MASK, 2, "P1", [19, 6, 22, 6, 22, 12]),
    "slice.png": lambda path: save(path, PIXELS),
    "slice.tif": lambda path: save(path, PIXELS),
    "packed.tiff": lambda path: save(path, PIXELS, compression="tiff_lzw"),
    "slice.npy": lambda path: np.save(path, PIXELS),
    "slice.dcm": lambda path: write_dicom(path, PIXELS),
    "slice.nii": lambda path: write_nifti(path, as_volume(PIXELS), RAS),
    "slice.nii.gz": lambda path: write_nifti(path, as_volume(PIXELS), RAS),
    "second.nii.gz": lambda path: write_nifti(path, as_volume(PIXELS), RAS, nibabel.Nifti2Image),
}


@pytest.mark.parametrize("named", ["as it is", "otherwise"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_upright_slice_whatever_its_name(tmp_path, kind, named):
    path = tmp_path / kind
    KINDS[kind](path)
    if named == "otherwise":
        path = path.rename(tmp_path / "export.jpg")
    one = read(path)
    assert np.array_equal(one.pixels, PIXELS) and one.pixels.dtype == (np.int16 if ".mat" in kind else np.uint16)
    assert (one.name, one.color) == (path.name, False)


def test_path_may_be_a_string(tmp_path):
    assert read(str(save(tmp_path / "a.png", GRAY))).name == "a.png"


def test_figshare_slice_keeps_what_is_known_of_it(tmp_path):
    path = tmp_path / "slice.mat"  # not named by a number, as a dataset's would be
    write_slice(path, PIXELS, MASK, 2, "MR040240B", [19, 6, 22, 6, 22, 12])
    one = read(path)
    assert (one.patient, one.label) == ("MR040240B", 2)
    assert np.array_equal(one.mask, MASK) and one.mask.dtype == bool
    assert one.spacing_mm == pytest.approx((0.49 * 512 / SIDE,) * 2)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ".mat" not in kind])
def test_other_kinds_know_no_patient_and_no_truth(tmp_path, kind):
    KINDS[kind](tmp_path / kind)
    one = read(tmp_path / kind)
    assert (one.patient, one.label, one.mask) == (None, None, None)
    known = "nii" in kind or "dcm" in kind
    assert one.spacing_mm == (pytest.approx((0.5, 0.75)) if known else None)
    assert "SECRET" not in repr(one)


def test_image_is_padded_to_a_square_and_a_mask_cropped_back(tmp_path):
    for name, pixels in (("wide.png", WIDE), ("high.png", np.ascontiguousarray(WIDE.T))):
        one = read(save(tmp_path / name, pixels))
        assert np.array_equal(one.pixels, pixels)
        assert one.square.shape == (SIDE, SIDE) and one.square.dtype == np.uint16
        assert np.array_equal(one.cropped(one.square), pixels)
        assert (one.square.sum() - pixels.sum()) == pixels.min() * 12 * SIDE


# Pictures.


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "palette in any order"])
def test_png_that_is_gray_in_truth_is_gray(tmp_path, mode):
    image = PIL.Image.fromarray(GRAY)
    if mode == "palette in any order":
        image = PIL.Image.fromarray(255 - GRAY, "L")
        image.putpalette(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    elif mode != "L":
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    one = read(tmp_path / "a.png")
    assert np.array_equal(one.pixels, GRAY) and one.pixels.dtype == np.uint8 and not one.color


def test_png_of_one_bit_is_black_and_white(tmp_path):
    PIL.Image.fromarray(MASK).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png").pixels, np.uint8(255) * MASK)


def test_transparent_pixels_are_black_whatever_color_they_hide(tmp_path):
    rgba = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, 255)])
    rgba[:4] = (255, 0, 255, 0)
    one = read(save(tmp_path / "a.png", rgba))
    assert not one.pixels[:4].any() and np.array_equal(one.pixels[4:], GRAY[4:]) and not one.color


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_photo_becomes_gray_and_is_known_to_be_in_color(tmp_path, name):
    photo = np.zeros((20, 32, 3), np.uint8)
    photo[:, :16] = (200, 40, 90)
    one = read(save(tmp_path / name, photo))
    assert one.color and one.pixels.shape == (20, 32)
    assert one.pixels[10, 4] == pytest.approx(0.299 * 200 + 0.587 * 40 + 0.114 * 90, abs=2)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_gray_jpeg_is_gray(tmp_path, mode):
    smooth = np.add.outer(np.arange(20), np.arange(32) * 4).astype(np.uint8)
    image = PIL.Image.fromarray(smooth).convert("RGB" if mode == "CMYK" else mode)
    image.convert(mode).save(tmp_path / "a.jpg", quality=90)
    one = read(tmp_path / "a.jpg")
    assert np.abs(one.pixels.astype(int) - smooth).max() <= 6 and one.pixels.dtype == np.uint8 and not one.color


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_photo_is_turned_as_its_exif_says(tmp_path, name):
    smooth = np.add.outer(np.arange(20) * 5, np.arange(32)).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned a quarter to the right
    one = read(save(tmp_path / name, smooth, exif=exif))
    expected = np.rot90(smooth, -1)
    assert one.pixels.shape == (32, 20) and np.abs(one.pixels.astype(int) - expected).max() <= 6 * (name == "a.jpg")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_that_is_stored_turned_is_refused(tmp_path, compression):
    path = save(tmp_path / "a.tif", GRAY, compression=compression, tiffinfo={274: 6})
    assert not lacks(refusal(path), "stored turned", "expected upright", "save it without")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_tiff_keeps_its_depth(tmp_path, dtype):
    pixels = (WIDE / (16 if dtype == np.uint8 else 1)).astype(dtype)
    one = read(save(tmp_path / "a.tif", pixels))
    assert np.array_equal(one.pixels, pixels) and one.pixels.dtype == dtype


def test_tiff_of_the_other_byte_order_is_read(tmp_path):
    big = PIL.Image.frombytes("I;16B", (32, 20), WIDE.astype(">u2").tobytes())
    big.save(tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes()[:2] == b"MM"
    one = read(tmp_path / "a.tif")
    assert np.array_equal(one.pixels, WIDE) and one.pixels.dtype == np.dtype("uint16") and one.pixels.dtype.isnative


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_whose_white_is_zero_is_turned_over(tmp_path, dtype):
    pixels = (WIDE // 16).astype(dtype)
    pixels[0, :2] = 0, 255
    one = read(save(tmp_path / "a.tif", pixels, tiffinfo={262: 0}))
    # Pillow writes 8 bits inverted for this tag, and the rest as they are
    assert np.array_equal(one.pixels, pixels if dtype == np.uint8 else 255 - pixels)


def in_many_scans(path, count):
    """A progressive JPEG whose last scan is there `count` times more."""
    save(path, GRAY, progressive=True)
    content = path.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * count + content[-2:])
    return path.read_bytes()


def test_jpeg_that_is_drawn_over_and_over_is_refused(tmp_path):
    in_many_scans(tmp_path / "a.jpg", 20)
    assert read(tmp_path / "a.jpg").pixels.shape == GRAY.shape
    content = in_many_scans(tmp_path / "a.jpg", 100)
    assert not lacks(refusal(tmp_path / "a.jpg"), "over 100 passes", "save it anew")
    in_jpeg_syntax(content).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert not lacks(refusal(tmp_path / "a.dcm"), "over 100 passes", "save it anew")


def test_tiff_of_very_many_pages_is_refused_before_they_are_counted(tmp_path):
    content = bytearray(save(tmp_path / "a.tif", GRAY).read_bytes())
    first = int.from_bytes(content[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    directory = bytes(content[first:end])
    content[end : end + 4] = len(content).to_bytes(4, "little")
    for _ in range(2001):
        content += directory
        content += (len(content) + 4).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    assert not lacks(refusal(tmp_path / "a.tif", 1), "has over 2000 pages", "save the slice by itself")


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_png_with_a_note_that_unpacks_to_much_is_refused(tmp_path, name):
    bomb = zlib.compress(bytes(2**26))
    inside = b"a\0\0" + bomb if name != b"iTXt" else b"a\0\1\0\0\0" + bomb
    note = struct.pack(">I", len(inside)) + name + inside + struct.pack(">I", zlib.crc32(name + inside))
    content = save(tmp_path / "a.png", GRAY).read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + note + content[33:])  # right behind the header
    assert not lacks(refusal(tmp_path / "a.png"), "cannot be read", "too large")


def test_tiff_of_several_pages_asks_which(tmp_path):
    path = tmp_path / "stack.tif"
    pages = [PIL.Image.fromarray(WIDE + n) for n in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert not lacks(refusal(path), "holds 3 pages", "slice_number, 1 to 3")
    one = read(path, 2)
    assert one.name == "stack.tif, slice 2" and np.array_equal(one.pixels, WIDE + 1)
    for number in (0, -1, 4):
        assert not lacks(refusal(path, number), f"no page {number}", "from 1 to 3")


@pytest.mark.parametrize("channels", ["RGB", "gray and alpha"])
def test_png_of_16_bit_channels_is_refused_rather_than_cut_to_8(tmp_path, channels):
    kind, count = (2, 3) if channels == "RGB" else (4, 2)
    rows = b"".join(b"\0" + np.repeat(row.astype(">u2"), count).tobytes() for row in WIDE)
    (tmp_path / "a.png").write_bytes(png(32, 20, rows, depth=16, kind=kind))
    assert not lacks(refusal(tmp_path / "a.png"), "16 bits a channel", "expected 16 bits in gray", "save it so")


def png(width, height, rows=b"", depth=8, kind=0):
    """Bytes of a PNG file, with no care for what its header promises."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# NumPy.


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "int64", "float16", ">f8"])
def test_npy_keeps_its_depth_in_this_machines_byte_order(tmp_path, dtype):
    np.save(tmp_path / "a.npy", GRAY.astype(dtype))
    one = read(tmp_path / "a.npy")
    assert np.array_equal(one.pixels, GRAY) and one.pixels.dtype == np.dtype(dtype).newbyteorder("=")
    assert type(one.pixels) is np.ndarray  # not a map of a file that may go away


@pytest.mark.parametrize("header", ["{'descr': '<u2'}", "(" * 500, "__import__('os').mkdir('trapped')", " " * 20_000])
def test_npy_with_a_damaged_header_is_told_without_advice_to_trust_it(tmp_path, monkeypatch, header):
    monkeypatch.chdir(tmp_path)
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + GRAY.tobytes()
    (tmp_path / "a.npy").write_bytes(content)
    message = refusal(tmp_path / "a.npy")
    assert not lacks(message, "damaged header", "save it anew") and "pickle" not in message
    assert not (tmp_path / "trapped").exists()


def test_npy_in_columns_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(WIDE))
    assert np.array_equal(read(tmp_path / "a.npy").pixels, WIDE)


@pytest.mark.parametrize("shape", [(512,), (3, 20, 32), (20, 32, 3), (2, 2, 20, 32)])
def test_npy_of_other_dimensions_is_told_which_are_expected(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape))
    assert not lacks(refusal(tmp_path / "a.npy"), shape, "expected (rows, columns)", "one gray slice")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_npy_with_python_objects_is_refused_and_nothing_of_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.full((20, 20), Trap()), allow_pickle=True)
    assert not lacks(refusal(tmp_path / "a.npy"), "Python objects", "expected numbers")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("shape", [(10**6, 10**6), (5000, 20), (8, 20)])
def test_npy_that_declares_another_size_is_refused_from_its_header(tmp_path, shape):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    expected = f"expected a slice of 16 to {LARGEST_SIDE} a side"
    assert not lacks(refusal(tmp_path / "a.npy"), "declares {} x {} pixels".format(*shape), expected)


@pytest.mark.parametrize("values", [GRAY * 1j, GRAY.astype("U3")])
def test_npy_of_what_are_no_gray_levels_is_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    assert not lacks(refusal(tmp_path / "a.npy"), f"holds {values.dtype}", "expected gray levels")


# NIfTI: a volume whose voxels hold a number made of where they lie, in mm to the right, the front and the head.

COUNTS, SIZES = (18, 21, 24), (1.0, 1.25, 1.5)  # along those three; the slices' axis is made coarser
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
ORIENTATIONS = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def value_at(right, front, head):
    return right + 100 * front + 10_000 * head


def placed(across, axes, signs):
    """A volume stored along `axes` (of right, front, head) in the directions `signs`, and its affine."""
    sizes = np.where(np.arange(3) == across, 6, SIZES)
    counts = [COUNTS[axis] for axis in axes]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, index] = sign * sizes[axis]
        affine[axis, 3] = -20 if sign > 0 else -20 + (COUNTS[axis] - 1) * sizes[axis]
    indices = np.indices(counts).reshape(3, -1)
    right, front, head = affine[:3, :3] @ indices + affine[:3, 3:]
    return value_at(right, front, head).reshape(counts), affine, sizes


def as_radiologists_see(plane, across_mm, sizes):
    """What a slice at `across_mm` must show: the right (sagittal: the front) at the left, front or head at the top."""
    right, front, head = (-20 + size * np.arange(count)[::-1] for count, size in zip(COUNTS, sizes, strict=True))
    if plane == "axial":
        return value_at(right[None, :], front[:, None], across_mm), (sizes[1], sizes[0])
    if plane == "coronal":
        return value_at(right[None, :], across_mm, head[:, None]), (sizes[2], sizes[0])
    return value_at(across_mm, front[None, :], head[:, None]), (sizes[2], sizes[1])


@pytest.mark.parametrize("plane", PLANES)
def test_volume_in_any_of_48_orientations_is_shown_as_radiologists_do(tmp_path, plane):
    across = PLANES[plane]
    for axes, signs in ORIENTATIONS:
        volume, affine, sizes = placed(across, axes, signs)
        one = read(write_nifti(tmp_path / "a.nii", volume, affine), slice_number=3)
        stored = np.zeros(4)
        stored[axes.index(across)], stored[3] = 2, 1  # slices are counted as they are stored, from 1
        expected, spacing = as_radiologists_see(plane, (affine @ stored)[across], sizes)
        assert np.allclose(one.pixels, expected), (axes, signs)
        assert one.spacing_mm == pytest.approx(spacing) and one.name == "a.nii, slice 3"


@pytest.mark.parametrize("plane", PLANES)
def test_volume_asks_which_slice_and_says_of_which_plane(tmp_path, plane):
    across = PLANES[plane]
    volume, affine, _ = placed(across, (1, 2, 0), (1, -1, 1))
    path = write_nifti(tmp_path / "a.nii.gz", volume, affine)
    count = COUNTS[across]
    assert not lacks(refusal(path), f"holds {count} {plane} slices", f"slice_number, 1 to {count}")
    for number in (0, count + 1):
        assert not lacks(refusal(path, number), f"no {plane} slice {number}", f"from 1 to {count}")


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 1), (1, 1, 3), (1.0004, 1, 1)])
def test_slices_are_along_the_third_axis_where_no_single_one_is_coarsest(tmp_path, sizes):
    volume = np.arange(20 * 22 * 24, dtype=np.int16).reshape(20, 22, 24)
    path = write_nifti(tmp_path / "a.nii", volume, np.diag([*sizes, 1]))
    assert "holds 24 axial slices" in refusal(path)


def test_tilted_volume_is_shown_as_it_is_stored_but_for_the_flips(tmp_path):
    tilt = np.deg2rad(20)
    turned = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([0.75, 0.5, 4])
    path = write_nifti(tmp_path / "a.nii", np.repeat(as_volume(PIXELS), 2, axis=2), affine)
    one = read(path, 2)
    assert np.array_equal(one.pixels, PIXELS) and one.spacing_mm == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volume_of_one_slice_needs_no_choice(tmp_path, axis):
    volume = np.expand_dims(PIXELS, axis)
    assert read(write_nifti(tmp_path / "a.nii", volume, np.eye(4))).pixels.shape == (SIDE, SIDE)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1, 1), (32, 32, 1, 1, 1)])
def test_nifti_of_one_slice_may_have_other_dimensions(tmp_path, shape):
    volume = as_volume(PIXELS).reshape(shape)
    assert np.array_equal(read(write_nifti(tmp_path / "a.nii", volume, RAS)).pixels, PIXELS)


def test_nifti_is_scaled_by_its_header(tmp_path):
    image = nibabel.Nifti1Image(as_volume(PIXELS), RAS)
    image.header.set_slope_inter(2, -5)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    with (tmp_path / "a.nii").open("r+b") as file:  # nibabel writes scaled values back: change the header alone
        file.seek(112)
        file.write(struct.pack("<ff", 2, -5))
    raw = np.frombuffer((tmp_path / "a.nii").read_bytes()[352:], np.int16).reshape(SIDE, SIDE, order="F")
    assert np.array_equal(read(tmp_path / "a.nii").pixels, raw[::-1, ::-1].T * 2.0 - 5)


def test_nifti_of_the_other_byte_order_is_read(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.uint16)
    nibabel.save(nibabel.Nifti1Image(as_volume(PIXELS), RAS, header), tmp_path / "a.nii")
    assert (tmp_path / "a.nii").read_bytes()[:4] == struct.pack(">i", 348)
    assert np.array_equal(read(tmp_path / "a.nii").pixels, PIXELS)


def test_series_of_volumes_is_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.ones((20, 20, 4, 3), np.uint8), np.eye(4))
    assert not lacks(refusal(path, 1), "shape (20, 20, 4, 3)", "expected one volume", "save one of the series")


def with_header(path, offset, content):
    """A NIfTI-1 file whose header holds something else."""
    write_nifti(path, as_volume(PIXELS), RAS)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    return path


@pytest.mark.parametrize("shape", [(30_000, 30_000, 1), (4000, 4000, 4000), (32, -4, 1), (32, 32, 0)])
def test_nifti_that_declares_another_size_is_refused_from_its_header(tmp_path, shape):
    path = with_header(tmp_path / "a.nii", 40, struct.pack("<4h", 3, *shape))
    message = refusal(path, 1)
    assert not lacks(message, "shape") and ("expected 1 to 4096 voxels" in message or "cannot be read" in message)


@pytest.mark.parametrize("value", [1e9, np.nan])
def test_nifti_whose_header_would_be_huge_is_refused(tmp_path, value):
    path = with_header(tmp_path / "a.nii", 108, struct.pack("<f", value))
    assert not lacks(refusal(path), "a header over 16,777,216 bytes", "save it anew")


@pytest.mark.parametrize("value", [np.nan, 0])
def test_nifti_without_directions_is_refused(tmp_path, value):
    path = with_header(tmp_path / "a.nii", 280, struct.pack("<12f", *[value] * 12))
    assert not lacks(refusal(path), "affine has no directions", "expected where the voxels lie")


def test_gzip_that_unpacks_to_much_more_is_read_no_further_than_the_volume(tmp_path):
    path = write_nifti(tmp_path / "a.nii", as_volume(PIXELS), RAS)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(2**28), 1))
    tracemalloc.start()
    assert np.array_equal(read(tmp_path / "a.nii.gz").pixels, PIXELS)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_nifti_of_colors_is_refused(tmp_path):
    volume = np.zeros((20, 20, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    volume["R"][3, 3] = 9
    assert "expected gray levels" in refusal(write_nifti(tmp_path / "a.nii", volume, np.eye(4)))


# DICOM.


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dicom_in_each_plain_syntax_is_read(tmp_path, syntax):
    big = syntax == ExplicitVRBigEndian
    dataset = dicom(WIDE)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = WIDE.astype(">u2" if big else "<u2").tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    one = read(tmp_path / "a.dcm")
    assert np.array_equal(one.pixels, WIDE) and one.pixels.dtype == np.uint16


@pytest.mark.parametrize("implicit", [True, False])
def test_dicom_without_preamble_is_known_by_its_content(tmp_path, implicit):
    dataset = dicom(WIDE)
    del dataset.file_meta
    dataset.save_as(tmp_path / "IM0001", implicit_vr=implicit, little_endian=True)
    assert (tmp_path / "IM0001").read_bytes()[:2] == b"\x08\x00"
    one = read(tmp_path / "IM0001")
    assert np.array_equal(one.pixels, WIDE) and one.spacing_mm == (0.5, 0.75)


def test_file_that_only_begins_like_dicom_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\x08\x00" + bytes(2000))
    refusal(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"\x08\x00\x70\x00LO\x04\x00ACME")  # an element, but not what it is an image of
    assert not lacks(refusal(tmp_path / "b"), "of no known kind", "DICOM or NIfTI")


def test_dicom_is_rescaled_to_float32(tmp_path):
    one = read(write_dicom(tmp_path / "a.dcm", WIDE, RescaleSlope=2.5, RescaleIntercept=-10))
    assert one.pixels.dtype == np.float32 and np.allclose(one.pixels, WIDE * 2.5 - 10)


def test_dicom_whose_scale_is_beyond_float32_is_told_without_a_warning(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", WIDE + 1, RescaleSlope="1e300", RescaleIntercept=0)
    assert not lacks(refusal(path), "every pixel is NaN or infinite", "expected an MR slice")


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_dicom_whose_low_values_are_bright_is_turned_over(tmp_path, dtype):
    pixels = np.where(WIDE > 2000, np.iinfo(dtype).max, np.iinfo(dtype).min).astype(dtype)
    pixels[3, 4] += 100 if pixels[3, 4] < 0 or pixels[3, 4] == 0 else -100
    one = read(write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(one.pixels, int(pixels.max()) + int(pixels.min()) - pixels.astype(int))
    assert one.pixels.dtype == dtype


def test_dicom_of_8_bits_and_with_signs_is_read(tmp_path):
    assert np.array_equal(read(write_dicom(tmp_path / "a.dcm", GRAY)).pixels, GRAY)
    signed = WIDE.astype(np.int16) - 1000
    assert np.array_equal(read(write_dicom(tmp_path / "b.dcm", signed)).pixels, signed)


@pytest.mark.parametrize("right, down", [(0, 1), (0, 2), (1, 2)])  # of left, back and head: the planes' axes
def test_dicom_that_lies_otherwise_is_shown_as_radiologists_do(tmp_path, right, down):
    """From each of the eight ways to store a slice, what scanners store: the left, or back, at the right."""
    for transposed, flip_rows, flip_columns in product((False, True), repeat=3):
        axes = np.zeros((2, 3))
        axes[0, right], axes[1, down] = 1, -1 if down == 2 else 1
        pixels, spacing = WIDE, [0.5, 0.75]
        if flip_rows:
            pixels, axes[1] = pixels[::-1], -axes[1]
        if flip_columns:
            pixels, axes[0] = pixels[:, ::-1], -axes[0]
        if transposed:
            pixels, axes, spacing = pixels.T, axes[::-1], spacing[::-1]
        orientation = [float(cosine) for cosine in axes.ravel()]
        path = tmp_path / "a.dcm"
        write_dicom(path, np.ascontiguousarray(pixels), ImageOrientationPatient=orientation, PixelSpacing=spacing)
        one = read(path)
        assert np.array_equal(one.pixels, WIDE), (transposed, flip_rows, flip_columns)
        assert one.spacing_mm == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize("orientation", [None, [0] * 6, [1, 0, 0, 1, 0, 0]])
def test_dicom_that_does_not_say_how_it_lies_stays_as_it_is(tmp_path, orientation):
    one = read(write_dicom(tmp_path / "a.dcm", WIDE, ImageOrientationPatient=orientation))
    assert np.array_equal(one.pixels, WIDE) and one.spacing_mm == (0.5, 0.75)


@pytest.mark.parametrize("spacing", [None, [0, 0], [-1, 1], [0.5]])
def test_dicom_without_a_sound_spacing_has_none(tmp_path, spacing):
    one = read(write_dicom(tmp_path / "a.dcm", WIDE, PixelSpacing=spacing))
    assert np.array_equal(one.pixels, WIDE) and one.spacing_mm is None


def test_dicom_in_color_becomes_gray(tmp_path):
    rgb = np.dstack([GRAY] * 3)
    one = read(write_dicom(tmp_path / "a.dcm", rgb))
    assert np.array_equal(one.pixels, GRAY) and not one.color
    rgb[..., 0] = 255
    assert read(write_dicom(tmp_path / "b.dcm", rgb)).color


def test_dicom_of_several_frames_asks_which(tmp_path):
    frames = np.stack([WIDE, WIDE + 1, WIDE + 2])
    path = write_dicom(tmp_path / "a.dcm", frames)
    assert not lacks(refusal(path), "holds 3 frames", "slice_number, 1 to 3")
    assert not lacks(refusal(path, 4), "no frame 4", "from 1 to 3")
    one = read(path, 2)
    assert np.array_equal(one.pixels, WIDE + 1) and one.name == "a.dcm, slice 2"


def test_enhanced_dicom_says_by_frame_how_it_lies_and_is_scaled(tmp_path):
    def group(keyword, **attributes):
        item, groups = Dataset(), Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(groups, keyword, Sequence([item]))
        return groups

    shared = group("PixelMeasuresSequence", PixelSpacing=[0.5, 0.75])
    each = [group("PixelValueTransformationSequence", RescaleSlope=n, RescaleIntercept=1) for n in (1, 3)]
    for groups, sign in zip(each, (1, -1), strict=True):
        groups.update(group("PlaneOrientationSequence", ImageOrientationPatient=[sign, 0, 0, 0, 1, 0]))
    write_dicom(
        tmp_path / "a.dcm",
        np.stack([WIDE, WIDE]),
        storage=EnhancedMRImageStorage,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(each),
        PixelSpacing=None,
        ImageOrientationPatient=None,
    )
    first, second = (read(tmp_path / "a.dcm", n) for n in (1, 2))
    assert np.array_equal(first.pixels, WIDE + 1.0) and first.spacing_mm == (0.5, 0.75)
    assert np.array_equal(second.pixels, WIDE[:, ::-1] * 3.0 + 1) and second.spacing_mm == (0.5, 0.75)


def test_dicom_compressed_without_further_packages_is_read(tmp_path):
    dataset = dicom(WIDE)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "a.dcm").pixels, WIDE)
    save(tmp_path / "gray.jp2", GRAY, no_jp2=True)
    dataset = dicom(GRAY, PixelData=encapsulate([(tmp_path / "gray.jp2").read_bytes()]))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "b.dcm").pixels, GRAY)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, DeflatedExplicitVRLittleEndian, UID("1.2.3")])
def test_dicom_that_cannot_be_decoded_here_names_its_syntax(tmp_path, syntax):
    dataset = dicom(WIDE)
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_transfer_syntax and syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.PixelData = encapsulate([b"no decoder for this"])
    if syntax.is_private or syntax == UID("1.2.3"):
        dataset.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True, enforce_file_format=True)
    else:
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    words = (f"compressed as {syntax.name}", "cannot be decoded here", "export it as Explicit VR Little Endian")
    assert not lacks(refusal(tmp_path / "a.dcm"), *words)


def in_jpeg_syntax(content):
    dataset = dicom(GRAY, PixelData=encapsulate([content]))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return dataset


def test_image_inside_dicom_that_declares_another_size_is_refused_before_decoding(tmp_path):
    save(tmp_path / "huge.jp2", np.zeros((12_000, 12_000), np.uint8), no_jp2=True)
    dataset = in_jpeg_syntax((tmp_path / "huge.jp2").read_bytes())
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert not lacks(refusal(tmp_path / "a.dcm"), "cannot be read as DICOM", "144000000 pixels")


@pytest.mark.parametrize("kind", ["a.dcm", "a.npy", "a.tif"])
def test_bytes_that_are_declared_and_not_there_take_no_memory(tmp_path, kind):
    path, huge = tmp_path / kind, struct.pack("<I", 2**31 - 16)
    path.write_bytes(b"\x93NUMPY\2\0" + huge + bytes(100))
    if kind == "a.dcm":
        content = write_dicom(path, WIDE).read_bytes()
        path.write_bytes(content.replace(b"DS" + struct.pack("<H", 8) + b"0.5\\0.75", b"UN\0\0" + huge + bytes(4)))
    elif kind == "a.tif":
        content = save(path, WIDE).read_bytes()
        at = content.index(struct.pack("<HHI", 279, 4, 1))  # bytes of the strip
        path.write_bytes(content[: at + 8] + huge + content[at + 12 :])
    tracemalloc.start()
    with suppress(DatasetError):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_dicom_without_pixels_is_told_what_it_is(tmp_path):
    dataset = dicom(WIDE, storage=RTStructureSetStorage)
    for name in ("Rows", "Columns", "PixelData"):
        del dataset[name]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    words = ("holds no pixels (RT Structure Set Storage)", "expected an MR image", "the file of a slice")
    assert not lacks(refusal(tmp_path / "a.dcm"), *words)
    write_dicom(tmp_path / "b.dcm", WIDE, PixelData=None)
    assert not lacks(refusal(tmp_path / "b.dcm"), "cannot be read as DICOM", "get the file again")


def test_dicom_of_a_palette_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", GRAY, PhotometricInterpretation="PALETTE COLOR")
    assert not lacks(refusal(path), "PALETTE COLOR", "expected MONOCHROME2", "export it in gray")


def test_dicom_that_declares_another_size_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.pixels, "pixel_array", None)
    path = write_dicom(tmp_path / "a.dcm", WIDE, Rows=60_000, Columns=60_000)
    assert not lacks(refusal(path), "declares 60000 x 60000 pixels", "16 to 4096 a side")


# What cannot be read.


def test_what_is_not_a_file_is_told(tmp_path):
    assert not lacks(refusal(tmp_path), "is a folder", "expected one image file", "give one")
    assert not lacks(refusal(tmp_path / "none.png"), "no such file", "check the name")


def test_empty_file_is_told(tmp_path):
    (tmp_path / "a.png").touch()
    assert not lacks(refusal(tmp_path / "a.png"), "is empty (0 bytes)", "get the file again")


@pytest.mark.parametrize(
    "content",
    [
        b"patient, label\n1, 2\n",
        b"\x89PNG",
        b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500),
        b"PK\x03\x04" + bytes(200),
        b"GIF89a" + bytes(100),
        gzip.compress(b"a note"),
    ],
)
def test_file_of_another_kind_is_told_which_are_expected(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert not lacks(refusal(tmp_path / "a.png"), "of no known kind", "figshare's .mat", "DICOM or NIfTI", "save it as")


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", [*KINDS, "photo.jpg"])
def test_truncated_file_is_told(tmp_path, capfd, kind, share):
    path = tmp_path / kind
    (KINDS | {"photo.jpg": lambda path: save(path, GRAY)})[kind](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert not lacks(refusal(path), "cannot be read", "cut short", "again")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("side", [5_000, 10_000, 30_000])  # at 10,000 Pillow would warn, at 30,000 refuse by itself
def test_png_that_declares_too_many_pixels_is_refused_from_its_header(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side))
    expected = f"expected a slice of 16 to {LARGEST_SIDE} a side"
    assert not lacks(refusal(tmp_path / "a.png"), "declares", "pixels", expected)


@pytest.mark.parametrize("kind", ["a.png", "a.npy", "a.dcm", "a.nii"])
def test_image_that_is_too_small_is_told(tmp_path, kind):
    tiny = PIXELS[:20, :15].copy()
    path = tmp_path / kind
    writers = {
        "a.png": lambda: save(path, tiny),
        "a.npy": lambda: np.save(path, tiny),
        "a.dcm": lambda: write_dicom(path, tiny),
        "a.nii": lambda: write_nifti(path, as_volume(tiny), RAS),
    }
    writers[kind]()
    assert not lacks(refusal(path), "declares 20 x 15 pixels", "expected a slice of 16 to")


def test_what_is_quoted_of_a_file_is_short_and_printable(tmp_path):
    dataset, content = dicom(WIDE), b"\x1b[31m\n" + b"red " * 1000
    dataset["PhotometricInterpretation"] = RawDataElement(BaseTag(0x00280004), "CS", 4006, content, 0, False, True)
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    message = refusal(tmp_path / "a.dcm")
    assert not lacks(message, "has colors of kind \\x1b[31m red red") and message.isprintable()
    assert len(message) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("name", NAMES)
def test_file_of_any_name_is_read_and_refused_in_one_line(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    one = read(save(folder / f"{name}.png", GRAY, format="PNG"))
    assert np.array_equal(one.pixels, GRAY) and one.name.isprintable()
    assert find([folder]) == [folder / f"{name}.png"]
    (folder / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        read(folder / f"{name}.png")
    assert str(caught.value).isprintable() and "of no known kind" in str(caught.value)


def test_image_in_which_nothing_is_to_be_seen_is_told(tmp_path):
    path = tmp_path / "a.npy"
    for value, words in ((7, "every pixel is 7"), (np.nan, "NaN or infinite"), (np.inf, "NaN or infinite")):
        np.save(path, np.full((20, 32), value))
        assert not lacks(refusal(path), words, "expected an MR slice")
    assert not lacks(refusal(save(tmp_path / "b.png", GRAY * 0)), "every pixel is 0", "expected an MR slice")
    np.save(path, np.where(GRAY > 99, 5, np.nan))
    assert not lacks(refusal(path), "every pixel is 5.0")


def test_ground_of_nan_becomes_the_least_value(tmp_path):
    stripped = np.where(GRAY > 99, GRAY, np.nan)
    stripped[0, 0] = np.inf
    np.save(tmp_path / "a.npy", stripped)
    expected = np.where(GRAY > 99, GRAY, GRAY[GRAY > 99].min())
    expected[0, 0] = GRAY[GRAY > 99].min()
    assert np.array_equal(read(tmp_path / "a.npy").pixels, expected)


def test_hdf5_that_is_no_figshare_slice_is_told(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layer"] = PIXELS
    assert not lacks(refusal(tmp_path / "weights.h5"), "cjdata is missing", "expected figshare's struct")


def test_slice_number_of_a_file_that_holds_one_slice_must_be_1(tmp_path):
    for kind in KINDS:
        KINDS[kind](tmp_path / kind)
        assert read(tmp_path / kind, 1).pixels.shape == (SIDE, SIDE)
        assert not lacks(refusal(tmp_path / kind, 2), "2; expected a slice_number from 1 to 1")


def test_what_libraries_have_to_say_of_an_odd_file_does_not_reach_the_reader(tmp_path, capfd, caplog):
    write_dicom(tmp_path / "a.dcm", WIDE)
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content.replace(b"CS\x02\x00MR", b"CS\x02\x00m!"))  # lower case, no code string
    with_header(tmp_path / "a.nii", 76, struct.pack("<f", 5))  # a handedness of 5
    with_header(tmp_path / "b.nii", 252, struct.pack("<h", 99))  # a code of no meaning
    for name in ("a.dcm", "a.nii", "b.nii"):
        read(tmp_path / name)
    assert capfd.readouterr() == ("", "") and not caplog.records


# Finding files.


def test_files_are_found_as_given_and_in_folders_in_natural_order(tmp_path):
    names = ["10.mat", "2.mat", "1.MAT", "sub/a10.nii.gz", "sub/a9.nii.gz", "x.DCM"]
    for name in [*names, "cvind.mat", "notes.txt", "slices.csv", ".hidden/3.mat", ".4.png"]:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    (tmp_path / "set" / "folder.png").mkdir()
    given = [tmp_path / "z.weird", tmp_path / "set", str(tmp_path / "none.png")]
    expected = ["1.MAT", "2.mat", "10.mat", "sub/a9.nii.gz", "sub/a10.nii.gz", "x.DCM"]
    assert find(given) == [tmp_path / "z.weird", *(tmp_path / "set" / name for name in expected), tmp_path / "none.png"]


def test_folder_without_images_is_told(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DatasetError) as caught:
        find([tmp_path])
    assert not lacks(str(caught.value), tmp_path, "holds no image files", *images.SUFFIXES)
