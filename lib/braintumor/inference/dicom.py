"""Slices of DICOM files."""

import logging
import math

import numpy as np
import PIL.Image
import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGTransferSyntaxes,
)

from braintumor.core.errors import shorten
from braintumor.core.files import memory_map
from braintumor.data import raster
from braintumor.inference.nifti import to_radiological

logging.getLogger("pydicom").disabled = True  # notes on odd files are not for users


def read_dicom(path, slice_number=None):
    """Return pixels, spacing_mm (or None) and is_color of one upright frame."""
    with raster.file_errors(path, "DICOM"), memory_map(path) as content:
        syntax = _check_syntax(content)
        content.seek(0)
        dataset = pydicom.dcmread(content, force=True)
        if not syntax:
            is_implicit = dataset.original_encoding[0]
            syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = syntax
        n_frames = _check_image(dataset)
        frame = raster.select_slice(n_frames, "frame", slice_number)
        if syntax in JPEGTransferSyntaxes:
            data = dataset.PixelData
            raster.check_scans(
                pydicom.encaps.get_frame(data, frame, number_of_frames=n_frames)
            )
        pixels, is_color = pydicom.pixels.pixel_array(dataset, index=frame), False
        if pixels.ndim == 3:
            pixels, is_color = raster.to_gray(PIL.Image.fromarray(pixels))
        group = "PixelValueTransformationSequence"
        slope = _get_attribute(dataset, frame, group, "RescaleSlope")
        if slope is not None:
            intercept = _get_attribute(dataset, frame, group, "RescaleIntercept") or 0
            pixels = (pixels * float(slope) + float(intercept)).astype(np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            pixels = raster.invert(pixels)
        return *_orient(dataset, frame, pixels), is_color


def _check_syntax(content):
    """Return the transfer syntax if it can be decoded; None for bare datasets."""
    try:
        read_preamble(content, force=False)
    except pydicom.errors.InvalidDicomError:
        return None
    meta = read_dataset(content, False, True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        return None
    try:
        can_decode = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        can_decode = False
    # pydicom would inflate the whole file, to whatever size
    can_decode = can_decode and syntax != DeflatedExplicitVRLittleEndian
    remedy = f"Export it as {ExplicitVRLittleEndian.name}"
    got = shorten(syntax.name)
    raster.require(can_decode, "transfer syntax", got, "uncompressed pixels", remedy)
    return syntax


def _check_image(dataset):
    """Return the number of frames of a gray or color image within the limits."""
    meta = dataset.file_meta
    sop_class = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    remedy = "Give the file of a slice"
    raster.require(sop_class, "SOPClassUID", "none", "a DICOM image", remedy)
    has_pixels = "Rows" in dataset
    got = shorten(sop_class.name)
    raster.require(has_pixels, "SOPClassUID", got, "an MR image with pixels", remedy)
    raster.check_size(dataset.Rows, dataset.Columns)
    colors = dataset.PhotometricInterpretation
    is_known = colors.startswith(("MONOCHROME", "RGB", "YBR"))
    what, got = "PhotometricInterpretation", shorten(colors)
    raster.require(is_known, what, got, "MONOCHROME2", "Export it in gray")
    return int(dataset.get("NumberOfFrames") or 1)


def _get_attribute(dataset, frame, group, keyword):
    """Get an attribute of the image, or of the functional group of a frame, or None."""
    if keyword in dataset:
        return dataset[keyword].value
    levels = {"PerFrameFunctionalGroupsSequence": frame}
    levels["SharedFunctionalGroupsSequence"] = 0
    for level, index in levels.items():
        items = dataset.get(level) or []
        if index < len(items) and items[index].get(group):
            return items[index].get(group)[0].get(keyword)
    return None


def _orient(dataset, frame, pixels):
    """Return the pixels in radiological convention, and their spacing in mm."""
    group = "PixelMeasuresSequence"
    spacing = _get_attribute(dataset, frame, group, "PixelSpacing")
    spacing = tuple(np.ravel(spacing or ()).astype(float).tolist())
    if len(spacing) != 2 or not all(0 < mm < math.inf for mm in spacing):
        spacing = None
    group = "PlaneOrientationSequence"
    cosines = _get_attribute(dataset, frame, group, "ImageOrientationPatient")
    if not cosines or len(cosines) != 6:
        return pixels, spacing
    right, down = np.reshape(cosines, (2, 3)).astype(float)
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
