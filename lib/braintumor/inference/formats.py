"""One image file of any common format, maybe hostile, as one upright gray slice."""

import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braintumor.core.errors import DatasetError, printable, require
from braintumor.core.files import open_gzip
from braintumor.core.folders import list_files, list_names
from braintumor.data import raster
from braintumor.data.preprocessing import find_intensity_problem, pad_to_square

SUFFIXES = (".mat", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".nii")
SUFFIXES += (".nii.gz",)
FORMATS = "figshare's .mat (MATLAB v7.3), PNG, JPEG, TIFF, NumPy .npy, DICOM or NIfTI"
RASTER_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
RASTER_MAGIC += (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF
DICOM_WITHOUT_PREAMBLE = re.compile(  # group 2 or 8, or any with a type in letters
    rb"[\x02\x08]\0|\0\x08..[A-Z]{2}|[\x10\x18\x20\x28]\0.\0[A-Z]{2}", re.DOTALL
)
PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
PAIR_MAGIC = (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0")  # size of the header
OTHER_FORMATS = {
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"%PDF": "PDF",
    b"PK\3\4": "a ZIP archive or .npz",
    b"NRRD": "NRRD",
    b"ObjectType": "MetaImage",
    b"\0\0\0\1": "FreeSurfer's MGH",
}
MAX_BYTES = 300_000_000  # of a file; some readers take them all into memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputImage:
    """One upright slice; patient, label and mask are those of figshare slices."""

    name: str  # of the file, with the number of a chosen slice
    pixels: np.ndarray  # (rows, columns) as stored, finite, not constant
    spacing_mm: tuple[float, float] | None = None  # of the rows and the columns
    warnings: tuple[str, ...] = ()  # what the file declares against a prediction
    patient: str | None = None
    label: int | None = None
    mask: np.ndarray | None = None  # bool (rows, columns)

    @property
    def square_pixels(self):
        """The pixels, padded to (side, side) at the right and the bottom."""
        return pad_to_square(self.pixels)

    def crop_to_image(self, mask):
        """Crop a mask (side, side) of `square_pixels` to (rows, columns)."""
        rows, columns = self.pixels.shape
        return mask[:rows, :columns]


def read_image(path, slice_number=None):
    """Read one slice, upright in radiological convention if its orientation is known.

    Parameters
    ----------
    path : str or Path of a PNG, JPEG, TIFF, DICOM, NIfTI, NumPy or figshare file
    slice_number : int, from 1: of a NIfTI slice across the coarsest axis, a DICOM
        frame or a TIFF page

    Returns
    -------
    InputImage

    Raises
    ------
    AmbiguousSliceError
        If the file has several slices and `slice_number` is None.
    DatasetError
        If the file cannot be read, or is not a slice.
    """
    path = Path(path)
    name = printable(path.name)
    name += "" if slice_number is None else f", slice {slice_number}"
    with raster.file_errors(path):
        read, size = _find_reader(path), path.stat().st_size
        expected, remedy = f"at most {MAX_BYTES:,} bytes", "Export one slice"
        require(size <= MAX_BYTES, "file size", f"{size:,}", expected, remedy)
        pixels, spacing, notes, *truth = read(path, slice_number)
        pixels = pixels if truth else _check_pixels(pixels)
        return InputImage(name, pixels, spacing, tuple(notes), *truth)


def find_images(paths):
    """List files as they are, and the images in folders, in natural order.

    A file in a folder is an image by its content or its suffix; the names of others are
    logged.
    """
    images = []
    for path in map(Path, paths):
        images += _search_folder(path) if path.is_dir() else [path]
    return images


def _search_folder(folder):
    files = list_files(folder)
    images = [path for path in files if _is_image(path)]
    ignored = list_names(sorted({*files} - {*images}), folder)
    require(images, folder, f"{ignored}, no image", FORMATS, "Give another folder")
    if len(images) < len(files):
        logger.warning(printable(f"{folder}: ignored {ignored} of another format"))
    return images


def _is_image(path):
    """Whether a file of a folder is to be read; one that cannot be opened is."""
    if path.name in ("cvind.mat", "DICOMDIR"):
        return False
    try:
        return path.name.lower().endswith(SUFFIXES) or bool(_find_reader(path))
    except DatasetError:
        return False
    except (OSError, EOFError, zlib.error):  # reading reports why
        return True


def _find_reader(path):
    """Return the function that reads the format of the magic bytes.

    Its library is imported only then: h5py, pydicom or nibabel take longer to load than
    a network to predict.
    """
    # opening a named pipe would block
    require(path.is_file(), "file", "none", "an image file", "Check the name")
    with open_gzip(path) as file:
        head = file.read(1024)
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):  # MATLAB's own 512 bytes
        return _read_mat
    # before TIFF, which a preamble may imitate
    if head[128:132] == b"DICM" or DICOM_WITHOUT_PREAMBLE.match(head):
        from braintumor.inference.dicom import read_dicom

        return read_dicom
    if head.startswith(RASTER_MAGIC):
        return raster.read_raster
    if head.startswith(b"\x93NUMPY"):
        return _read_npy
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        from braintumor.inference.nifti import read_nifti

        return read_nifti
    name = path.name.lower()
    if head.startswith(b"MATLAB") or name.endswith(".mat"):  # which reports its version
        return _read_mat
    is_pair = head.startswith(PAIR_MAGIC) or name.endswith(PAIR_SUFFIXES)
    got, remedy = "a pair of .hdr and .img", "Save it as one .nii"
    require(not is_pair, "volume", got, "one NIfTI file", remedy)
    got = "an unknown format" if head else "an empty file"
    for magic, other in OTHER_FORMATS.items():
        got = other if head.startswith(magic) else got
    raise DatasetError(f"got {got}, expected {FORMATS}. Save it as one of these.")


def _read_mat(path, slice_number):
    from braintumor.data.figshare import SPACING_MM, read_mat

    raster.select_slice(1, "slice", slice_number)
    item = read_mat(path)
    spacing_mm = (SPACING_MM * 512 / len(item.image),) * 2
    return item.image, spacing_mm, [], item.pid, item.label, item.mask


def _read_npy(path, slice_number):
    with open(path, "rb") as file:
        version = file.read(8)[6]
        # headers of later versions may declare gigabytes
        what, remedy = "version of the .npy format", "Save plain numbers"
        require(version == 1, what, version, "1", remedy)
        dtype = np.lib.format.read_array_header_1_0(file)[2]
    require(not dtype.hasobject, "pixels", "Python objects", "numbers", remedy)
    pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    require(pixels.ndim == 2, "shape", pixels.shape, "two sides", "Save a slice")
    raster.select_slice(1, "slice", slice_number)
    return pixels, None, []


def _check_pixels(pixels):
    """Return numeric pixels, finite and in native byte order."""
    is_numeric, remedy = pixels.dtype.kind in "biuf", "Save one real number per pixel"
    require(is_numeric, "pixels", pixels.dtype, "gray levels", remedy)
    raster.check_size(*pixels.shape)
    is_finite, remedy = np.isfinite(pixels), "Look at the file in a viewer"
    require(is_finite.any(), "pixels", "no finite value", "an MR slice", remedy)
    if not is_finite.all():
        pixels = np.where(is_finite, pixels, pixels[is_finite].min())
    if problem := find_intensity_problem(pixels):
        raise DatasetError(f"pixels: {problem}. {remedy}.")
    return np.array(pixels, pixels.dtype.newbyteorder("="))
