"""Predictions for readers: overlays, one HTML page, JSON, one row of a table."""

import base64
import io
import os

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from braintumor.core.files import atomic_write
from braintumor.core.templates import render
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import preprocess_slice
from braintumor.plots.style import CLASS_COLORS, TRUE_POSITIVE

NOTICE = (
    "For research and teaching. Not a medical device: do not use it for any decision "
    "about a person."
)
MAX_STEM = 180  # bytes; a file name has at most 255
ROW = "{:28} {:16} {:>11} {:>7} {:>9} {:>7}  {}"
COLUMNS = "image,predicted class,probability,std,area (px),mm2,box and warnings"
HEADER = ROW.format(*COLUMNS.split(","))


def gray_image(prediction):
    """Return the image as displayed: uint8 (rows, columns)."""
    square = prediction.image.square_pixels
    return prediction.image.crop_to_image(preprocess_slice(square, len(square)))


def mask_overlay(prediction, opacity=0.35):
    """Return the image with mask and outline in blue: uint8 (rows, columns, 3)."""
    mask = prediction.mask
    color = np.array(matplotlib.colors.to_rgb(TRUE_POSITIVE)) * 255
    overlay = np.repeat(gray_image(prediction)[..., None], 3, axis=2).astype(float)
    overlay[mask] += opacity * (color - overlay[mask])
    line_width = max(1, len(mask) // 256)
    overlay[mask & ~binary_erosion(mask, iterations=line_width)] = color
    return overlay.astype(np.uint8)


def gradcam_overlay(prediction, opacity=0.5):
    """Return the image under its Grad-CAM map: uint8 (rows, columns, 3)."""
    colors = matplotlib.colormaps["magma"](prediction.gradcam)[..., :3] * 255
    alpha = opacity * prediction.gradcam[..., None]
    gray = gray_image(prediction)[..., None]
    return ((1 - alpha) * gray + alpha * colors).astype(np.uint8)


def encode_png(image):
    """Encode a uint8 image, gray or RGB, as a PNG data URL."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_dict(prediction):
    """Convert a prediction to a dict of JSON types."""
    area, agreement = prediction.area_mm2, prediction.mask_agreement
    std = float(prediction.probability_std[prediction.label - 1])
    probabilities = prediction.probabilities.astype(float).round(4).tolist()
    return {
        "image": prediction.image.name,
        "predicted_class": LABELS[prediction.label],
        "probabilities": dict(zip(LABELS.values(), probabilities, strict=True)),
        "probability_std": round(std, 4),
        "area_pixels": int(prediction.mask.sum()),
        "area_mm2": None if area is None else round(area, 1),
        "box": prediction.box,
        "mask_agreement": None if agreement is None else round(agreement, 4),
        "ood_scores": prediction.ood_scores,
        "warnings": prediction.warnings,
        "model_folds": list(prediction.model_folds),
        "true_class": LABELS.get(prediction.image.label),
    }


def format_row(prediction):
    """Format a prediction as a row under `HEADER`."""
    index, area = prediction.label - 1, prediction.area_mm2
    warnings = "".join(f"; WARNING: {text}" for text in prediction.warnings)
    return ROW.format(
        prediction.image.name,
        LABELS[prediction.label],
        f"{prediction.probabilities[index]:.3f}",
        f"{prediction.probability_std[index]:.3f}",
        f"{prediction.mask.sum():,}",
        "-" if area is None else f"{area:.0f}",
        f"{prediction.box or 'empty mask'}{warnings}",
    )


def render_report(prediction):
    """Render a prediction as one HTML page that needs no other file."""
    return render(
        "report.html.j2",
        result=to_dict(prediction),
        notice=NOTICE,
        colors=CLASS_COLORS,
        gray=encode_png(gray_image(prediction)),
        mask=encode_png(mask_overlay(prediction)),
        gradcam=encode_png(gradcam_overlay(prediction)),
    )


def write_report(prediction, directory, stem):
    """Write STEM.mask.png, STEM.overlay.png and STEM.html into a folder."""
    mask = prediction.mask.astype(np.uint8) * 255
    for name, image in (("mask", mask), ("overlay", mask_overlay(prediction))):
        with atomic_write(directory / f"{stem}.{name}.png") as path:
            Image.fromarray(image).save(path, format="PNG")
    with atomic_write(directory / f"{stem}.html") as path:
        path.write_text(render_report(prediction), encoding="utf-8")


def unique_stems(paths):
    """Return {path: file name}; equal names get a number, long names are cut."""
    stems, used = {}, set()
    for path in paths:
        name = os.fsencode(path.name)[:MAX_STEM].decode(errors="ignore")
        stem, number = name, 1
        while stem in used:
            number += 1
            stem = f"{name}-{number}"
        used.add(stem)
        stems[path] = stem
    return stems
