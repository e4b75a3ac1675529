"""Metrics of masks, and of tables of predictions.

Masks are bool (rows, columns), `spacing_mm` is the side of a pixel. A table has a row
per slice: pid, y_true (1 to 3), and PROBABILITY_COLUMNS or those of `slice_metrics`.
Metrics of it are floats, or (n_bootstrap,) for `weights` as from `bootstrap_weights`.
"""

from functools import wraps

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from braintumor.data.splits import patient_source
from braintumor.evaluation.masks import compute_dice, compute_iou, threshold_at_half

PROBABILITY_COLUMNS = ["prob_meningioma", "prob_glioma", "prob_pituitary"]
SMALLEST_PROBABILITY = 1e-6  # tables have six digits


def compute_hd95(y_true, y_pred, spacing_mm):
    """Compute the pooled 95% Hausdorff distance in mm (Taha and Hanbury 2015)."""
    if not (y_true.any() and y_pred.any()):
        is_empty = not (y_true.any() or y_pred.any())
        return 0.0 if is_empty else float(np.hypot(*y_true.shape) * spacing_mm)
    borders = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (y_true, y_pred)]
    distances = [KDTree(a).query(b)[0] for a, b in (borders, borders[::-1])]
    return float(np.percentile(np.concatenate(distances), 95) * spacing_mm)


def slice_metrics(y_true, y_pred, spacing_mm):
    """Compute dice, iou, hd95_mm, area_true and area_pred (pixels) of a slice: dict."""
    return {
        "dice": compute_dice(y_true, y_pred),
        "iou": compute_iou(y_true, y_pred),
        "hd95_mm": compute_hd95(y_true, y_pred, spacing_mm),
        "area_true": int(y_true.sum()),
        "area_pred": int(y_pred.sum()),
    }


def score_masks(prepared, rows, maps, threshold=threshold_at_half):
    """Compute `slice_metrics` at the slices' native sizes: a DataFrame, a row per map.

    Parameters
    ----------
    rows : (n,) int, positions in the index of the PreparedData
    maps : (n, side, side) float, probabilities
    threshold : callable(map, image_size), returns the mask at that size
    """
    scores = []
    for row, probability in zip(rows, maps, strict=True):
        y_true = prepared.native_mask(row)
        y_pred = threshold(probability, len(y_true))
        spacing_mm = prepared.index["spacing_mm"].iloc[row]
        scores.append(slice_metrics(y_true, y_pred, spacing_mm))
    return pd.DataFrame(scores)


def predict_classes(table):
    """Return the most probable class (1 to 3) of each row: int array (n_rows,)."""
    return table[PROBABILITY_COLUMNS].to_numpy().argmax(axis=1) + 1


def average_by_patient(table):
    """Average the class probabilities of each patient's slices: a row per pid."""
    columns = {"y_true": "first"} | dict.fromkeys(PROBABILITY_COLUMNS, "mean")
    return table.groupby("pid", as_index=False).agg(columns)


def _metric(function):
    """Return n_bootstrap values for weights (n_bootstrap, n_rows), a float for none."""

    @wraps(function)
    def metric(table, weights=None, **settings):
        if weights is None:
            return float(function(table, np.ones((1, len(table))), **settings)[0])
        return function(table, weights, **settings)

    return metric


def _sum(weights, values):
    return weights @ np.asarray(values).astype(weights.dtype)


def _mean(weights, values):
    return _sum(weights, values) / weights.sum(axis=1)


@_metric
def accuracy(table, weights):
    """Compute the share of rows whose most probable class is the true class."""
    return _mean(weights, _is_correct(table))


@_metric
def balanced_accuracy(table, weights):
    """Compute the mean recall of the classes that are present."""
    correct, n_true, _ = _count_classes(table, weights)
    return _mean_ratio(correct, n_true)


@_metric
def macro_f1(table, weights):
    """Compute the mean F1 score of the classes that are present or predicted."""
    correct, n_true, n_pred = _count_classes(table, weights)
    return _mean_ratio(2 * correct, n_true + n_pred)


@_metric
def log_loss(table, weights):
    """Compute the cross-entropy (natural logarithm, probabilities of 1e-6 or more)."""
    rows, columns = np.arange(len(table)), table["y_true"] - 1
    probabilities = table[PROBABILITY_COLUMNS].to_numpy()[rows, columns]
    return _mean(weights, -np.log(probabilities.clip(SMALLEST_PROBABILITY)))


