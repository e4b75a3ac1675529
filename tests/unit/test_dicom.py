"""DICOM: upright, rescaled, one frame, or refused by name."""

from itertools import product

import numpy as np
import PIL.Image
import pytest
from image_files import (
    GRAY,
    WIDE,
    encode_lossless_jpeg,
    make_dicom,
    make_jpeg_dicom,
    refuse,
    save,
    save_dicom,
    write_dicom,
    write_jpeg_scans,
)
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from braintumor.data.preprocessing import MAX_SIDE
from braintumor.inference.formats import read_image

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.dcm"


def test_rescale_slope_gives_float32(path):
    write_dicom(path, WIDE, RescaleSlope=2.5, RescaleIntercept=-10)
    pixels = read_image(path).pixels
    assert pixels.dtype == np.float32 and np.allclose(pixels, WIDE * 2.5 - 10)
    refuse(write_dicom(path, WIDE + 1, RescaleSlope="1e300"), "pixels")  # overflow
    for text, slope in (("-2,5", -2.5), ("0", 1), ("none", 1)):  # malformed
        dataset = make_dicom(WIDE, RescaleIntercept=0)
        set_text(dataset, "RescaleSlope", text)
        assert np.allclose(read_image(save_dicom(path, dataset)).pixels, WIDE * slope)


