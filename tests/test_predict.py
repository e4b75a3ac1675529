"""From a map of probabilities to a mask."""

import numpy as np
import pytest

from braintumor import metrics
from braintumor.predict import dice_mask


def blob(side, centre, radius):
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-((rows - centre) ** 2 + (columns - centre) ** 2) / radius**2).astype(np.float32)


def test_faint_tumor_is_drawn_where_one_half_would_draw_nothing():
    faint = 0.3 * (blob(64, 30, 8) > 0.4)
    assert not (faint >= 0.5).any() and np.array_equal(dice_mask(faint, 64), faint > 0)


def test_clear_tumor_is_drawn_as_it_is_at_any_size():
    clear = (blob(64, 30, 8) > 0.4).astype(np.float32)
    assert np.array_equal(dice_mask(clear, 64), clear > 0)
    large = dice_mask(clear, 128)
    assert large.shape == (128, 128) and large.sum() == pytest.approx(4 * clear.sum(), rel=0.1)


def test_no_cut_promises_more():
    probability = 0.8 * blob(64, 25, 12) + 0.3 * blob(64, 50, 6)
    drawn = dice_mask(probability, 64)

    def promised(mask):
        return 2 * probability[mask].sum() / (mask.sum() + probability.sum())

    assert promised(drawn) == pytest.approx(max(promised(probability >= cut) for cut in np.unique(probability)))


def test_on_average_over_masks_drawn_from_the_probabilities_it_beats_one_half():
    random, probability = np.random.default_rng(0), 0.7 * blob(64, 30, 14)
    truths = [random.random(probability.shape) < probability for _ in range(50)]

    def mean_dice(mask):
        return np.mean([metrics.dice(true, mask) for true in truths])

    assert mean_dice(dice_mask(probability, 64)) > mean_dice(probability >= 0.5) + 0.02


def test_nothing_is_drawn_of_nothing():
    assert not dice_mask(np.zeros((32, 32)), 64).any()
