"""One image of any usual kind, as a person or an archive hands it over, to one upright gray slice.

What a file is, its first bytes tell, not its name. Files come from strangers: nothing in them is run or unpickled, and
what they declare is checked before memory is taken for it.
"""

import gzip
import logging
import math
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import PIL.ImageOps
import pydicom
from nibabel.affines import voxel_sizes
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGTransferSyntaxes,
)

from braintumor.core.errors import ChoiceError, DatasetError, in_short, printable
from braintumor.core.files import mapped
from braintumor.data.prepared import LARGEST_SIDE, SPACING_MM, Source, intensity_fault, read_slice, squared

UNKNOWN = (
    "is of no known kind; expected figshare's .mat (MATLAB v7.3), PNG, JPEG, TIFF, NumPy .npy, DICOM or NIfTI: "
    "save it as one of these"
)
SUFFIXES = (".mat", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".nii", ".nii.gz")
LARGEST_VOLUME = 512**3  # voxels: a slice across the first axis may need all of them decompressed
MOST_PAGES = 2000  # of a TIFF file: Pillow takes a time that grows with their square
MOST_SCANS = 100  # of a JPEG image, as libtiff allows: each of them is drawn over the whole image
LARGEST_HEADER = 2**24  # bytes before a volume's voxels; headers hold notes of any length, and may be compressed
TINT = 8  # levels of 255 by which a gray image's channels may differ after JPEG's rounding
DEEP = ("I", "F", "I;16", "I;16L", "I;16B")  # Pillow's modes with more than 8 bits a pixel; all are gray
PHOTOMETRIC, ORIENTATION = 262, 274  # numbers of TIFF's tags
PIL.Image.MAX_IMAGE_PIXELS = LARGEST_SIDE**2  # also of an image inside a DICOM file, whatever the file declares


@dataclass(frozen=True)
class Image:
    """One upright slice.

    `name` is the file's name, printable, with the slice's number where one was chosen; `pixels` (rows, columns) numeric
    as stored, finite and not all the same; `spacing_mm` the distance of (rows, columns), None where the file does not
    say; `color` whether its channels really differed before they became gray. Of a figshare slice also `patient`,
    `label` (1 to 3) and `mask` (rows, columns) bool; None for all others: a DICOM file's patient is not kept.
    """

    name: str
    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    color: bool = False
    patient: str | None = None
    label: int | None = None
    mask: np.ndarray | None = None

    @property
    def square(self):
        """The pixels as a network wants them, padded at the right and the bottom: (side, side)."""
        return squared(self.pixels)

    def cropped(self, mask):
        """What of `mask` (side, side), drawn on `square`, lies on the image: (rows, columns)."""
        rows, columns = self.pixels.shape
        return mask[:rows, :columns]


def read(path, slice_number=None):
    """Read one image file as an Image: figshare's .mat, PNG, JPEG, TIFF, NumPy .npy, DICOM or NIfTI.

    A DICOM image with a rescale slope is float32, after it; where its low values are bright (MONOCHROME1, also TIFF's
    WhiteIsZero), it is turned over. Volumes and DICOM images that say how the patient lies are shown as radiologists
    do: the patient's right (in a sagittal slice the front) at the left, the front (or the head) at the top. NaN and
    infinite values become the image's least finite one.

    `slice_number`, from 1 in stored order, chooses a slice of a NIfTI volume, across the axis of its coarsest spacing
    (the third, if several are as coarse), a frame of DICOM, or a page of TIFF. Raises DatasetError, naming the file, if
    it cannot be read as an image, is under 16 or over LARGEST_SIDE pixels a side, or shows nothing; ChoiceError if a
    choice is needed and not given.
    """
    path = Path(path)
    try:
        reader = _reader(path)
        if reader is not read_slice:
            pixels, spacing, color = reader(path, slice_number)
            name = printable(path.name) + ("" if slice_number is None else f", slice {slice_number}")
            return Image(name, _checked(pixels), spacing, color)
        _index(1, "slice", slice_number)
    except DatasetError as error:
        error.args = (printable(f"{path}: {error}"),)  # a ChoiceError stays one
        raise error from None
    one = read_slice(Source(0, path))
    spacing = SPACING_MM * 512 / len(one.image)
    return Image(printable(path.name), one.image, (spacing, spacing), patient=one.pid, label=one.label, mask=one.mask)


def find(paths):
    """Image files: `paths` as given, but for folders those in them with one of SUFFIXES, 2.mat before 10.mat.

    Subfolders are searched too; hidden files and cvind.mat, which holds figshare's folds, are left out. Returns a list
    of Paths. Raises DatasetError for a folder that holds none.
    """
    found = []
    for path in map(Path, paths):
        found += _in_folder(path) if path.is_dir() else [path]
    return found


