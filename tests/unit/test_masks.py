"""Masks from probability maps."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from braintumor.evaluation import masks


def blob(center, radius):
    """A Gaussian bump of height 1, shape (64, 64)."""
    rows, columns = np.mgrid[:64, :64]
    squares = (rows - center) ** 2 + (columns - center) ** 2
    return np.exp(-squares / radius**2).astype(np.float32)


def test_faint_tumor_is_segmented_below_one_half():
    faint = 0.3 * (blob(30, 8) > 0.4)
    assert not masks.threshold_at_half(faint, 64).any()
    assert np.array_equal(masks.threshold_by_expected_dice(faint, 64), faint > 0)
    assert not masks.threshold_by_expected_dice(0 * faint, 64).any()


def test_clear_tumor_keeps_its_shape_at_any_size():
    mask = blob(30, 8) > 0.4
    for threshold in (masks.threshold_at_half, masks.threshold_by_expected_dice):
        assert np.array_equal(threshold(mask, 64), mask)
        assert threshold(mask, 128).sum() == pytest.approx(4 * mask.sum(), rel=0.1)


def test_no_other_threshold_has_a_higher_expected_dice():
    probability = 0.8 * blob(25, 12) + 0.3 * blob(50, 6)
    mask = masks.threshold_by_expected_dice(probability, 64)
    score = masks.expected_dice(probability, mask)
    for threshold in probability.flat:
        assert masks.expected_dice(probability, probability >= threshold) <= score


def test_masks_are_scored_at_native_size():
    y_true = np.zeros((128, 128), bool)
    y_true[40:80, 40:80] = True
    index = pd.DataFrame({"spacing_mm": [1.0, 0.5]})
    prepared = SimpleNamespace(index=index, native_mask={1: y_true}.get)
    maps = 0.3 * y_true[None, ::2, ::2].astype(np.float32)
    assert masks.score_masks(prepared, [1], maps)["dice"].tolist() == [0]
    threshold = masks.threshold_by_expected_dice
    scores = masks.score_masks(prepared, [1], maps, threshold).iloc[0]
    assert scores["dice"] > 0.9 and scores["hd95_mm"] <= 1
    assert scores["area_true"] == 1600