@pytest.mark.parametrize("dtype, total", [(np.uint16, 2**16 - 1), (np.int16, -1)])
def test_monochrome1_is_inverted(path, dtype, total):
    stored = WIDE.astype(dtype)
    stored[0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    write_dicom(path, stored, PhotometricInterpretation="MONOCHROME1")
    pixels = read_image(path).pixels
    assert np.array_equal(pixels, total - stored.astype(int)) and pixels.dtype == dtype


@pytest.mark.parametrize("right, down", [(0, 1), (0, 2), (1, 2)])
def test_stored_orientation_is_undone(path, right, down):
    """Axes are left, back and head; a scanner stores left or back at the right."""
    for transpose, flip_rows, flip_columns in product((False, True), repeat=3):
        axes = np.zeros((2, 3))
        axes[0, right], axes[1, down] = 1, -1 if down == 2 else 1
        pixels, spacing = WIDE, [0.5, 0.75]
        if flip_rows:
            pixels, axes[1] = pixels[::-1], -axes[1]
        if flip_columns:
            pixels, axes[0] = pixels[:, ::-1], -axes[0]
        if transpose:
            pixels, axes, spacing = pixels.T, axes[::-1], spacing[::-1]
        cosines = axes.ravel().tolist()
        tags = dict(ImageOrientationPatient=cosines, PixelSpacing=spacing)
        image = read_image(write_dicom(path, np.ascontiguousarray(pixels), **tags))
        assert np.array_equal(image.pixels, WIDE), (transpose, flip_rows, flip_columns)
        assert image.spacing_mm == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize("orientation", [None, [0] * 6, [1, 0, 0, 1, 0, 0]])
@pytest.mark.parametrize("spacing", [None, [0, 0], [-1, 1], [0.5]])
def test_invalid_orientation_and_spacing_are_ignored(path, orientation, spacing):
    tags = dict(ImageOrientationPatient=orientation, PixelSpacing=spacing)
    image = read_image(write_dicom(path, WIDE, **tags))
    assert np.array_equal(image.pixels, WIDE) and image.spacing_mm is None


def test_color_is_converted_and_reported(path):
    rgb = np.dstack([GRAY] * 3)
    image = read_image(write_dicom(path, rgb))
    assert np.array_equal(image.pixels, GRAY) and not image.warnings
    assert read_image(write_dicom(path, rgb * np.uint8([1, 0, 1]))).warnings


def make_group(keyword, **attributes):
    item, groups = Dataset(), Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    setattr(groups, keyword, [item])
    return groups


def test_functional_groups_of_enhanced_dicom_are_used(path):
    frames = []
    for slope, sign in ((1, 1), (3, -1)):
        name, cosines = "PixelValueTransformationSequence", [sign, 0, 0, 0, 1, 0]
        frames.append(make_group(name, RescaleSlope=slope, RescaleIntercept=1))
        name = "PlaneOrientationSequence"
        frames[-1].update(make_group(name, ImageOrientationPatient=cosines))
    without = ["PixelSpacing", "ImageOrientationPatient"]
    dataset = make_dicom(np.stack([WIDE] * 2), uid.EnhancedMRImageStorage, without)
    shared = make_group("PixelMeasuresSequence", PixelSpacing=[0.5, 0.75])
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    save_dicom(path, dataset)
    first, second = read_image(path, 1), read_image(path, 2)
    assert np.array_equal(first.pixels, WIDE + 1.0)
    assert np.array_equal(second.pixels, WIDE[:, ::-1] * 3.0 + 1)
    assert first.spacing_mm == second.spacing_mm == (0.5, 0.75)


def test_jpeg_2000_is_read_if_it_is_of_the_declared_size(path, tmp_path):
    content = save(tmp_path / "a.jp2", GRAY, no_jp2=True).read_bytes()
    dataset = make_jpeg_dicom(content, uid.JPEG2000Lossless)
    assert np.array_equal(read_image(save_dicom(path, dataset)).pixels, GRAY)
    dataset.Rows = 40
    refuse(save_dicom(path, dataset))
    assert PIL.Image.MAX_IMAGE_PIXELS == MAX_SIDE**2  # that Pillow decodes


def test_lossless_jpeg_is_read_if_it_is_whole_and_of_the_declared_size(path):
    jpeg = encode_lossless_jpeg(WIDE)
    for padding in (b"", b"\0", b"\xff"):  # to an even number of bytes
        dataset = make_jpeg_dicom(jpeg + padding, uid.JPEGLosslessSV1, WIDE)
        assert np.array_equal(read_image(save_dicom(path, dataset)).pixels, WIDE)
    dataset.Rows = 40
    refuse(save_dicom(path, dataset), "JPEG size")
    dataset = make_jpeg_dicom(jpeg[:-40], uid.JPEGLosslessSV1, WIDE)
    refuse(save_dicom(path, dataset), "end marker")


def test_syntax_without_decoder_is_named(path):
    refuse(save_dicom(path, make_jpeg_dicom(b"not decoded", uid.HTJ2K)), uid.HTJ2K.name)
    dataset, deflated = make_dicom(WIDE), uid.DeflatedExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = deflated
    refuse(save_dicom(path, dataset), deflated.name)


def test_content_without_an_end_is_refused(path, tmp_path):
    content = write_jpeg_scans(tmp_path / "a.jpg", 100).read_bytes()
    refuse(save_dicom(path, make_jpeg_dicom(content)), "scans")
    for start in (bytes(128) + b"DICM", b"\x08\0"):  # millions of empty attributes
        path.write_bytes(start + bytes(10**8))
        refuse(path, "DICOM")


RT_STRUCTURES = {"storage": uid.RTStructureSetStorage}
RT_STRUCTURES["without"] = ["Rows", "Columns", "PixelData"]


@pytest.mark.parametrize(
    "pixels, changes, words",
    [
        (
            WIDE,
            {"storage": uid.SegmentationStorage},
            "Segmentation Storage, which is no",
        ),
        (WIDE, {"storage": uid.RTDoseStorage}, "RT Dose Storage, which is no image"),
        (WIDE, {"storage": uid.ParametricMapStorage}, "Parametric Map Storage"),
        (WIDE, {"Modality": "SEG"}, "no image"),
        (WIDE, {"ImageType": ["ORIGINAL", "PRIMARY", "MOSAIC"]}, "MOSAIC"),
        (np.dstack([WIDE] * 3), {}, "16-bit channels"),
        (WIDE, {"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        (WIDE, {"PixelData": WIDE.tobytes()[:-2]}, "cut short"),
        (WIDE, {"Rows": 60_000, "Columns": 60_000}, "60000 x 60000"),
        (WIDE, {"without": ["BitsStored"]}, "BitsStored"),
        (WIDE, RT_STRUCTURES, "RT Structure Set Storage"),
    ],
)
def test_what_is_no_gray_slice_is_named(path, pixels, changes, words):
    refuse(write_dicom(path, pixels, **changes), words)


@pytest.mark.parametrize(
    "changes, warning",
    [
        ({"Modality": "CT"}, "declared as CT"),
        ({"storage": uid.CTImageStorage}, "CT Image Storage"),
        ({"PixelData": WIDE.tobytes() + b"more"}, "4 bytes longer"),
        ({"PixelData": WIDE.tobytes() + bytes(64)}, None),
        ({"WindowCenter": 5, "WindowWidth": 2}, None),
        ({"PixelPaddingValue": 9999}, None),
    ],
)
def test_odd_slice_is_read_with_a_warning(path, changes, warning):
    image = read_image(write_dicom(path, WIDE, **changes))
    assert np.array_equal(image.pixels, WIDE)
    assert warning in image.warnings[0] if warning else image.warnings == ()


def set_text(dataset, keyword, text, vr="DS"):
    """Set an attribute to text that pydicom would not write."""
    tag, content = tag_for_keyword(keyword), text.encode()
    content += b" " * (len(content) % 2)
    raw = RawDataElement(BaseTag(tag), vr, len(content), content, 0, False, True)
    dataset[tag] = raw


@pytest.mark.parametrize(
    "text, spacing, vr",
    [
        ("0,5\\0,75", (0.5, 0.75), "DS"),
        ("0.5,0.75", (0.5, 0.75), "DS"),
        ("0.5\\0.75", (0.5, 0.75), "UT"),
        ("0.5 mm\\0.75 mm", (0.5, 0.75), "LO"),
        ("0,5,0,75", None, "DS"),
        ("isotropic", None, "DS"),
    ],
)
def test_spacing_is_read_from_text_if_it_is_clear(path, text, spacing, vr):
    dataset = make_dicom(WIDE)
    set_text(dataset, "PixelSpacing", text, vr)
    image = read_image(save_dicom(path, dataset))
    assert np.array_equal(image.pixels, WIDE) and image.spacing_mm == spacing
    assert bool(image.warnings) == (spacing is None)


PADDED = np.where(np.eye(20, 32, dtype=bool), -2000, WIDE.astype(np.int16))


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelPaddingValue": -2000},
        {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900},
        {"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2100},
        {"PixelPaddingValue": -2000, "RescaleSlope": 1, "RescaleIntercept": 0},
    ],
)
@pytest.mark.parametrize("colors", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_the_darkest_measured_value(path, changes, colors):
    is_padding = np.eye(20, 32, dtype=bool)
    write_dicom(path, PADDED, **changes, PhotometricInterpretation=colors)
    pixels = read_image(path).pixels
    assert set(pixels[is_padding]) == {pixels[~is_padding].min()}
    order = -1 if colors == "MONOCHROME1" else 1
    measured = WIDE[~is_padding].astype(int) * order
    assert np.ptp(pixels[~is_padding] - measured) == 0


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize("is_compressed", [True, False])
def test_frame_is_chosen(path, is_declared, is_compressed):
    dataset = make_dicom(np.stack([WIDE, WIDE + 1, WIDE + 2]))
    if is_compressed:
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
    if not is_declared:
        del dataset.NumberOfFrames
    assert refuse(save_dicom(path, dataset), "--slice").n_slices == 3
    refuse(path, "slice_number", slice_number=4)
    image = read_image(path, 2)
    assert np.array_equal(image.pixels, WIDE + 1) and image.name == "a.dcm, slice 2"


def test_odd_values_are_read_silently_or_quoted_shortly(path, capfd, caplog):
    content = write_dicom(path, WIDE).read_bytes()
    path.write_bytes(content.replace(b"CS\x02\x00MR", b"CS\x02\x00m!"))
    read_image(path)
    assert capfd.readouterr() == ("", "") and not caplog.records
    dataset, keyword = make_dicom(WIDE), "PhotometricInterpretation"
    set_text(dataset, keyword, "\x1b[31m\n" + "red " * 1000, "CS")
    error = refuse(save_dicom(path, dataset), keyword)
    assert len(str(error)) < len(str(path)) + 400


def test_file_without_preamble_or_file_meta_is_read(path):
    dataset = make_dicom(GRAY)
    path.write_bytes(save_dicom(path, dataset).read_bytes()[128 + 4 :])
    assert np.array_equal(read_image(path).pixels, GRAY)
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert np.array_equal(read_image(path).pixels, GRAY)