def _in_folder(folder):
    files = [
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(SUFFIXES) and path.name != "cvind.mat" and path.is_file()
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise DatasetError(
            f"{folder}: holds no image files; expected names that end in {', '.join(SUFFIXES)}: "
            "give a file with another name by itself"
        )
    return sorted(files, key=lambda path: [int(n) if n.isdecimal() else n for n in re.split(r"(\d+)", str(path))])


# What all kinds share. Messages leave the naming of the file to the caller.


def _reader(path):
    """The function that reads the kind of file which the first bytes tell."""
    if path.is_dir():
        raise DatasetError("is a folder; expected one image file: give one of those in it")
    if not path.is_file():
        raise DatasetError("no such file; expected an image: check the name")
    with _reading("an image"), _opened(path) as file:
        head = file.read(1024)
    if not head:
        raise DatasetError("is empty (0 bytes); expected an image: get the file again")
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):  # MATLAB puts 512 bytes of its own before it
        return read_slice
    # before the pictures: a preamble may begin as TIFF does. Without one, group 8 comes first, and _dicom looks closer
    if head[128:132] == b"DICM" or head.startswith(b"\x08\x00"):
        return _dicom
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return picture
    if head.startswith(b"\x93NUMPY"):
        return _numpy
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return _nifti
    raise DatasetError(UNKNOWN)


def _opened(path):
    """The file opened for reading, decompressed on the way if it is gzip."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return (gzip.open if gzipped else open)(path, "rb")


@contextmanager
def _reading(kind):
    """A reader's many exceptions as DatasetError; its warnings are of no use to one who did not write the file."""
    loggers = [logging.getLogger(name) for name in ("nibabel.global", "pydicom")]
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.filterwarnings("ignore", module=r"(PIL|nibabel|pydicom)\.")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        except DatasetError:
            raise
        except Exception as error:  # a damaged file is answered with a dozen exception types
            raise DatasetError(
                f"cannot be read as {kind} ({in_short(error)}); it may be damaged or cut short: get the file again"
            ) from None
        finally:
            for logger in loggers:
                logger.disabled = False


def _index(count, what, slice_number):
    """Index, from 0, of the slice that was chosen of `count`."""
    if slice_number is None and count > 1:
        message = f"holds {count} {what}s; expected one: choose it with slice_number, 1 to {count}"
        raise ChoiceError(message, count)
    if slice_number is not None and not 1 <= slice_number <= count:
        raise DatasetError(f"has no {what} {slice_number}; expected a slice_number from 1 to {count}")
    return (slice_number or 1) - 1


def _refuse_size(rows, columns):
    if not 16 <= min(rows, columns) <= max(rows, columns) <= LARGEST_SIDE:
        raise DatasetError(f"declares {rows} x {columns} pixels; expected a slice of 16 to {LARGEST_SIDE} a side")


def _checked(pixels):
    if pixels.dtype.kind not in "biuf":
        raise DatasetError(f"holds {pixels.dtype}; expected gray levels: save them as numbers")
    _refuse_size(*pixels.shape)
    finite = np.isfinite(pixels)
    if not finite.any():
        raise DatasetError("every pixel is NaN or infinite; expected an MR slice: look at the file in a viewer")
    if not finite.all():
        pixels = np.where(finite, pixels, pixels[finite].min())
    if fault := intensity_fault(pixels):
        raise DatasetError(f"{fault}: look at the file in a viewer")
    return np.array(pixels, pixels.dtype.newbyteorder("="))


def _inverted(pixels):
    return pixels.max() - pixels + pixels.min()  # integers wrap around and back


def _upright(plane, axis, affine):
    """A slice as radiologists see it, and its spacing in mm of (rows, columns).

    `plane` lies across `axis` of a volume whose indices `affine` (4, 4) takes to mm to the patient's right, front and
    head; or nearly so: a tilted slice is not resampled.
    """
    orientation = nibabel.io_orientation(affine)
    volume = nibabel.apply_orientation(np.expand_dims(plane, axis), orientation)
    sizes = voxel_sizes(affine)[np.argsort(orientation[:, 0])]
    across = int(orientation[axis, 0])
    columns, rows = np.delete(sizes, across)
    return volume.squeeze(across)[::-1, ::-1].T, (float(rows), float(columns))


# The kinds, but figshare's, which braintumor.data.prepared reads. Each reader returns pixels (rows, columns),
# spacing_mm and color as in Image.


