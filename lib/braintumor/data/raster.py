"""PNG, JPEG and TIFF files as gray slices, with limits against hostile files."""

import os
import re
import struct
import warnings
from contextlib import contextmanager

import numpy as np
import PIL.Image
import PIL.ImageOps
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

from braintumor.core import errors
from braintumor.core.errors import DatasetError, require
from braintumor.core.files import memory_map
from braintumor.data.preprocessing import MAX_SIDE

FORMATS = ("PNG", "JPEG", "TIFF")
MAX_PAGES = 2000  # of a TIFF file; Pillow's time grows with their square
MAX_SCANS = 100  # of a JPEG image, as in libtiff; each is decoded at full size
SOF_MARKERS = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
JPEG_PROCESSES = {0xFFC3: "lossless", 0xFFF7: "JPEG-LS"}  # not those of cameras
SAMPLE_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
PILLOW_CASTS = {((8,), (2,)): np.int8, ((32,), (1,)): np.uint32}
COLOR_TOLERANCE = 8  # levels of 255; JPEG's rounding makes gray channels differ
COLOR_WARNING = "it is a color image; MR slices are gray"
HIGH_BIT_MODES = ("I", "F", "I;16", "I;16L", "I;16B")  # Pillow's; all are gray
PIL.Image.MAX_IMAGE_PIXELS = MAX_SIDE**2  # also for images inside DICOM files


@contextmanager
def file_errors(path, remedy="Export or download it again"):
    """Raise any exception of the block as a DatasetError that names `path`."""
    prefix = errors.printable(f"{path}: ")
    try:
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            warnings.filterwarnings("ignore", module=r"(PIL|nibabel|pydicom)\.")
            yield
    except DatasetError as error:
        if not str(error).startswith(prefix):
            error.args = (prefix + str(error),)
        raise
    except Exception as error:  # libraries raise a dozen types on damaged files
        reason = "it may be damaged or cut short"
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif code := getattr(error, "errno", None):
            reason = os.strerror(code)
        raise DatasetError(f"{prefix}cannot be read: {reason}. {remedy}.") from None


def check_size(rows, columns):
    """Raise DatasetError unless both sides are from 16 to MAX_SIDE pixels."""
    is_valid = 16 <= min(rows, columns) <= max(rows, columns) <= MAX_SIDE
    expected = f"16 to {MAX_SIDE} pixels per side"
    require(is_valid, "size", f"{rows} x {columns}", expected, "Export one slice")


def read_jpeg_header(jpeg):
    """Return process (a marker), bits, rows, columns and channels of a JPEG image.

    Raises DatasetError if it has more than MAX_SCANS scans.
    """
    n_scans = len(re.findall(rb"\xff\xda", jpeg))
    require(n_scans <= MAX_SCANS, "JPEG scans", n_scans, "about ten", "Save it again")
    position = 2
    for _ in range(1000):  # segments before the header
        marker, length = struct.unpack_from(">HH", jpeg, position)
        if marker in SOF_MARKERS:
            return marker, *struct.unpack_from(">BHHB", jpeg, position + 4)
        position += 1 if marker == 0xFFFF else 2 + length  # a fill byte, or a segment
    raise ValueError("no header")


def select_slice(n_slices, kind, slice_number):
    """Return the index from 0 of the chosen slice, page or frame."""
    what, expected = "slice number", f"1 to {n_slices} ({kind}s)"
    remedy = "Choose one by --slice (slice_number in Python)"
    if slice_number is None and n_slices > 1:
        message = f"{what}: got none, expected {expected}. {remedy}."
        raise errors.AmbiguousSliceError(message, n_slices)
    number = 1 if slice_number is None else slice_number
    require(1 <= number <= n_slices, what, number, expected, remedy)
    return number - 1


def invert(pixels):
    """Exchange bright and dark; integers wrap around and back."""
    return pixels.max() - pixels + pixels.min()


