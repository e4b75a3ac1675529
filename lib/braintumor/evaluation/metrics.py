"""Scores of slices and patients, each defined once; and intervals by bootstrap over patients."""

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt
from sklearn.metrics import balanced_accuracy_score, f1_score

from braintumor.core.errors import ParameterError

PROBABILITIES = ["p1", "p2", "p3"]  # of meningioma, glioma, pituitary tumor


def dice(true, predicted):
    """Dice coefficient 2|A and B| / (|A| + |B|) of two bool masks (Dice 1945); 1.0 if both are empty."""
    total = true.sum() + predicted.sum()
    return 2 * np.logical_and(true, predicted).sum() / total if total else 1.0


def iou(true, predicted):
    """Intersection over union |A and B| / |A or B| of two bool masks (Jaccard 1912); 1.0 if both are empty."""
    union = np.logical_or(true, predicted).sum()
    return np.logical_and(true, predicted).sum() / union if union else 1.0


def hd95(true, predicted, spacing_mm):
    """95 % Hausdorff distance of two bool masks' outlines, in mm: the 95th percentile of all distances from a
    border pixel of one to the nearest border pixel of the other, both ways together (Taha and Hanbury 2015).

    `spacing_mm` is a pixel's side. If one mask is empty it is the diagonal of the image; 0 if both are.
    """
    if not (true.any() and predicted.any()):
        return 0.0 if true.any() == predicted.any() else float(np.hypot(*true.shape) * spacing_mm)
    rows, columns = np.nonzero(true | predicted)
    window = np.s_[max(rows.min() - 1, 0) : rows.max() + 2, max(columns.min() - 1, 0) : columns.max() + 2]
    edges = [mask[window] & ~binary_erosion(mask[window]) for mask in (true, predicted)]
    to_true, to_predicted = (distance_transform_edt(~edge) for edge in edges)
    return float(np.percentile(np.concatenate([to_predicted[edges[0]], to_true[edges[1]]]), 95) * spacing_mm)


def predicted_label(table):
    """Most probable label (1 to 3) of each row of a predictions table."""
    return table[PROBABILITIES].to_numpy().argmax(1) + 1


def by_patient(table):
    """One row a patient: the mean of its slices' probabilities, its label and fold."""
    return table.groupby("pid", as_index=False).agg(
        {"label": "first", "fold": "first"} | dict.fromkeys(PROBABILITIES, "mean")
    )


def accuracy(table):
    """Share of rows whose most probable label is the true one."""
    return float((predicted_label(table) == table["label"]).mean())


def balanced_accuracy(table):
    """Mean of the classes' recalls."""
    return float(balanced_accuracy_score(table["label"], predicted_label(table)))


def macro_f1(table):
    """Mean of the classes' F1 scores."""
    return float(f1_score(table["label"], predicted_label(table), average="macro", zero_division=0))


def log_loss(table):
    """Mean of -log of the true class's probability (natural; a probability under a millionth counts as that)."""
    given = table[PROBABILITIES].to_numpy()[np.arange(len(table)), table["label"] - 1]
    return float(-np.log(np.maximum(given, 1e-6)).mean())


def calibration_bins(table, bins=15):
    """Slices by their greatest probability, in equal-width bins: mean confidence, share right and count of each bin."""
    confidence = table[PROBABILITIES].to_numpy().max(1)
    right = predicted_label(table) == table["label"].to_numpy()
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = pd.DataFrame({"confidence": confidence, "right": right, "count": 1}).groupby(places)
    return rows.agg({"confidence": "mean", "right": "mean", "count": "size"})


def calibration_error(table, bins=15):
    """Expected calibration error: mean |share right - confidence| over `calibration_bins`, weighted by their counts
    (Guo et al. 2017)."""
    binned = calibration_bins(table, bins)
    return float(((binned["right"] - binned["confidence"]).abs() * binned["count"]).sum() / len(table))


def interval(table, statistic, groups="pid", draws=2000, seed=0):
    """95 % interval of `statistic(table)` by bootstrap: whole `groups` (patients) are drawn with replacement.

    Slices of one patient are alike, so drawing slices would give too narrow an interval. Returns
    (low, high), the 2.5th and 97.5th percentile of `draws` draws (Efron's percentile method). Raises ParameterError for
    no draws.
    """
    if draws < 1:
        raise ParameterError(f"draws is {draws}; expected 1 or more")
    rows = list(table.groupby(groups).indices.values())
    random = np.random.default_rng(seed)
    drawn = [
        statistic(table.iloc[np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])])
        for _ in range(draws)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values, groups, draws=2000, seed=0):
    """`interval` of the mean of `values` (n,) with whole `groups` (n,) drawn: the same draws, from the groups' sums.

    Some hundred times as fast, which counts where each class, plane and size has its own. Returns (low, high).
    """
    sums = pd.Series(np.asarray(values, float)).groupby(np.asarray(groups)).agg(["sum", "size"]).to_numpy()
    random = np.random.default_rng(seed)
    drawn = [sums[random.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(draws)]
    means = [total / count for total, count in drawn]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def pixel_sensitivity(table):
    """Share of the true masks' pixels, over all rows of a segmentation table together, that is drawn."""
    return float(_common_pixels(table).sum() / table["area_true"].sum())


def pixel_precision(table):
    """Share of the drawn pixels, over all rows of a segmentation table together, that is tumor; 0 if none is drawn."""
    return float(_common_pixels(table).sum() / max(table["area_pred"].sum(), 1))


def _common_pixels(table):
    return (table["dice"] * (table["area_true"] + table["area_pred"]) / 2).round()


def tempered(table, temperature):
    """A predictions table with its logits divided by `temperature`: over 1 it is less sure, and calls the same class.

    Guo et al. 2017. A probability that was written as 0 counts as one in a million.
    """
    powers = table[PROBABILITIES].clip(lower=1e-6) ** (1 / temperature)
    return table.assign(**powers.div(powers.sum(axis=1), axis=0))


def surest(table, share=0.9):
    """The `share` of a predictions table's rows whose greatest probability is greatest."""
    confidence = table[PROBABILITIES].to_numpy().max(axis=1)
    return table.iloc[np.argsort(-confidence, kind="stable")[: round(share * len(table))]]


def segmentation_scores(true, predicted, spacing_mm):
    """Scores of one slice's predicted mask (bool, native size): dice, iou, hd95_mm, area_true and area_pred."""
    return {
        "dice": dice(true, predicted),
        "iou": iou(true, predicted),
        "hd95_mm": hd95(true, predicted, spacing_mm),
        "area_true": int(true.sum()),
        "area_pred": int(predicted.sum()),
    }


def tumor_sizes(areas):
    """Thirds of tumor area, as an ordered categorical: small, medium, large."""
    return pd.qcut(areas.rank(method="first"), 3, labels=["small", "medium", "large"])
