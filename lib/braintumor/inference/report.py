"""Predictions for readers: overlays, one HTML page, JSON, one row of a table."""

import base64
import io
import logging
import os
import re

import numpy as np
from PIL import Image, ImageColor
from scipy.ndimage import binary_erosion

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT, atomic_write
from braintumor.core.templates import render
from braintumor.data.labels import CLASS_COLORS, LABELS, MASK_COLOR
from braintumor.data.preprocessing import preprocess_slice

NOTICE = (
    "For research and teaching. Not a medical device: do not use it for any decision "
    "about a person."
)
HEADER = (
    f"{'image':28} {'predicted class':16} probability     std area (px)     mm2  "
    "box and warnings"
)


def gray_image(prediction):
    """Return the image as displayed: uint8 (rows, columns)."""
    square = prediction.image.square_pixels
    return prediction.image.crop_to_image(preprocess_slice(square, len(square)))


def mask_overlay(prediction):
    """Return the image with mask and outline in blue: uint8 (rows, columns, 3)."""
    mask, color = prediction.mask, np.divide(ImageColor.getrgb(MASK_COLOR), 255)
    inside = binary_erosion(mask, iterations=max(1, len(mask) // 256))
    return _blend(prediction, color, np.where(inside, 0.35, mask))


def gradcam_overlay(prediction):
    """Return the image under its Grad-CAM map: uint8 (rows, columns, 3)."""
    import matplotlib  # takes as long as a prediction

    colors = matplotlib.colormaps["magma"](prediction.gradcam)[..., :3]
    return _blend(prediction, colors, 0.5 * prediction.gradcam)


def _blend(prediction, colors, opacity):
    gray, opacity = gray_image(prediction)[..., None], opacity[..., None]
    return (gray + opacity * (np.multiply(colors, 255) - gray)).astype(np.uint8)


def encode_png(image):
    """Encode a uint8 image, gray or RGB, as a PNG data URL."""
    Image.fromarray(image).save(buffer := io.BytesIO(), format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_dict(prediction):
    """Convert a prediction to a dict of JSON types; the box's ends are exclusive."""
    image, mask = prediction.image, prediction.mask
    spacing = image.spacing_mm
    std = prediction.probability_std.astype(float).round(4).tolist()
    probabilities = prediction.probabilities.astype(float).round(4).tolist()
    return {
        "image": image.name,
        "predicted_class": LABELS[prediction.label],
        "probabilities": dict(zip(LABELS.values(), probabilities, strict=True)),
        "probability_std": std[prediction.label - 1],
        "area_pixels": int(mask.sum()),
        "area_mm2": round(float(mask.sum() * np.prod(spacing)), 1) if spacing else None,
        # top, left, bottom, right; None if the mask is empty
        "box": Image.fromarray(mask.T).getbbox(),
        "mask_agreement": prediction.mask_agreement,
        "ood_scores": prediction.ood_scores,
        "warnings": prediction.warnings,
        "networks": list(prediction.networks),
        "true_class": LABELS.get(image.label),
    }


def format_row(result):
    """Format a prediction, as a dict of `to_dict`, as a row under `HEADER`."""
    name, area = result["predicted_class"], result["area_mm2"]
    row = f"{result['image']:28} {name:16} {result['probabilities'][name]:11.3f} "
    row += f"{result['probability_std']:7.3f} {result['area_pixels']:9,} "
    row += f"{'-' if area is None else format(area, '.0f'):>7}  "
    warnings = [f"WARNING: {text}" for text in result["warnings"]]
    return row + "; ".join([str(result["box"] or "empty mask"), *warnings])


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
    """Return {path: file name}; equal names get a number, long names are shortened."""
    stems = {}
    for path in paths:
        name = os.fsencode(path.name)[:180].decode(errors="ignore")  # of 255 bytes
        stem, number = name, 1
        while stem in stems:
            number += 1
            stem = f"{name}-{number}"
        stems[stem] = path
    return {path: stem for stem, path in stems.items()}


def write_notebook_report(notebook, parameters, path):
    """Execute a notebook and write its outputs as one HTML file, without a network.

    A cell that fails raises DatasetError with its message.
    """
    import nbconvert
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    options = {"cwd": str(ROOT), "extra_arguments": ["--log-level=CRITICAL"]}
    try:
        page = papermill.execute_notebook(notebook, None, parameters, **options)
    except papermill.PapermillExecutionError as error:
        raise DatasetError(error.evalue) from None
    except DeadKernelError:
        problem = "the kernel died, often for lack of memory. Give fewer images."
        raise DatasetError(f"{notebook.name}: {problem}") from None
    for cell in page.cells:
        cell.source = re.sub(r"^\([\w-]+\)=\n+", "", cell.source)  # labels of MyST
        if "remove-output" in cell.metadata.get("tags", []):
            cell.outputs = []
    exporter = nbconvert.HTMLExporter(exclude_input=True)
    html, _ = exporter.from_notebook_node(page, {"metadata": {"name": path.stem}})
    html = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)  # of formulas
    with atomic_write(path) as temporary:
        temporary.write_text(html, "utf-8")
