"""Masks from probability maps, and their scores at the slices' native sizes."""

import numpy as np
import pandas as pd
from PIL import Image

from braintumor.evaluation.metrics import slice_metrics


def threshold_at_half(probability, image_size):
    """Resize a probability map (side, side) linearly and threshold it at 0.5."""
    return _resize(probability, image_size) >= 0.5


def threshold_by_expected_dice(probability, image_size):
    """Resize a probability map and threshold it where the expected Dice is greatest.

    To first order (Dai and Li 2023), the expected Dice of the k most probable pixels is
    2 * sum(their probabilities) / (k + sum(all)). The mask is empty only if all are 0.
    """
    resized = _resize(probability, image_size)
    ordered = np.sort(resized, axis=None)[::-1]
    sums = np.cumsum(ordered, dtype=float)
    expected = 2 * sums / (np.arange(1, sums.size + 1) + sums[-1])
    return (resized >= ordered[expected.argmax()]) & (resized > 0)


def expected_dice(probability, mask):
    """Compute the expected Dice of a mask, to first order; 0 if both are empty."""
    total = mask.sum() + probability.sum(dtype=float)
    return float(2 * probability[mask].sum(dtype=float) / total) if total else 0.0


def score_masks(prepared, rows, maps, threshold=threshold_at_half):
    """Compute `slice_metrics` at the slices' native sizes: a DataFrame, a row per map.

    Parameters
    ----------
    prepared : PreparedData
    rows : (n,) int, positions in `prepared.index`
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


def _resize(probability, image_size):
    image = Image.fromarray(np.asarray(probability, np.float32))
    return np.asarray(image.resize((image_size, image_size), Image.BILINEAR))
