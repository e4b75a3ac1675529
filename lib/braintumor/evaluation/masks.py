"""Masks from probability maps, and their scores at the slices' native sizes."""

import numpy as np
import pandas as pd
from PIL import Image

from braintumor.evaluation.metrics import slice_metrics


def threshold_at_half(probability, image_size):
    """Resize a probability map linearly to a slice's native size, threshold at 0.5.

    Parameters
    ----------
    probability : ndarray, shape (side, side)
        Probability map, or a mask.
    image_size : int

    Returns
    -------
    ndarray of bool, shape (image_size, image_size)
    """
    return _resize(probability, image_size) >= 0.5


def threshold_by_expected_dice(probability, image_size):
    """Resize a probability map and threshold it where the expected Dice is greatest.

    For a slice that is known to hold a tumor: the mask is empty only if every
    probability is 0.

    Parameters
    ----------
    probability : ndarray, shape (side, side)
    image_size : int

    Returns
    -------
    ndarray of bool, shape (image_size, image_size)

    References
    ----------
    Dai and Li 2023, to first order.
    """
    resized = _resize(probability, image_size)
    ordered = np.sort(resized, axis=None)[::-1]
    sums = np.cumsum(ordered, dtype=float)
    expected = 2 * sums / (np.arange(1, sums.size + 1) + sums[-1])
    return (resized >= ordered[expected.argmax()]) & (resized > 0)


def expected_dice(probability, mask):
    """Compute the Dice that a probability map promises for a mask, to first order.

    Both have the shape (side, side). Returns a float: 0 if both are empty.
    """
    total = mask.sum() + probability.sum(dtype=float)
    return float(2 * probability[mask].sum(dtype=float) / total) if total else 0.0


def predict_masks(prepared, rows, maps):
    """Threshold the probability maps of some slices by expected Dice.

    Parameters
    ----------
    prepared : PreparedData
    rows : sequence of int
        Rows of prepared.index.
    maps : ndarray, shape (n_rows, side, side)

    Returns
    -------
    list of ndarray of bool
        Masks at the slices' native sizes.
    """
    sizes = prepared.index["size"].iloc[rows]
    return [
        threshold_by_expected_dice(probability, size)
        for probability, size in zip(maps, sizes, strict=True)
    ]


def score_masks(prepared, rows, maps):
    """Compute the metrics of predicted masks at the slices' native sizes.

    Parameters
    ----------
    prepared : PreparedData
    rows : sequence of int
        Rows of prepared.index.
    maps : sequence of ndarray
        Masks from `predict_masks`, or probability maps, to be thresholded at 0.5.

    Returns
    -------
    DataFrame
        A row per slice, with the columns of `slice_metrics`.
    """
    scores = []
    for row, probability in zip(rows, maps, strict=True):
        y_true = prepared.native_mask(row)
        y_pred = threshold_at_half(probability, len(y_true))
        spacing_mm = prepared.index["spacing_mm"].iloc[row]
        scores.append(slice_metrics(y_true, y_pred, spacing_mm))
    return pd.DataFrame(scores)


def _resize(probability, image_size):
    """Resize a map (side, side) linearly to float32 (image_size, image_size)."""
    image = Image.fromarray(np.asarray(probability, np.float32))
    return np.asarray(image.resize((image_size, image_size), Image.BILINEAR))
