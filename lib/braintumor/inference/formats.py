"""One image file of any common format as one upright gray slice.

The format is detected from magic bytes, not from the file name. Files may be hostile:
nothing in them is executed, and declared sizes are checked before memory is allocated.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braintumor.core.errors import DatasetError, printable
from braintumor.core.files import memory_map
from braintumor.data.figshare import SPACING_MM, read_mat
from braintumor.data.preprocessing import find_intensity_problem, pad_to_square
from braintumor.data.raster import (
    check_size,
    file_errors,
    read_raster,
    require,
    select_slice,
)
from braintumor.inference.dicom import read_dicom
from braintumor.inference.nifti import open_gzip, read_nifti

SUFFIXES = (".mat", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".nii")
SUFFIXES += (".nii.gz",)
FORMATS = "figshare's .mat (MATLAB v7.3), PNG, JPEG, TIFF, NumPy .npy, DICOM or NIfTI"
RASTER_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
RASTER_MAGIC += (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF


@dataclass(frozen=True)
class InputImage:
    """One upright slice.

    Attributes
    ----------
    name : str
        Name of the file, with the number of a chosen slice.
    pixels : ndarray of shape (rows, columns)
        As stored, finite, not constant.
    spacing_mm : (float, float) or None
        Spacing of the rows and the columns, if known.
    is_color : bool
        Whether color channels differed before conversion to gray.
    patient, label, mask : str, int, ndarray of bool (rows, columns)
        Known for figshare slices only. The patient of a DICOM file is not kept.
    """

    name: str
    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    is_color: bool = False
    patient: str | None = None
    label: int | None = None
    mask: np.ndarray | None = None

    @property
    def square_pixels(self):
        """The pixels, padded to (side, side) at the right and the bottom."""
        return pad_to_square(self.pixels)

    def crop_to_image(self, mask):
        """Crop a mask (side, side) of `square_pixels` to (rows, columns)."""
        rows, columns = self.pixels.shape
        return mask[:rows, :columns]


def read_image(path, slice_number=None):
    """Read one slice from an image file.

    DICOM pixels are rescaled; MONOCHROME1 and WhiteIsZero images are inverted. Slices
    with a known orientation are shown in radiological convention: the patient's right
    (sagittal: the front) at the left, the front or the head at the top. NaN and
    infinity become the minimum of the image.

    Parameters
    ----------
    path : str or Path
        A figshare .mat, PNG, JPEG, TIFF, NumPy .npy, DICOM or NIfTI file.
    slice_number : int, optional
        Slice of a NIfTI volume across its coarsest axis (the third if several are),
        frame of a DICOM file, or page of a TIFF file; from 1, in stored order.

    Returns
    -------
    InputImage

    Raises
    ------
    AmbiguousSliceError
        The file holds several slices, and `slice_number` is None.
    DatasetError
        The file cannot be read as one gray slice of 16 to MAX_SIDE pixels per side.
    """
    path = Path(path)
    reader = _find_reader(path)
    name = printable(path.name)
    if reader is read_mat:
        with file_errors(path, "MATLAB v7.3"):
            select_slice(1, "slice", slice_number)
        image = read_mat(path)
        spacing = SPACING_MM * 512 / len(image.image)
        truth = dict(patient=image.pid, label=image.label, mask=image.mask)
        return InputImage(name, image.image, (spacing, spacing), **truth)
    pixels, spacing, is_color = reader(path, slice_number)
    with file_errors(path, "an image"):
        pixels = _check_pixels(pixels)
    if slice_number is not None:
        name += f", slice {slice_number}"
    return InputImage(name, pixels, spacing, is_color)


def find_images(paths):
    """List image files.

    Parameters
    ----------
    paths : list of str or Path
        Files, returned as they are, and folders, searched with their subfolders for
        SUFFIXES in natural order, without hidden files and cvind.mat.

    Returns
    -------
    list of Path

    Raises
    ------
    DatasetError
        A folder holds no image files.
    """
    images = []
    for path in map(Path, paths):
        images += _search_folder(path) if path.is_dir() else [path]
    return images


def _search_folder(folder):
    def is_image(path):
        is_hidden = any(p.startswith(".") for p in path.relative_to(folder).parts)
        has_suffix = path.name.lower().endswith(SUFFIXES)
        is_folds = path.name == "cvind.mat"
        return has_suffix and not is_hidden and not is_folds and path.is_file()

    def natural_order(path):
        parts = re.split(r"(\d+)", str(path))
        return [int(part) if part.isdecimal() else part for part in parts]

    images = sorted(filter(is_image, folder.rglob("*")), key=natural_order)
    expected = f"names that end in {', '.join(SUFFIXES)}"
    remedy = "Give a file with another name directly"
    require(images, folder, "no image files", expected, remedy)
    return images


def _find_reader(path):
    """Return the function that reads the format of the magic bytes."""
    is_file = path.is_file()  # a named pipe would block
    require(is_file, path, "no such file", "an image file", "Check the name")
    with file_errors(path, "an image"), open_gzip(path) as file:
        head = file.read(1024)
    remedy = "Export or download it again"
    require(head, path, "an empty file", "an image", remedy)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):  # MATLAB's own 512 bytes
        return read_mat
    # before TIFF, which a preamble may imitate; files without one start with group 8
    if head[128:132] == b"DICM" or head.startswith(b"\x08\x00"):
        return read_dicom
    if head.startswith(RASTER_MAGIC):
        return _read_raster
    if head.startswith(b"\x93NUMPY"):
        return _read_npy
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return read_nifti
    raise DatasetError(
        f"{path}: got an unknown format, expected {FORMATS}. Convert it."
    )


def _read_raster(path, slice_number):
    pixels, is_color = read_raster(path, slice_number)
    return pixels, None, is_color


def _read_npy(path, slice_number):
    with file_errors(path, "a NumPy array"):
        with memory_map(path) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                read_header = np.lib.format.read_array_header_1_0
            else:
                read_header = np.lib.format.read_array_header_2_0
            try:
                shape, _, dtype = read_header(file)
            except Exception:  # NumPy's message recommends to trust the file
                raise DatasetError(
                    "header: is damaged. Save the array again."
                ) from None
        remedy = "Save one gray slice as numbers"
        require(not dtype.hasobject, "dtype", "Python objects", "numbers", remedy)
        require(len(shape) == 2, "shape", shape, "(rows, columns)", remedy)
        check_size(*shape)
        select_slice(1, "slice", slice_number)
        return np.load(path, mmap_mode="r", allow_pickle=False), None, False


def _check_pixels(pixels):
    """Return numeric pixels, finite and in native byte order."""
    is_numeric = pixels.dtype.kind in "biuf"
    require(is_numeric, "pixels", pixels.dtype, "gray levels", "Save them as numbers")
    check_size(*pixels.shape)
    is_finite = np.isfinite(pixels)
    remedy = "Look at the file in a viewer"
    require(is_finite.any(), "pixels", "no finite value", "an MR slice", remedy)
    if not is_finite.all():
        pixels = np.where(is_finite, pixels, pixels[is_finite].min())
    if problem := find_intensity_problem(pixels):
        raise DatasetError(f"pixels: {problem}. {remedy}.")
    return np.array(pixels, pixels.dtype.newbyteorder("="))
