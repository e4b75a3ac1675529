"""Good files of every format that the library reads, for tools/fuzz.py."""

import gzip
import io
import tempfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom

from braintumor.data.figshare import write_cvind, write_mat

PIXELS = np.random.default_rng(0).integers(0, 4000, (32, 32)).astype(np.uint16)
GRAY = (PIXELS // 16).astype(np.uint8)
MASK = np.zeros((32, 32), np.uint8)
MASK[5:12, 18:22] = 1
COLOR = PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2, 255 - GRAY]))
FIELDS = {
    "image": PIXELS.astype(np.int16),
    "tumorMask": MASK,
    "label": np.array([[2.0]]),
    "PID": np.array([[80], [49]], np.uint16),
    "tumorBorder": np.array([[19.0, 6, 22, 6, 22, 12, 19, 12]]),
}
TABLE = b"image,mask,label,patient,fold,plane,spacing_mm\n"
TABLE += b"a.png,m.png,glioma,P1,1,axial,0.5\nb.png,m.png,1,P2,2,,\n"


def encode(image, file_format, **options):
    """Encode an array or a Pillow image as bytes."""
    image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out := io.BytesIO(), file_format, **options)
    return out.getvalue()


def write_bytes(write, *arguments):
    """Return the bytes that `write(path, *arguments)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder) / "seed.npy", *arguments)
        return path.read_bytes()


def make_hdf5(fill, libver="earliest"):
    """Return the bytes of an HDF5 file that `fill(file)` has filled."""
    options = {"driver": "core", "backing_store": False, "libver": libver}
    with h5py.File("in memory", "w", **options) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def make_raster_seeds(file_format, modes, **options):
    rotated = PIL.Image.Exif()
    rotated[274] = 6
    yield encode(COLOR, file_format, exif=rotated, icc_profile=bytes(200), **options)
    yield from (encode(COLOR.convert(mode), file_format) for mode in modes.split())
    if file_format != "JPEG":
        yield encode(PIXELS, file_format)
        frames = [COLOR.convert("L")]
        yield encode(GRAY, file_format, save_all=True, append_images=frames)


def find_dicom_seeds():
    """The small test files that pydicom brings along."""
    for path in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm")):
        if path.stat().st_size < 20_000:
            yield path.read_bytes()


def make_nifti_seeds():
    volume, affine = np.repeat(PIXELS[:24, :20, None], 3, axis=2), np.diag([1, 1, 3, 1])
    for dtype in ("u1", "i2", "u2", "i4", "f4", "f8", "i8", "c8"):
        yield nibabel.Nifti1Image(volume.astype(dtype), affine, dtype=dtype).to_bytes()
    yield nibabel.Nifti2Image(volume, affine).to_bytes()
    header = nibabel.Nifti1Header(endianness=">")
    yield nibabel.Nifti1Image(volume[..., :1], affine, header).to_bytes()


def make_seeds():
    """Return a list of good files (bytes) for each kind of input."""
    border, folds = FIELDS["tumorBorder"], [1, 2, 3, 4, 5] * 12
    large = np.tile(PIXELS, (4, 4)), np.tile(MASK, (4, 4))
    slices = [(*pair, 2, "P1", border) for pair in ((PIXELS, MASK), large)]
    dtypes = ("u1", ">u2", "i2", "i8", "f2", "f4", ">f8", "?", "c8", "U2", "O")
    tiff = [encode(COLOR, "TIFF", compression=name) for name in ("packbits", "jpeg")]
    tiff.append(encode(PIXELS.astype(np.float32), "TIFF", big_tiff=True))
    tiff += make_raster_seeds("TIFF", "1 P LA RGBA CMYK LAB", compression="tiff_lzw")
    nifti = list(make_nifti_seeds())
    return {
        "mat": [write_bytes(write_mat, *values) for values in slices],
        "png": list(make_raster_seeds("PNG", "1 P LA RGBA")),
        "jpeg": list(make_raster_seeds("JPEG", "L CMYK", progressive=True)),
        "tiff": tiff,
        "npy": [write_bytes(np.save, GRAY.T.astype(dtype)) for dtype in dtypes],
        "dicom": list(find_dicom_seeds()),
        "nifti": nifti,
        "nifti-gz": [gzip.compress(seed, mtime=0) for seed in nifti],
        "pairs": [TABLE],
        "cvind": [write_bytes(write_cvind, folds)],
    }
