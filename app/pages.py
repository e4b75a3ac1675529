"""The app's HTML, from the templates in app/templates/ and those of the package."""

from pathlib import Path

import numpy as np
import PIL.Image
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader
from skimage.measure import approximate_polygon, find_contours

from braintumor.data.labels import CLASS_COLORS, DATA_KINDS, LABELS, PLANES
from braintumor.data.preprocessing import MAX_SIDE
from braintumor.evaluation.masks import compute_dice
from braintumor.inference import report

N_THUMBNAILS = 20  # per page of the gallery
MAX_DISPLAY_SIZE = 1024  # pixels per side of an image on the page
PHANTOM_NOTE = (
    "These patients are synthetic. The networks were trained on real slices: "
    "predictions on synthetic slices do not apply to patients."
)
FOLDER = FileSystemLoader(Path(__file__).with_name("templates"))
ENVIRONMENT = Environment(
    loader=ChoiceLoader([FOLDER, PackageLoader("braintumor")]), autoescape=True
)


def _render(template, **context):
    return ENVIRONMENT.get_template(template).render(**context)


def render_page(max_mb):
    """Render the notice, the controls, and empty places for all else."""
    context = {"notice": report.NOTICE, "max_mb": max_mb, "max_side": MAX_SIDE}
    return _render("page.html.j2", **context)


def render_selector(name, number, count):
    """Render the slider for one of the `count` slices of a file."""
    return _render("selector.html.j2", name=name, number=number, count=count)


def render_gallery(prepared, label="", patient="", plane="", start=0):
    """Render one page of thumbnails of a PreparedData, and its filters.

    Parameters
    ----------
    label, patient, plane : str
        Class number, patient identifier and plane to show; "" for all.
    start : int
        First slice to show, of those that the filters select.
    """
    index = prepared.index
    selected = index[index["label"].astype(str) == label] if label else index
    patients = selected["pid"].value_counts().sort_index()
    patient = patient if patient in patients else ""
    selected = selected[selected["pid"] == patient] if patient else selected
    selected = selected[selected["plane"] == plane] if plane else selected
    last_page = (len(selected) - 1) // N_THUMBNAILS * N_THUMBNAILS
    start = max(0, min(int(start), last_page))
    thumbnails = [
        {
            "file": row.file,
            "alt": f"slice {row.file}, {LABELS[row.label]}, plane {row.plane}",
            "source": report.encode_png(prepared.images[row.Index]),
        }
        for row in selected.iloc[start : start + N_THUMBNAILS].itertuples()
    ]
    planes = [name for name in PLANES if (index["plane"] == name).any()]
    patient_names = {pid: f"{pid} ({count})" for pid, count in patients.items()}
    kind = prepared.info["kind"]
    return _render(
        "gallery.html.j2",
        note=PHANTOM_NOTE if kind == "phantom" else f"Dataset: {DATA_KINDS[kind]}.",
        filters=[
            ("label", "Class", label, {str(n): name for n, name in LABELS.items()}),
            ("patient", "Patient", patient, patient_names),
            ("plane", "Plane", plane, {name: name for name in planes}),
        ],
        thumbnails=thumbnails,
        start=start,
        step=N_THUMBNAILS,
        n_selected=len(selected),
    )


def render_prediction(prediction, note=""):
    """Render a prediction with its images; `note` comes first."""
    image, true_dice, true_outline = prediction.image, None, ""
    if image.mask is not None:
        true_dice = compute_dice(image.mask, prediction.mask)
        true_outline = trace_outline(image.mask)
    rows, columns = prediction.mask.shape
    return _render(
        "prediction-section.html.j2",
        result=report.to_dict(prediction),
        colors=CLASS_COLORS,
        note=note,
        view_box=f"0 0 {columns} {rows}",
        outline=trace_outline(prediction.mask),
        true_outline=true_outline,
        true_dice=true_dice,
        gray=_encode_display(report.gray_image(prediction)),
        gradcam=_encode_display(report.gradcam_overlay(prediction)),
    )


def _encode_display(pixels):
    """Encode an image for the page, where it has at most MAX_DISPLAY_SIZE pixels."""
    image = PIL.Image.fromarray(pixels)
    image.thumbnail((MAX_DISPLAY_SIZE, MAX_DISPLAY_SIZE))
    return report.encode_png(np.asarray(image))


def trace_outline(mask):
    """Trace the outline of a mask (rows, columns) as an SVG path in pixels."""
    contours = find_contours(np.pad(mask, 1), 0.5)  # padded: closed at the edges too
    path = ""
    for contour in contours:
        points = approximate_polygon(contour, 0.3)[:, ::-1] - 0.5
        path += "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
    return path
