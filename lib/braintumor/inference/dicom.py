"""Slices of DICOM files."""

import logging
import math

import numpy as np
import PIL.Image
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset, read_preamble

from braintumor.core.errors import require, shorten
from braintumor.core.files import memory_map
from braintumor.data import raster
from braintumor.inference.nifti import to_radiological

FUNCTIONAL_GROUPS = {
    "PixelSpacing": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
logging.getLogger("pydicom").disabled = True  # notes on odd files are not for users


def read_dicom(path, slice_number=None):
    """Return pixels, spacing_mm (or None) and is_color of one upright frame."""
    with memory_map(path) as content:
        _refuse_deflated(content)
        dataset = pydicom.dcmread(content, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # no preamble: not compressed
            syntaxes = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian
            is_implicit = bool(dataset.original_encoding[0])
            dataset.file_meta.TransferSyntaxUID = syntaxes[is_implicit]
        n_frames = _check_image(dataset)
        frame = raster.select_slice(n_frames, "frame", slice_number)
        if dataset.file_meta.TransferSyntaxUID in uid.JPEGTransferSyntaxes:
            get_frame, data = pydicom.encaps.get_frame, dataset.PixelData
            raster.check_scans(get_frame(data, frame, number_of_frames=n_frames))
        pixels, is_color = pydicom.pixels.pixel_array(dataset, index=frame), False
    if pixels.ndim == 3:
        pixels, is_color = raster.to_gray(PIL.Image.fromarray(pixels))
    slope = _get_attribute(dataset, frame, "RescaleSlope")
    if slope is not None:
        intercept = _get_attribute(dataset, frame, "RescaleIntercept") or 0
        pixels = (pixels * float(slope) + float(intercept)).astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = raster.invert(pixels)
    return *_orient(dataset, frame, pixels), is_color


def _refuse_deflated(content):
    """Refuse a deflated file, which pydicom would inflate to whatever size."""
    read_preamble(content, force=True)
    meta = read_dataset(content, False, True, stop_when=lambda tag, *_: tag.group != 2)
    syntax, remedy = meta.get("TransferSyntaxUID"), "Export it without compression"
    deflated, what = uid.DeflatedExplicitVRLittleEndian, "transfer syntax"
    require(syntax != deflated, what, deflated.name, "another one", remedy)
    content.seek(0)


def _check_image(dataset):
    """Return the number of frames of a gray or color image within the limits."""
    kind = shorten(getattr(dataset.get("SOPClassUID"), "name", "none"))
    remedy = "Give the file of a slice"
    require("Rows" in dataset, "SOPClassUID", kind, "an MR image", remedy)
    raster.check_size(dataset.Rows, dataset.Columns)
    what, colors = "PhotometricInterpretation", dataset.PhotometricInterpretation
    is_known = colors.startswith(("MONOCHROME", "RGB", "YBR"))
    require(is_known, what, shorten(colors), "MONOCHROME2", "Export it in gray")
    return int(dataset.get("NumberOfFrames") or 1)


def _get_attribute(dataset, frame, keyword):
    """Get an attribute of the image, or of the functional group of a frame, or None."""
    if keyword in dataset:
        return dataset[keyword].value
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in [*frames[frame : frame + 1], *shared[:1]]:
        if group := groups.get(FUNCTIONAL_GROUPS[keyword]):
            return group[0].get(keyword)
    return None


def _orient(dataset, frame, pixels):
    """Return the pixels in radiological convention, and their spacing in mm."""
    spacing = _get_attribute(dataset, frame, "PixelSpacing")
    spacing = tuple(np.ravel(spacing or ()).astype(float).tolist())
    if len(spacing) != 2 or not all(0 < mm < math.inf for mm in spacing):
        spacing = None
    cosines = _get_attribute(dataset, frame, "ImageOrientationPatient") or ()
    cosines = np.ravel(cosines).astype(float)
    right, down = cosines.reshape(2, 3) if cosines.size == 6 else np.zeros((2, 3))
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