def picture(path, slice_number=None):
    """Read a PNG, JPEG or TIFF file: pixels (rows, columns) numeric as stored, None for the spacing, and `color`.

    A photo is turned as its EXIF orientation says; transparent pixels are black. Raises DatasetError, which does not
    name the file, if it cannot be read, has several pages and none is chosen, or is not of 16 to LARGEST_SIDE pixels a
    side.
    """
    with _reading("an image"), mapped(path) as content:
        try:
            opened = PIL.Image.open(content, formats=("PNG", "JPEG", "TIFF"))
        except PIL.Image.DecompressionBombError:
            raise DatasetError(f"declares too many pixels; expected a slice of 16 to {LARGEST_SIDE} a side") from None
        with opened:
            pages = _pages(opened) if opened.format == "TIFF" else 1  # a phone's JPEG may hold a preview too
            opened.seek(_index(pages, "page", slice_number))
            _refuse_size(opened.height, opened.width)
            if opened.format in ("JPEG", "MPO"):
                _refuse_scans(content)
            if opened.mode not in DEEP and any(";16" in str(tile.args) for tile in opened.tile):
                raise DatasetError(
                    "has 16 bits a channel in color or with transparency, of which only 8 could be read; "
                    "expected 16 bits in gray alone: save it so"
                )
            tags = getattr(opened, "tag_v2", {})
            if tags.get(ORIENTATION, 1) != 1:  # Pillow turns some such files and not others
                raise DatasetError(
                    "is a TIFF that is stored turned; expected upright rows: save it without orientation"
                )
            turned_over = opened.mode in DEEP and tags.get(PHOTOMETRIC) == 0  # white is zero
            pixels, color = _gray(PIL.ImageOps.exif_transpose(opened))
            return _inverted(pixels) if turned_over else pixels, None, color


def _pages(tiff):
    """How many pages a TIFF file has; not by n_frames, which would count any number of them."""
    try:
        for page in range(1, MOST_PAGES + 1):
            tiff.seek(page)
    except EOFError:
        return page
    raise DatasetError(f"has over {MOST_PAGES} pages; expected one or some: save the slice by itself")


def _refuse_scans(jpeg):
    if len(re.findall(rb"\xff\xda", jpeg)) > MOST_SCANS:
        raise DatasetError(f"draws its image in over {MOST_SCANS} passes; expected a JPEG of some ten: save it anew")


def _gray(image):
    """Gray pixels of a Pillow image, and whether it is in color."""
    if image.mode in DEEP:
        return np.asarray(image), False
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), False
    if image.has_transparency_data:
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    image = image.convert("RGB")
    return np.asarray(image.convert("L")), bool(np.ptp(np.asarray(image), axis=2).max() > TINT)


def _numpy(path, slice_number):
    with _reading("a NumPy array"):
        with mapped(path) as file:
            header = np.lib.format
            version = header.read_magic(file)
            read_header = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
            try:
                shape, _, dtype = read_header(file)
            except Exception:  # NumPy's words advise to trust the file
                raise DatasetError("has a damaged header; expected shape and kind of numbers: save it anew") from None
        if dtype.hasobject:
            raise DatasetError("holds Python objects, which could run code; expected numbers: save an array of them")
        if len(shape) != 2:
            raise DatasetError(f"has shape {shape}; expected (rows, columns): save one gray slice")
        _refuse_size(*shape)
        _index(1, "slice", slice_number)
        return np.load(path, mmap_mode="r", allow_pickle=False), None, False


def _nifti(path, slice_number):
    with _reading("NIfTI"), _opened(path) as file:
        kind = nibabel.Nifti2Image if file.read(8)[4:] == b"n+2\0" else nibabel.Nifti1Image
        file.seek(0)
        header = kind.header_class.from_fileobj(file)
        shape = header.get_data_shape()
        if not header["vox_offset"] <= LARGEST_HEADER:
            raise DatasetError(f"declares a header over {LARGEST_HEADER:,} bytes; expected a volume: save it anew")
        if len(shape) < 2 or any(n != 1 for n in shape[3:]):
            raise DatasetError(f"has shape {shape}; expected one volume of three axes: save one of the series")
        volume = (*shape[:3], 1)[:3]
        if min(volume) < 1 or max(volume) > LARGEST_SIDE or math.prod(volume) > LARGEST_VOLUME:
            raise DatasetError(
                f"declares shape {shape}; expected 1 to {LARGEST_SIDE} voxels an axis and {LARGEST_VOLUME:,} in all"
            )
        file.seek(0)
        image = kind.from_stream(file)
        affine = image.affine
        if not np.isfinite(affine).all() or np.isclose(np.linalg.det(affine[:3, :3]), 0, atol=1e-9):
            raise DatasetError("its affine has no directions; expected where the voxels lie in mm: save it anew")
        axis = _slice_axis(volume, voxel_sizes(affine))
        plane = ("sagittal", "coronal", "axial")[int(nibabel.io_orientation(affine)[axis, 0])]
        index = [slice(None)] * 3 + [0] * (len(shape) - 3)
        index[axis] = _index(volume[axis], f"{plane} slice", slice_number)
        pixels = np.asarray(image.dataobj[tuple(index[: len(shape)])])  # this slice only, not the volume
        return *_upright(pixels, axis, affine), False


