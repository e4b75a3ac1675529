"""PNG, JPEG and TIFF files as gray slices, with limits against hostile files."""

import re
import warnings
from contextlib import contextmanager

import numpy as np
import PIL.Image
import PIL.ImageOps

from braintumor.core import errors
from braintumor.core.errors import DatasetError, require
from braintumor.core.files import memory_map
from braintumor.data.preprocessing import MAX_SIDE

FORMATS = ("PNG", "JPEG", "TIFF")
MAX_PAGES = 2000  # of a TIFF file; Pillow's time grows with their square
MAX_SCANS = 100  # of a JPEG image, as in libtiff; each is decoded at full size
COLOR_TOLERANCE = 8  # levels of 255; JPEG's rounding makes gray channels differ
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
        message = f"cannot be read ({errors.shorten(error)}), may be damaged. {remedy}."
        raise DatasetError(prefix + message) from None


def check_size(rows, columns):
    """Raise DatasetError unless both sides are from 16 to MAX_SIDE pixels."""
    is_valid = 16 <= min(rows, columns) <= max(rows, columns) <= MAX_SIDE
    expected = f"16 to {MAX_SIDE} pixels per side"
    require(is_valid, "size", f"{rows} x {columns}", expected, "Export one slice")


def check_scans(jpeg):
    """Raise DatasetError if a JPEG image is encoded in more than MAX_SCANS scans."""
    n_scans = len(re.findall(rb"\xff\xda", jpeg))
    require(n_scans <= MAX_SCANS, "JPEG scans", n_scans, "about ten", "Save it again")


def select_slice(n_slices, kind, slice_number):
    """Return the index from 0 of the chosen slice, page or frame."""
    what, expected = f"slice_number of {n_slices} {kind}s", f"1 to {n_slices}"
    if slice_number is None and n_slices > 1:
        message = f"{what}: got none, expected {expected}. Choose a slice."
        raise errors.AmbiguousSliceError(message, n_slices)
    number = 1 if slice_number is None else slice_number
    require(1 <= number <= n_slices, what, number, expected, "Choose another")
    return number - 1


def invert(pixels):
    """Exchange bright and dark; integers wrap around and back."""
    return pixels.max() - pixels + pixels.min()


def to_gray(image):
    """Convert a Pillow image to (pixels, is_color); transparent pixels become black."""
    if image.mode in HIGH_BIT_MODES:
        return np.asarray(image), False
    if image.has_transparency_data:
        black = PIL.Image.new("RGBA", image.size, "black")
        image = PIL.Image.alpha_composite(black, image.convert("RGBA"))
    color_range = np.ptp(np.asarray(image.convert("RGB")), axis=2).max()
    return np.asarray(image.convert("L")), bool(color_range > COLOR_TOLERANCE)


def read_raster(path, page=None):
    """Read pixels, spacing_mm (None) and is_color of an image, turned as by EXIF."""
    with file_errors(path), memory_map(path) as content:
        image = PIL.Image.open(content, formats=FORMATS)
        n_pages = _count_pages(image) if image.format == "TIFF" else 1
        image.seek(select_slice(n_pages, "page", page))
        check_size(image.height, image.width)
        if image.format in ("JPEG", "MPO"):  # the second page of MPO is a preview
            check_scans(content)
        is_high_bit = image.mode in HIGH_BIT_MODES
        is_gray = is_high_bit or ";16" not in str(image.tile)  # else cut to 8 bits
        require(is_gray, "colors", "16-bit channels", "8 bits", "Save it as gray")
        tags = getattr(image, "tag_v2", {})  # of TIFF; 274: Pillow does not turn all
        turn = tags.get(274, 1)
        require(turn == 1, "TIFF orientation", turn, "1", "Save it upright")
        pixels, is_color = to_gray(PIL.ImageOps.exif_transpose(image))
        white_is_zero = is_high_bit and tags.get(262) == 0
        return invert(pixels) if white_is_zero else pixels, None, is_color


def _count_pages(tiff):
    """Count the pages of a TIFF file; n_frames would count any number of them."""
    for page in range(1, MAX_PAGES + 1):
        try:
            tiff.seek(page)
        except EOFError:
            return page
    raise DatasetError(f"pages: got over {MAX_PAGES}. Save the slice alone.")