@_metric
def calibration_error(table, weights, n_bins=15):
    """Compute the mean |accuracy - confidence| of bins, by count (Guo et al. 2017)."""
    bins = bin_confidence(table, n_bins)[:, None] == np.arange(n_bins)
    gaps = (_is_correct(table) - _confidence(table))[:, None] * bins
    return np.abs(_sum(weights, gaps)).sum(axis=1) / weights.sum(axis=1)


@_metric
def confident_accuracy(table, weights, fraction=0.9):
    """Compute the accuracy of the most confident fraction of the rows."""
    order = np.argsort(-_confidence(table), kind="stable")
    weights = weights[:, order]
    n_selected = np.round(fraction * weights.sum(axis=1))
    free = n_selected[:, None] - weights.cumsum(axis=1) + weights
    return _sum(free.clip(0, weights), _is_correct(table)[order]) / n_selected


@_metric
def pixel_recall(table, weights):
    """Compute the share of true tumor pixels that are segmented, slices pooled."""
    return _sum(weights, _common_pixels(table)) / _sum(weights, table["area_true"])


@_metric
def pixel_precision(table, weights):
    """Compute the share of segmented pixels that are tumor; 0 if there are none."""
    area_pred = _sum(weights, table["area_pred"]).clip(1)
    return _sum(weights, _common_pixels(table)) / area_pred


def mean_of(column):
    """Return the metric that is the mean of a column."""
    return _metric(lambda table, weights: _mean(weights, table[column]))


def fraction_of_zeros(column):
    """Return the metric that is the share of rows in which a column is 0."""
    return _metric(lambda table, weights: _mean(weights, table[column] == 0))


def median_of(column):
    """Return the metric that is the median of a column."""

    @_metric
    def median(table, weights):
        order = np.argsort(table[column].to_numpy())
        counts = weights[:, order].cumsum(axis=1)
        last = counts[:, -1:] - 1
        rows = [order[(counts <= k).sum(axis=1)] for k in (last // 2, (last + 1) // 2)]
        return table[column].to_numpy()[rows].mean(axis=0)

    return median


def by_patient(metric):
    """Return the metric of `average_by_patient`, for weights of whole patients."""

    @_metric
    def patient_metric(table, weights):
        _, first_rows = np.unique(table["pid"], return_index=True)
        return metric(average_by_patient(table), weights[:, first_rows])

    return patient_metric


def in_single_source(metric):
    """Return the metric of the rows from the source "digits", which has all classes."""

    @_metric
    def source_metric(table, weights):
        rows = table["pid"].map(patient_source).eq("digits").to_numpy()
        return metric(table[rows], weights[:, rows])

    return source_metric


def bin_confidence(table, n_bins=15):
    """Return the equal-width bin of each row's confidence: int array (n_rows,)."""
    return np.minimum((_confidence(table) * n_bins).astype(int), n_bins - 1)


def temperature_scale(table, temperature):
    """Divide the logits by a temperature, a float or a Series (Guo et al. 2017)."""
    probabilities = table[PROBABILITY_COLUMNS].clip(lower=SMALLEST_PROBABILITY)
    powers = probabilities.pow(1 / temperature, axis=0)
    return table.assign(**powers.div(powers.sum(axis=1), axis=0))


def bin_tumor_sizes(areas):
    """Bin a Series of areas in thirds: ordered categorical small, medium, large."""
    return pd.qcut(areas.rank(method="first"), 3, labels=["small", "medium", "large"])


def _confidence(table):
    return table[PROBABILITY_COLUMNS].to_numpy().max(axis=1)


def _is_correct(table):
    return predict_classes(table) == table["y_true"].to_numpy()


def _count_classes(table, weights):
    """Count correct, true and predicted rows by class: (n_bootstrap, 3) each."""
    y_true = table["y_true"].to_numpy()[:, None] == [1, 2, 3]
    y_pred = predict_classes(table)[:, None] == [1, 2, 3]
    return [_sum(weights, rows) for rows in (y_true & y_pred, y_true, y_pred)]


def _mean_ratio(numerator, denominator):
    """Average ratios (n_bootstrap, 3) over classes with a denominator above 0."""
    ratios = numerator / denominator.clip(1)
    return ratios.sum(axis=1) / (denominator > 0).sum(axis=1)


def _common_pixels(table):
    return (table["dice"] * (table["area_true"] + table["area_pred"]) / 2).round()