def to_gray(image):
    """Convert a Pillow image to (pixels, warnings); transparent pixels become black."""
    if image.mode in HIGH_BIT_MODES:
        return np.asarray(image), []
    require(image.mode != "LAB", "colors", "CIELAB", "gray or RGB", "Save it as gray")
    if image.mode == "La":  # premultiplied; Pillow converts it to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        black = PIL.Image.new("RGBA", image.size, "black")
        image = PIL.Image.alpha_composite(black, image.convert("RGBA"))
    color_range = np.ptp(np.asarray(image.convert("RGB")), axis=2).max()
    notes = [COLOR_WARNING] if color_range > COLOR_TOLERANCE else []
    return np.asarray(image.convert("L")), notes


def read_raster(path, page=None):
    """Read pixels, spacing_mm (None) and warnings of an image, turned as by EXIF."""
    with file_errors(path), memory_map(path) as content:
        try:
            image = PIL.Image.open(content, formats=FORMATS)
        except (PIL.UnidentifiedImageError, KeyError):  # KeyError: TIFF compression
            _refuse_unsupported(content)
            raise
        n_pages = _count_pages(image) if image.format == "TIFF" else 1
        image.seek(select_slice(n_pages, "page", page))
        check_size(image.height, image.width)
        if image.format in ("JPEG", "MPO"):  # the second page of MPO is a preview
            read_jpeg_header(content)
        is_high_bit = image.mode in HIGH_BIT_MODES
        is_gray = is_high_bit or ";16" not in str(image.tile)  # else cut to 8 bits
        require(is_gray, "colors", "16-bit channels", "8 bits", "Save it as gray")
        tags = getattr(image, "tag_v2", {})  # of TIFF; 274: Pillow does not turn all
        turn = tags.get(274, 1)
        require(turn == 1, "TIFF orientation", turn, "1", "Save it upright")
        if image.format == "TIFF":
            with _silenced_stderr():
                image.load()
        pixels, notes = to_gray(PIL.ImageOps.exif_transpose(image))
        # 258 and 339: Pillow reads signed bytes as uint8, and unsigned 32 bits as int32
        sample = tags.get(258), tags.get(339, (1,))
        pixels = pixels.view(PILLOW_CASTS.get(sample, pixels.dtype))
        white_is_zero = is_high_bit and tags.get(262) == 0
        return invert(pixels) if white_is_zero else pixels, None, notes


@contextmanager
def _silenced_stderr():
    """Discard what libtiff prints about damaged files."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _refuse_unsupported(content):
    """Raise DatasetError for a file that Pillow cannot read though it is whole."""
    remedy = "Save it as PNG, or as TIFF of 8 or 16 bits in gray"
    if content[:2] == b"\xff\xd8":
        marker, bits, *_ = read_jpeg_header(content)
        got = f"{bits}-bit {JPEG_PROCESSES.get(marker, 'DCT')}"
        require(got == "8-bit DCT", "JPEG", got, "8-bit DCT", remedy)
    elif content[:2] in (b"II", b"MM"):
        is_big = 43 in content[2:4]  # BigTIFF
        tags = ImageFileDirectory_v2(content[: 16 if is_big else 8])
        content.seek(tags.next)
        tags.load(content)
        if not {279, 325} & {*tags}:  # sizes of strips or tiles: it is cut short
            return
        codec, n_channels = tags.get(259, 1), tags.get(277, 1)
        is_known = codec in COMPRESSION_INFO
        require(is_known, "TIFF compression", codec, "none, LZW or Deflate", remedy)
        bits, sample = max(tags[258]), tags.get(339, (1,))[0]
        got = f"{bits}-bit {SAMPLE_FORMATS.get(sample, 'complex numbers')}"
        got += f" in {n_channels} channels" if n_channels > 1 else ""
        raise DatasetError(f"TIFF pixels: got {got}, expected gray levels. {remedy}.")
    elif content[:4] != b"\x89PNG":
        raise DatasetError(f"got another format, expected PNG, JPEG or TIFF. {remedy}.")


def _count_pages(tiff):
    """Count the pages of a TIFF file; n_frames would count any number of them."""
    for page in range(1, MAX_PAGES + 1):
        try:
            tiff.seek(page)
        except EOFError:
            return page
    raise DatasetError(f"pages: got over {MAX_PAGES}. Save the slice alone.")
