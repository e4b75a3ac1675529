"""Predict the borders of 24 tumors: 8 good, 8 typical and 8 bad masks.

    python workflow/outlines.py DATA        DATA: slices of the published run

The slices have fixed ranks among the published Dice scores. Each is predicted by the
networks in models/ that held out its patient. Writes polygons in pixels of the slice,
and no pixels, to results/published/full/outlines.json.
"""

import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.filters import threshold_otsu
from skimage.measure import approximate_polygon, find_contours

from braintumor.core.errors import require
from braintumor.core.files import ROOT, sha256, write_json
from braintumor.data.folder import find_slices
from braintumor.data.prepared import resolve_data
from braintumor.evaluation.masks import compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference.formats import read_image
from braintumor.inference.predictor import PUBLISHED, Predictor, find_networks
from braintumor.training.provenance import collect_environment

GROUPS = {"good": (0.99, 0.9), "typical": (0.54, 0.46), "bad": (0.1, 0.01)}
N_PER_GROUP = 8  # slices, evenly spaced between these quantiles of Dice


def select_slices(masks):
    """Select the slices of GROUPS from a table with `dice`, best first."""
    ordered, parts = masks.sort_values(["dice", "file"], ignore_index=True), []
    for group, quantiles in GROUPS.items():
        ranks = np.linspace(*quantiles, N_PER_GROUP) * (len(ordered) - 1)
        parts.append(ordered.loc[ranks.round()].assign(group=group))
    return pd.concat(parts, ignore_index=True)


def trace_borders(mask, tolerance):
    """Trace the borders of a mask as lists of (x, y), to `tolerance` pixels."""
    borders = find_contours(np.pad(mask, 1), 0.5)  # closed at the edge of the slice
    polygons = [approximate_polygon(border, tolerance) for border in borders]
    return [(p[:, ::-1] - 1).round(1).tolist() for p in polygons if len(p) > 3]


def find_head(pixels):
    """Find the head, for orientation: bool, brighter than a third of Otsu's level."""
    smooth = gaussian_filter(pixels.astype(float), 3)
    return binary_fill_holes(smooth > threshold_otsu(smooth) / 3)


def predict_outlines(predictor, path, row):
    """Predict a slice; returns its outlines and their published Dice as a dict."""
    image = read_image(path)
    prediction = predictor.predict(image)
    dice = compute_dice(image.mask, prediction.mask)
    is_same, got = abs(dice - row["dice"]) < 1e-3, f"Dice {dice:.4f} of slice {path}"
    remedy = "Give the slices, and the networks, of the published run"
    require(is_same, "outlines", got, f"{row['dice']:.4f} as published", remedy)
    columns = ["file", "pid", "fold", "y_true", "dice", "group"]
    return row[columns].to_dict() | {
        "side": len(image.pixels),
        "head": max(trace_borders(find_head(image.pixels), 2), key=len),
        "true": trace_borders(image.mask, 0.5),
        "predicted": trace_borders(prediction.mask, 0.5),
    }


def write_outlines(data, out=f"{PUBLISHED}/outlines.json"):
    """Predict the selected slices and write their outlines with a run record."""
    began = time.perf_counter()
    masks, records = load_predictions(PUBLISHED, "segment")
    paths = {source.file: source.path for source in find_slices(resolve_data(data))}
    selected = select_slices(masks)
    predictors = {k: Predictor(find_networks(k)) for k in set(selected["fold"])}
    outlines = [
        predict_outlines(predictors[row["fold"]], paths[row["file"]], row)
        for _, row in selected.iterrows()
    ]
    record = {
        "notebook": "workflow/outlines.py",
        "parameters": {"data": records[0]["data"]["kind"], "n_per_group": N_PER_GROUP},
        "data": records[0]["data"],
        "networks": {p.stem: sha256(p) for p in find_networks()},
        "slices": outlines,
        "seconds": round(time.perf_counter() - began, 1),
        "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}",
    }
    write_json(ROOT / out, record | collect_environment(threads=0))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    write_outlines(sys.argv[1])