def _slice_axis(shape, sizes):
    """The axis across which slices were taken: the coarsest; the third, if none is."""
    if shape.count(1) == 1:
        return shape.index(1)
    coarsest = np.flatnonzero(np.isclose(sizes, sizes.max(), rtol=1e-3))
    return int(coarsest[0]) if len(coarsest) == 1 else 2


def _dicom(path, slice_number):
    with _reading("DICOM"), mapped(path) as content:
        try:
            read_preamble(content, force=False)
            meta = read_dataset(content, False, True, stop_when=lambda tag, *_: tag.group != 2)
            syntax = meta.get("TransferSyntaxUID")
        except pydicom.errors.InvalidDicomError:  # no preamble, and so not compressed
            syntax = None
        if syntax and not _decodable(syntax):
            raise DatasetError(
                f"is compressed as {in_short(syntax.name)}, which cannot be decoded here; expected uncompressed "
                f"pixels: export it as {ExplicitVRLittleEndian.name}"
            )
        content.seek(0)
        dataset = pydicom.dcmread(content, force=True)
        if not (kind := dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")):
            raise DatasetError(UNKNOWN)
        if "Rows" not in dataset:
            raise DatasetError(
                f"holds no pixels ({in_short(kind.name)}); expected an MR image: give the file of a slice"
            )
        _refuse_size(dataset.Rows, dataset.Columns)
        colors = dataset.PhotometricInterpretation
        if not colors.startswith(("MONOCHROME", "RGB", "YBR")):
            raise DatasetError(f"has colors of kind {in_short(colors)}; expected MONOCHROME2: export it in gray")
        frames = int(dataset.get("NumberOfFrames") or 1)
        frame = _index(frames, "frame", slice_number)
        if syntax in JPEGTransferSyntaxes:
            _refuse_scans(pydicom.encaps.get_frame(dataset.PixelData, frame, number_of_frames=frames))
        if not syntax:
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        pixels, color = pydicom.pixels.pixel_array(dataset, index=frame), False
        if pixels.ndim == 3:
            pixels, color = _gray(PIL.Image.fromarray(pixels))
        slope = _attribute(dataset, frame, "PixelValueTransformationSequence", "RescaleSlope")
        if slope is not None:
            intercept = _attribute(dataset, frame, "PixelValueTransformationSequence", "RescaleIntercept")
            pixels = (pixels * float(slope) + float(intercept or 0)).astype(np.float32)
        if colors == "MONOCHROME1":
            pixels = _inverted(pixels)
        return *_lying(dataset, frame, pixels), color


def _decodable(syntax):
    if syntax == DeflatedExplicitVRLittleEndian:  # pydicom would inflate the whole file, to whatever size
        return False
    try:
        return pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _attribute(dataset, frame, group, keyword):
    """An attribute of the image or, in one of the enhanced kinds, of the frame's functional group; None without."""
    if keyword in dataset:
        return dataset[keyword].value
    for level, n in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = dataset.get(level) or []
        if n < len(items) and items[n].get(group):
            return items[n].get(group)[0].get(keyword)
    return None


def _lying(dataset, frame, pixels):
    """DICOM pixels upright, and their spacing."""
    spacing = _attribute(dataset, frame, "PixelMeasuresSequence", "PixelSpacing")
    cosines = _attribute(dataset, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = tuple(np.ravel(spacing or ()).astype(float).tolist())
    if len(spacing) != 2 or not all(0 < mm < math.inf for mm in spacing):
        spacing = None
    right, down = np.reshape(cosines if cosines and len(cosines) == 6 else [0.0] * 6, (2, 3)).astype(float)
    across = np.cross(right, down)
    if not np.linalg.norm(across) > 0.5:  # not said, or nonsense: as stored
        return pixels, spacing
    rows, columns = spacing or (1, 1)
    affine = np.eye(4)
    # DICOM counts mm to the patient's left and back
    affine[:3, :3] = np.diag([-1, -1, 1]) @ np.stack([down * rows, right * columns, across], axis=1)
    pixels, upright_spacing = _upright(pixels, 2, affine)
    return pixels, spacing and upright_spacing
