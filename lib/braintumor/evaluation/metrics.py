"""Metrics of masks, and of tables of predictions with optional bootstrap weights.

A metric of a table takes ``(table, weights=None)``. Without weights it returns a
float. With weights of shape (n_bootstrap, n_rows), which count how often each row
is in each resample, it returns an array of n_bootstrap values.
"""

from functools import wraps

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt

PROBABILITY_COLUMNS = ["prob_meningioma", "prob_glioma", "prob_pituitary"]
SMALLEST_PROBABILITY = 1e-6  # tables have six digits


def compute_dice(y_true, y_pred):
    """Compute the Dice coefficient of two bool masks; 1.0 if both are empty.

    References
    ----------
    Dice 1945.
    """
    total = y_true.sum() + y_pred.sum()
    return float(2 * (y_true & y_pred).sum() / total) if total else 1.0


def compute_iou(y_true, y_pred):
    """Compute intersection over union of two bool masks; 1.0 if both are empty.

    References
    ----------
    Jaccard 1912.
    """
    union = (y_true | y_pred).sum()
    return float((y_true & y_pred).sum() / union) if union else 1.0


def compute_hd95(y_true, y_pred, spacing_mm):
    """Compute the 95% Hausdorff distance between the borders of two bool masks.

    It is the 95th percentile of the distances from each border pixel of either
    mask to the nearest border pixel of the other mask, both directions pooled.

    Parameters
    ----------
    y_true, y_pred : ndarray of bool, shape (height, width)
    spacing_mm : float
        Side of a pixel in mm.

    Returns
    -------
    float
        Distance in mm: the diagonal of the image if one mask is empty, 0 if both.

    References
    ----------
    Taha and Hanbury 2015.
    """
    if not y_true.any() and not y_pred.any():
        return 0.0
    if not y_true.any() or not y_pred.any():
        return float(np.hypot(*y_true.shape) * spacing_mm)
    window = _bounding_window(y_true | y_pred)
    true_border, pred_border = _border(y_true[window]), _border(y_pred[window])
    from_true = distance_transform_edt(~pred_border)[true_border]
    from_pred = distance_transform_edt(~true_border)[pred_border]
    distances = np.concatenate([from_true, from_pred])
    return float(np.percentile(distances, 95) * spacing_mm)


def _bounding_window(mask):
    """Slices of the box around a mask, one pixel wider on each side."""
    rows, columns = np.nonzero(mask)
    return (
        slice(max(rows.min() - 1, 0), rows.max() + 2),
        slice(max(columns.min() - 1, 0), columns.max() + 2),
    )


def _border(mask):
    return mask & ~binary_erosion(mask)


def slice_metrics(y_true, y_pred, spacing_mm):
    """Compute all metrics of the predicted mask of one slice.

    Returns
    -------
    dict
        dice, iou, hd95_mm, and area_true and area_pred in pixels.
    """
    return {
        "dice": compute_dice(y_true, y_pred),
        "iou": compute_iou(y_true, y_pred),
        "hd95_mm": compute_hd95(y_true, y_pred, spacing_mm),
        "area_true": int(y_true.sum()),
        "area_pred": int(y_pred.sum()),
    }


def predict_classes(table):
    """Return the most probable class (1 to 3) of each row: int array (n_rows,)."""
    return table[PROBABILITY_COLUMNS].to_numpy().argmax(axis=1) + 1


def average_by_patient(table):
    """Average the class probabilities of each patient's slices: one row per pid."""
    columns = {"y_true": "first", "fold": "first"}
    columns |= dict.fromkeys(PROBABILITY_COLUMNS, "mean")
    return table.groupby("pid", as_index=False).agg(columns)


def _confidence(table):
    return table[PROBABILITY_COLUMNS].to_numpy().max(axis=1)


def _is_correct(table):
    return predict_classes(table) == table["y_true"].to_numpy()


def _metric(function):
    """Let a metric for weights (n_bootstrap, n_rows) do without them as well."""

    @wraps(function)
    def metric(table, weights=None, **settings):
        if weights is None:
            return float(function(table, np.ones((1, len(table))), **settings)[0])
        return function(table, weights, **settings)

    return metric


def _weighted_sum(weights, values):
    """Sum of the rows' values (n_rows, ...) in each resample: (n_bootstrap, ...)."""
    return weights @ np.asarray(values).astype(weights.dtype)


def _weighted_mean(weights, values):
    return _weighted_sum(weights, values) / weights.sum(axis=1)


def _confusion_matrices(table, weights):
    """Confusion matrix of each resample: (n_bootstrap, 3 true, 3 predicted)."""
    cells = (table["y_true"].to_numpy() - 1) * 3 + predict_classes(table) - 1
    counts = _weighted_sum(weights, cells[:, None] == np.arange(9))
    return counts.reshape(-1, 3, 3)


def _mean_of_present(numerator, denominator):
    """Mean of the ratios over classes (n_bootstrap, 3) whose denominator is not 0."""
    ratios = numerator / np.where(denominator > 0, denominator, 1)
    return ratios.sum(axis=1) / (denominator > 0).sum(axis=1)


@_metric
def accuracy(table, weights):
    """Compute the share of rows whose most probable class is the true one."""
    return _weighted_mean(weights, _is_correct(table))


