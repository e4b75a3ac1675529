"""Writers of small image files for the tests of the readers."""

import struct

import nibabel
import numpy as np
import PIL.Image
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, MRImageStorage
from samples import BORDER, MASK, SIDE

from braintumor.core.errors import DatasetError
from braintumor.data.figshare import write_mat
from braintumor.inference.formats import read_image

PIXELS = np.random.default_rng(0).integers(0, 4000, (SIDE, SIDE)).astype(np.uint16)
WIDE = PIXELS[:20]  # (20, 32)
GRAY = (WIDE // 16).astype(np.uint8)
RAS = np.diag([0.75, 0.5, 4, 1])  # affine of an axial slice


def refuse(path, *words, slice_number=None):
    """Check that reading raises a DatasetError that names the file once."""
    with pytest.raises(DatasetError) as caught:
        read_image(path, slice_number)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.count(str(path)) == 1
    assert all(word in message for word in words) and message.isprintable(), message
    return caught.value


def save(path, array, **settings):
    PIL.Image.fromarray(array).save(path, **settings)
    return path


def as_volume(pixels):
    """An axial slice in RAS+ order: to the right, to the front, one slice."""
    return pixels[::-1, ::-1].T[..., None]


def write_nifti(path, volume, affine=RAS, image_class=nibabel.Nifti1Image):
    nibabel.save(image_class(volume, affine), path)
    return path


def make_dicom(pixels, storage=MRImageStorage, without=(), **attributes):
    """A dataset of (rows, columns), (frames, rows, columns) or (rows, columns, 3)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    dataset.SOPInstanceUID = UID("1.2.3.4")
    dataset.PatientID, dataset.PatientName = "SECRET-17", "Secret^Name"
    dataset.Modality = "MR"
    dataset.PixelSpacing = [0.5, 0.75]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    colors = "RGB" if pixels.shape[2:] == (3,) else "MONOCHROME2"
    dataset.set_pixel_data(pixels, colors, pixels.itemsize * 8)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    for name in without:
        del dataset[name]
    return dataset


def make_jpeg_dicom(content, syntax=JPEGBaseline8Bit, pixels=GRAY):
    """A dataset with the bytes of a compressed image like `pixels`."""
    dataset = make_dicom(pixels, PixelData=encapsulate([content]))
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def encode_lossless_jpeg(pixels):
    """Encode 16-bit pixels as JPEG Lossless: differences to the left, coded plainly."""
    rows, columns = pixels.shape
    table = bytes([0x00, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])  # 17 codes of 5 bits
    header = struct.pack(">BHHBBBB", 16, rows, columns, 1, 1, 0x11, 0)
    segments = {0xC4: table, 0xC3: header, 0xDA: bytes([1, 1, 0, 1, 0, 0])}
    jpeg = b"\xff\xd8"
    for marker, content in segments.items():
        jpeg += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    left = np.hstack([np.vstack([[[2**15]], pixels[:-1, :1]]), pixels[:, :-1]])
    bits = ""
    for difference in (pixels.astype(int) - left).ravel().tolist():
        size = abs(difference).bit_length()
        value = difference if difference > 0 else difference + 2**size - 1
        bits += f"{size:05b}" + (f"{value:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    content = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return jpeg + content.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def save_dicom(path, dataset, **settings):
    dataset.save_as(path, enforce_file_format=True, **settings)
    return path


def write_dicom(path, pixels, **attributes):
    return save_dicom(path, make_dicom(pixels, **attributes))


def write_jpeg_scans(path, n_more):
    """A progressive JPEG whose last scan is repeated `n_more` times."""
    save(path, GRAY, progressive=True)
    content = path.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * n_more + content[-2:])
    return path


WRITERS = {  # every format with the same slice
    "slice.mat": lambda path: write_mat(path, PIXELS, MASK, 2, "MR040240B", BORDER),
    "slice.png": lambda path: save(path, PIXELS),
    "slice.tif": lambda path: save(path, PIXELS),
    "packed.tiff": lambda path: save(path, PIXELS, compression="tiff_lzw"),
    "slice.npy": lambda path: np.save(path, PIXELS),
    "slice.dcm": lambda path: write_dicom(path, PIXELS),
    "slice.nii": lambda path: write_nifti(path, as_volume(PIXELS)),
    "slice.nii.gz": lambda path: write_nifti(path, as_volume(PIXELS)),
    "second.nii.gz": lambda path: write_nifti(
        path, as_volume(PIXELS), image_class=nibabel.Nifti2Image
    ),
}
