"""Masks from probability maps, and their overlap with others.

Maps are float (side, side), masks bool (image_size, image_size).
"""

import numpy as np
from PIL import Image


def threshold_at_half(probability, image_size):
    """Resize a probability map (side, side) linearly and threshold it at 0.5."""
    return resize_map(probability, image_size) >= 0.5


def threshold_by_expected_dice(probability, image_size):
    """Resize a map linearly and threshold it where the expected Dice is greatest.

    To first order (Dai and Li 2023), the expected Dice of the k most probable pixels is
    2 * sum(their probabilities) / (k + sum(all)). The mask is empty only if all are 0.
    """
    resized = resize_map(probability, image_size)
    ordered = np.sort(resized, axis=None)[::-1]
    sums = np.cumsum(ordered, dtype=float)
    expected = 2 * sums / (np.arange(1, sums.size + 1) + sums[-1])
    return (resized >= ordered[expected.argmax()]) & (resized > 0)


def expected_dice(probability, mask):
    """Compute the expected Dice of a mask, to first order; 0 if both are empty."""
    total = mask.sum() + probability.sum(dtype=float)
    return float(2 * probability[mask].sum(dtype=float) / total) if total else 0.0


def compute_dice(y_true, y_pred):
    """Compute 2|A and B| / (|A| + |B|) of bool masks, 1.0 if empty (Dice 1945)."""
    total = y_true.sum() + y_pred.sum()
    return float(2 * (y_true & y_pred).sum() / total) if total else 1.0


def compute_iou(y_true, y_pred):
    """Compute |A and B| / |A or B| of bool masks, 1.0 if empty (Jaccard 1912)."""
    dice = compute_dice(y_true, y_pred)
    return dice / (2 - dice)


def resize_map(probability, image_size):
    """Resize a map (side, side) linearly: float32 (image_size, image_size)."""
    image = Image.fromarray(np.asarray(probability, np.float32))
    return np.asarray(image.resize((image_size, image_size), Image.BILINEAR))