@_metric
def balanced_accuracy(table, weights):
    """Compute the mean recall of the classes that are present."""
    matrices = _confusion_matrices(table, weights)
    correct = np.diagonal(matrices, axis1=1, axis2=2)
    return _mean_of_present(correct, matrices.sum(axis=2))


@_metric
def macro_f1(table, weights):
    """Compute the mean F1 score of the classes that are present or predicted."""
    matrices = _confusion_matrices(table, weights)
    correct = np.diagonal(matrices, axis1=1, axis2=2)
    return _mean_of_present(2 * correct, matrices.sum(axis=1) + matrices.sum(axis=2))


@_metric
def log_loss(table, weights):
    """Compute the cross-entropy (natural log, probabilities of at least 1e-6)."""
    columns = table["y_true"].to_numpy() - 1
    probabilities = table[PROBABILITY_COLUMNS].to_numpy()[
        np.arange(len(table)), columns
    ]
    return _weighted_mean(weights, -np.log(probabilities.clip(SMALLEST_PROBABILITY)))


def _confidence_bins(table, n_bins):
    """Equal-width bin of each row's confidence, from 0: int array (n_rows,)."""
    return np.minimum((_confidence(table) * n_bins).astype(int), n_bins - 1)


def bin_by_confidence(table, n_bins=15):
    """Group the rows in equal-width bins of confidence.

    Returns
    -------
    DataFrame
        Mean confidence, accuracy and count of each bin that has rows.
    """
    rows = pd.DataFrame(
        {"confidence": _confidence(table), "accuracy": _is_correct(table), "count": 1}
    )
    columns = {"confidence": "mean", "accuracy": "mean", "count": "size"}
    return rows.groupby(_confidence_bins(table, n_bins)).agg(columns)


@_metric
def calibration_error(table, weights, n_bins=15):
    """Compute the expected calibration error over equal-width bins of confidence.

    It is the mean of |accuracy - confidence| of the bins, weighted by their counts.

    References
    ----------
    Guo et al. 2017.
    """
    bins = _confidence_bins(table, n_bins)[:, None] == np.arange(n_bins)
    gaps = (_is_correct(table) - _confidence(table))[:, None] * bins
    return np.abs(_weighted_sum(weights, gaps)).sum(axis=1) / weights.sum(axis=1)


def select_most_confident(table, fraction=0.9):
    """Select the fraction of rows with the highest confidence, highest first."""
    order = np.argsort(-_confidence(table), kind="stable")
    return table.iloc[order[: round(fraction * len(table))]]


@_metric
def confident_accuracy(table, weights, fraction=0.9):
    """Compute the accuracy of the most confident fraction of the rows."""
    order = np.argsort(-_confidence(table), kind="stable")
    ordered = weights[:, order]
    n_selected = np.round(fraction * ordered.sum(axis=1))
    free_places = n_selected[:, None] - ordered.cumsum(axis=1) + ordered
    selected = free_places.clip(0, ordered)
    return _weighted_sum(selected, _is_correct(table)[order]) / n_selected


def temperature_scale(table, temperature):
    """Divide the logits of a table's probabilities by a temperature.

    A temperature above 1 lowers the confidence; the predicted classes stay.

    References
    ----------
    Guo et al. 2017.
    """
    probabilities = table[PROBABILITY_COLUMNS].clip(lower=SMALLEST_PROBABILITY)
    powers = probabilities ** (1 / temperature)
    return table.assign(**powers.div(powers.sum(axis=1), axis=0))


def mean_of(column):
    """Return the metric that is the mean of a column."""
    return _metric(lambda table, weights: _weighted_mean(weights, table[column]))


def fraction_of_zeros(column):
    """Return the metric that is the share of rows in which a column is 0."""
    return _metric(lambda table, weights: _weighted_mean(weights, table[column] == 0))


def median_of(column):
    """Return the metric that is the median of a column."""

    @_metric
    def median(table, weights):
        values = table[column].to_numpy()
        order = np.argsort(values)
        counts = weights[:, order].cumsum(axis=1)
        last = counts[:, -1:] - 1
        lower = (counts <= np.floor(last / 2)).sum(axis=1)
        upper = (counts <= np.ceil(last / 2)).sum(axis=1)
        return (values[order[lower]] + values[order[upper]]) / 2

    return median


def _common_pixels(table):
    return (table["dice"] * (table["area_true"] + table["area_pred"]) / 2).round()


@_metric
def pixel_recall(table, weights):
    """Compute the share of true tumor pixels that are segmented, slices pooled."""
    common = _weighted_sum(weights, _common_pixels(table))
    return common / _weighted_sum(weights, table["area_true"])


@_metric
def pixel_precision(table, weights):
    """Compute the share of segmented pixels that are tumor; 0 if there are none."""
    common = _weighted_sum(weights, _common_pixels(table))
    return common / _weighted_sum(weights, table["area_pred"]).clip(1)


def bin_tumor_sizes(areas):
    """Bin tumor areas in thirds: ordered categorical small, medium, large."""
    return pd.qcut(areas.rank(method="first"), 3, labels=["small", "medium", "large"])
