"""Slices of DICOM files."""

import io
import logging
import re

import numpy as np
import PIL.Image
import pydicom
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_dataset, read_partial, read_preamble

from braintumor.core.errors import require, shorten
from braintumor.core.files import memory_map
from braintumor.data import raster
from braintumor.inference.nifti import to_radiological

NEEDED = "Rows Columns BitsAllocated BitsStored PixelRepresentation SamplesPerPixel"
NEEDED = (*NEEDED.split(), "PhotometricInterpretation")
NOT_IMAGES = ("Segmentation", "RT ", "Parametric Map")  # classes that have pixels
NOT_COMPRESSED = "Export it without compression"
JPEG_SYNTAXES = (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes)
COMPRESSED = (*JPEG_SYNTAXES, uid.JPEG2000, uid.JPEG2000Lossless, uid.RLELossless)
PIXEL_DATA = tag_for_keyword("PixelData")
MAX_META_BYTES = 2**16
MAX_ATTRIBUTES = 10_000  # files have hundreds
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
logging.getLogger("pydicom").disabled = True  # notes on odd files are not for users


def read_dicom(path, slice_number=None):
    """Return pixels, spacing_mm (or None) and warnings of one upright frame."""
    with memory_map(path) as content:
        _check_file_meta(content)
        dataset, notes = _read_attributes(content), []
    if "TransferSyntaxUID" not in dataset.file_meta:  # no preamble: not compressed
        _, is_little = dataset.original_encoding
        syntax = uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    _check_object(dataset, notes)
    _check_pixels(dataset)
    dataset.NumberOfFrames = n_frames = _count_frames(dataset, notes)
    frame = raster.select_slice(n_frames, "frame", slice_number)
    pixels = _decode_frame(dataset, frame)
    if pixels.ndim == 3:
        pixels, color_notes = raster.to_gray(PIL.Image.fromarray(pixels))
        notes += color_notes
    else:
        pixels = _apply_attributes(dataset, frame, pixels, notes)
    return *_orient(dataset, frame, pixels, notes), notes


def _check_file_meta(content):
    """Refuse what pydicom would read or inflate without an end."""
    head = io.BytesIO(content[:MAX_META_BYTES])
    read_preamble(head, force=True)
    meta = read_dataset(head, False, True, stop_when=lambda tag, *_: tag.group != 2)
    is_ended = head.tell() < MAX_META_BYTES and head.read(2) != b"\0\0"
    expected, remedy = "an image after it", "Export it again"
    require(is_ended, "DICOM file meta", "other attributes", expected, remedy)
    deflated, what = uid.DeflatedExplicitVRLittleEndian, "transfer syntax"
    is_other = meta.get("TransferSyntaxUID") != deflated
    require(is_other, what, deflated.name, "another one", NOT_COMPRESSED)


def _read_attributes(content):
    """Read attributes up to the pixels: what follows may be millions of empty ones."""
    tags = []

    def is_enough(tag, *_):
        tags.append(tag)
        return len(tags) > MAX_ATTRIBUTES or PIXEL_DATA in tags[-2:-1]

    return read_partial(content, is_enough, force=True)


def _check_object(dataset, notes):
    """Refuse objects other than images, and note those of another modality than MR."""
    meta = dataset.file_meta
    kind = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    kind = shorten(getattr(kind, "name", "an unknown class"))
    modality = shorten(dataset.get("Modality") or "MR").upper()
    is_image = not any(word in kind for word in NOT_IMAGES) and modality != "SEG"
    what, expected, remedy = "DICOM object", "an MR image", "Give the file of the slice"
    require(is_image, what, f"{kind}, which is no image", expected, remedy)
    require("PixelData" in dataset, what, f"{kind} without pixels", expected, remedy)
    is_mosaic = "MOSAIC" in str(dataset.get("ImageType"))
    got = "MOSAIC, all slices in one image"
    remedy = "Convert it to NIfTI, for example with dcm2niix"
    require(not is_mosaic, "ImageType", got, "one slice", remedy)
    is_other_class = "Image Storage" in kind and not re.search("MR|Capture", kind)
    if modality not in ("MR", "OT", "SC") or is_other_class:
        declared = f"it is declared as {modality} ({kind})"
        notes.append(f"{declared}; the networks know MR only")


def _check_pixels(dataset):
    """Refuse a size, color or compression that cannot be read here."""
    missing = ", ".join(name for name in NEEDED if name not in dataset)
    got, expected = f"none for {missing}", "a value of each"
    require(not missing, "DICOM attributes", got, expected, "Export it again")
    raster.check_size(dataset.Rows, dataset.Columns)
    what, colors = "PhotometricInterpretation", dataset.PhotometricInterpretation
    is_known = colors.startswith(("MONOCHROME", "RGB", "YBR"))
    require(is_known, what, shorten(colors), "MONOCHROME2", "Export it in gray")
    bits = dataset.BitsAllocated
    is_8_bit = bits == 8 or dataset.SamplesPerPixel == 1
    require(is_8_bit, "colors", f"{bits}-bit channels", "8 bits", "Export it in gray")
    syntax = dataset.file_meta.TransferSyntaxUID
    is_known = syntax in uid.UncompressedTransferSyntaxes
    if syntax in COMPRESSED:
        # of 12 bits, decoders read 8 or none
        is_known = syntax != uid.JPEGExtended12Bit or dataset.BitsStored <= 8
        is_known = is_known and pydicom.pixels.get_decoder(syntax).is_available
    name, expected = shorten(syntax.name), "one that can be decoded here"
    require(is_known, "transfer syntax", name, expected, NOT_COMPRESSED)


def _count_frames(dataset, notes):
    """Count the frames, declared or not; fewer than declared cannot be decoded."""
    (n_declared,) = _read_numbers(dataset, 0, "NumberOfFrames", 1, notes) or [1]
    syntax, content = dataset.file_meta.TransferSyntaxUID, dataset.PixelData
    if syntax in COMPRESSED:
        starts = b"" if syntax == uid.RLELossless else (b"\xff\xd8", b"\xff\x4f")
        buffer = io.BytesIO(content)
        pydicom.encaps.parse_basic_offsets(buffer)
        fragments = pydicom.encaps.generate_fragments(buffer)
        n_frames = sum(fragment.startswith(starts) for fragment in fragments)
    else:
        dataset.NumberOfFrames = 1
        n_bytes = pydicom.pixels.utils.get_expected_length(dataset)
        n_frames = len(content) // n_bytes
        rest = content[n_frames * n_bytes :].strip(b"\0")  # zeros are usual
        if n_frames and len(rest) > 1:
            notes.append(f"its PixelData is {len(rest):,} bytes longer than its size")
    return max(int(n_declared), n_frames, 1)


def _decode_frame(dataset, frame):
    syntax, plugin = dataset.file_meta.TransferSyntaxUID, ""
    if syntax in JPEG_SYNTAXES:  # libjpeg allocates what a stream declares
        settings = {"number_of_frames": dataset.NumberOfFrames}
        content = pydicom.encaps.get_frame(dataset.PixelData, frame, **settings)
        is_whole = content.rstrip(b"\0\xff").endswith(b"\xff\xd9")  # one may pad it
        remedy = "Export or download it again"
        require(is_whole, "JPEG", "no end marker", "a whole image", remedy)
        _, _, *size = raster.read_jpeg_header(content)
        expected = [dataset.Rows, dataset.Columns, dataset.SamplesPerPixel]
        require(size == expected, "JPEG size", size, expected, NOT_COMPRESSED)
    if syntax == uid.JPEGBaseline8Bit:
        plugin = "pillow"  # the other one accepts damaged files
    return pydicom.pixels.pixel_array(dataset, index=frame, decoding_plugin=plugin)


def _apply_attributes(dataset, frame, stored, notes):
    """Rescale and invert gray levels as declared; padding becomes the darkest one."""
    pixels = stored
    (slope,) = _read_numbers(dataset, frame, "RescaleSlope", 1, notes) or [0]
    if slope:
        (shift,) = _read_numbers(dataset, frame, "RescaleIntercept", 1, notes) or [0]
        pixels = (pixels * slope + shift).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = raster.invert(pixels)
    padding = _read_numbers(dataset, frame, "PixelPaddingValue", 1, notes)
    if padding:
        limit = _read_numbers(dataset, frame, "PixelPaddingRangeLimit", 1, notes)
        limits = np.array([padding, limit or padding]).astype(np.int64)
        limits = limits.astype(stored.dtype)  # -2000 may be written as 63536
        is_padding = (stored >= limits.min()) & (stored <= limits.max())
        if is_padding.any() and not is_padding.all():
            pixels = np.where(is_padding, pixels[~is_padding].min(), pixels)
    return pixels


def _read_numbers(dataset, frame, keyword, count, notes):
    """Read numbers of an attribute; None, with a note, if they are malformed.

    Text such as "0,5", "0.5, 0.5" or "0.5 mm" is understood.
    """
    try:
        value = _get_attribute(dataset, frame, keyword)
        text = "\\".join(map(str, np.ravel(() if value is None else value)))
    except Exception:  # pydicom raises half a dozen types
        text = "unreadable"
    decimal_mark = " " if "." in text else "."
    numbers = [float(n) for n in NUMBER.findall(text.replace(",", decimal_mark))]
    if len(numbers) == count and np.isfinite(numbers).all():
        return numbers
    if text:
        notes.append(f"its {keyword} is ignored: got {shorten(text)}")
    return None


def _get_attribute(dataset, frame, keyword):
    """Get an attribute of the image, or of the functional group of a frame, or None."""
    if keyword in dataset:
        return dataset[keyword].value
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in [*frames[frame : frame + 1], *shared[:1]]:
        for element in groups.iterall():
            if element.keyword == keyword:
                return element.value
    return None


def _orient(dataset, frame, pixels, notes):
    """Return the pixels in radiological convention, and their spacing in mm."""
    spacing = _read_numbers(dataset, frame, "PixelSpacing", 2, notes)
    spacing = tuple(spacing) if spacing and min(spacing) > 0 else None
    cosines = _read_numbers(dataset, frame, "ImageOrientationPatient", 6, notes)
    right, down = np.reshape(cosines or [0] * 6, (2, 3))
    normal = np.cross(right, down)
    if not np.linalg.norm(normal) > 0.5:  # not two directions
        return pixels, spacing
    rows, columns = spacing or (1, 1)
    affine = np.eye(4)
    # DICOM's axes point to the patient's left and back
    vectors = np.stack([down * rows, right * columns, normal], axis=1)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ vectors
    pixels, upright_spacing = to_radiological(pixels, 2, affine)
    return pixels, upright_spacing if spacing else None
