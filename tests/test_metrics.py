"""Scores against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import ParameterError
from braintumor.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    by_patient,
    calibration_error,
    dice,
    hd95,
    interval,
    iou,
    log_loss,
    macro_f1,
    mean_interval,
    pixel_precision,
    pixel_sensitivity,
    predicted_label,
    segmentation_scores,
    surest,
    tempered,
    tumor_sizes,
)


def box(top, left, height, width, shape=(32, 32)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


EMPTY = np.zeros((32, 32), bool)
SQUARE = box(4, 4, 10, 10)


def predictions(*rows):
    """A predictions table of (pid, label, p1, p2, p3)."""
    return pd.DataFrame(rows, columns=["pid", "label", "p1", "p2", "p3"]).assign(fold=1)


# Masks.


@pytest.mark.parametrize(
    "true, predicted, expected_dice, expected_iou",
    [
        (SQUARE, SQUARE, 1, 1),
        (SQUARE, box(4, 9, 10, 10), 0.5, 1 / 3),
        (SQUARE, box(4, 4, 5, 10), 2 / 3, 0.5),
        (SQUARE, box(20, 20, 5, 5), 0, 0),
        (SQUARE, EMPTY, 0, 0),
        (EMPTY, SQUARE, 0, 0),
        (EMPTY, EMPTY, 1, 1),
    ],
    ids=["same", "half-shifted", "half-inside", "apart", "nothing-found", "nothing-there", "both-empty"],
)
def test_dice_and_iou_by_hand(true, predicted, expected_dice, expected_iou):
    assert dice(true, predicted) == pytest.approx(expected_dice)
    assert iou(true, predicted) == pytest.approx(expected_iou)


def test_two_pixels_three_apart_at_half_a_millimetre():
    assert hd95(box(5, 5, 1, 1), box(5, 8, 1, 1), 0.5) == pytest.approx(1.5)
    assert hd95(box(5, 5, 1, 1), box(8, 9, 1, 1), 0.5) == pytest.approx(2.5)


def test_pixels_at_the_edge_of_the_image():
    assert hd95(box(0, 0, 1, 1), box(0, 31, 1, 1), 1) == pytest.approx(31)
    assert hd95(box(0, 0, 32, 32), box(0, 0, 32, 32), 1) == 0


def test_same_outline_is_no_distance_apart():
    assert hd95(SQUARE, SQUARE, 0.49) == 0


def test_shifted_squares():
    """Shifted by 2: 16 of an outline's 36 pixels are 2 from the other outline, 4 are 1 and 16 are on it."""
    other = box(4, 6, 10, 10)
    assert hd95(SQUARE, other, 1) == np.percentile(2 * ([2] * 16 + [1] * 4 + [0] * 16), 95) == 2
    assert hd95(SQUARE, other, 0.49) == pytest.approx(0.98)
    assert hd95(other, SQUARE, 1) == hd95(SQUARE, other, 1)


def test_far_specks_of_under_five_percent_of_both_outlines_do_not_count():
    """Two of 36 + 38 outline pixels; of the one outline's 38 they would be more than 5 %."""
    assert hd95(SQUARE, SQUARE | box(30, 30, 1, 1) | box(30, 0, 1, 1), 1) == 0
    assert hd95(SQUARE, SQUARE | box(26, 20, 4, 10), 1) > 10


def test_inner_pixels_do_not_dilute_the_distance():
    """One side is 2 further out: an eighth of the outlines, but 48 of 1200 pixels."""
    assert hd95(box(4, 4, 24, 24), box(2, 4, 26, 24), 1) == 2


def test_empty_prediction_is_the_diagonal_of_the_image():
    assert hd95(SQUARE, EMPTY, 0.5) == pytest.approx(0.5 * 32 * np.sqrt(2))
    assert hd95(EMPTY, SQUARE, 0.5) == pytest.approx(0.5 * 32 * np.sqrt(2))
    assert hd95(EMPTY, EMPTY, 0.5) == 0


def test_scores_of_one_slice():
    scores = segmentation_scores(SQUARE, box(4, 4, 5, 10), 0.5)
    assert (scores["area_true"], scores["area_pred"]) == (100, 50)
    assert scores["dice"] == pytest.approx(2 / 3) and scores["iou"] == pytest.approx(0.5)
    assert scores["hd95_mm"] == pytest.approx(hd95(SQUARE, box(4, 4, 5, 10), 0.5))


# Labels.

TABLE = predictions(
    ("A", 1, 0.7, 0.2, 0.1),
    ("A", 1, 0.2, 0.7, 0.1),
    ("A", 1, 0.6, 0.3, 0.1),
    ("B", 2, 0.1, 0.8, 0.1),
    ("C", 3, 0.5, 0.1, 0.4),
    ("C", 3, 0.1, 0.1, 0.8),
)


def test_accuracies_by_hand():
    assert predicted_label(TABLE).tolist() == [1, 2, 1, 2, 1, 3]
    assert accuracy(TABLE) == pytest.approx(4 / 6)
    assert balanced_accuracy(TABLE) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert macro_f1(TABLE) == pytest.approx((2 * 2 / 6 + 2 * 1 / 3 + 2 * 1 / 3) / 3)


def test_patient_scores_are_the_mean_of_the_slices():
    patients = by_patient(TABLE)
    assert patients["pid"].tolist() == ["A", "B", "C"] and patients["label"].tolist() == [1, 2, 3]
    assert patients.loc[0, ["p1", "p2", "p3"]].tolist() == pytest.approx([0.5, 0.4, 0.1])
    assert patients.loc[2, ["p1", "p2", "p3"]].tolist() == pytest.approx([0.3, 0.1, 0.6])
    assert patients["fold"].eq(1).all()
    assert accuracy(patients) == 1


def test_class_that_is_never_predicted_scores_zero():
    table = predictions(("A", 1, 0.9, 0.1, 0), ("B", 2, 0.9, 0.1, 0), ("C", 3, 0.9, 0.1, 0))
    assert accuracy(table) == pytest.approx(1 / 3)
    assert balanced_accuracy(table) == pytest.approx(1 / 3)
    assert macro_f1(table) == pytest.approx(1 / 6)


def test_calibration_error_by_hand():
    table = predictions(
        ("A", 1, 0.9, 0.05, 0.05), ("A", 2, 0.92, 0.04, 0.04), ("B", 1, 0.55, 0.25, 0.2), ("C", 3, 0.05, 0.05, 0.9)
    )
    # ten bins: 0.9, 0.92 and 0.9 in one, of which two are right; 0.55 in another, right
    expected = abs(2 / 3 - (0.9 + 0.92 + 0.9) / 3) * 3 / 4 + abs(1 - 0.55) * 1 / 4
    assert calibration_error(table, bins=10) == pytest.approx(expected)
    assert calibration_error(table, bins=1) == pytest.approx(abs(3 / 4 - (0.9 + 0.92 + 0.55 + 0.9) / 4))


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    assert calibration_error(predictions(("A", 1, 1, 0, 0), ("B", 3, 0, 0, 1))) == 0
    assert calibration_error(predictions(("A", 2, 1, 0, 0), ("B", 2, 0, 0, 1))) == 1


# Intervals.


@pytest.fixture(scope="module")
def correlated():
    """30 patients of ten slices each: all slices of a patient are right, or all are wrong."""
    right = np.random.default_rng(0).random(30) < 0.7
    rows = [(f"P{n}", 1, 0.8, 0.1, 0.1) if right[n] else (f"P{n}", 1, 0.1, 0.8, 0.1) for n in range(30)]
    return predictions(*[row for row in rows for _ in range(10)])


def test_interval_is_the_same_for_the_same_seed(correlated):
    def mean_confidence(table):
        return table["confidence"].mean()

    table = correlated.assign(confidence=np.random.default_rng(1).random(len(correlated)))
    first = interval(table, mean_confidence, draws=50, seed=3)
    assert interval(table, mean_confidence, draws=50, seed=3) == first
    assert interval(table, mean_confidence, draws=50, seed=4) != first


def test_interval_without_draws_is_refused(correlated):
    with pytest.raises(ParameterError, match="draws is 0; expected 1 or more"):
        interval(correlated, accuracy, draws=0)


def test_interval_holds_the_point_value(correlated):
    low, high = interval(correlated, accuracy, draws=300)
    assert 0 <= low < accuracy(correlated) < high <= 1


def test_interval_over_patients_is_that_of_the_binomial(correlated):
    """Thirty independent patients: about 1.96 standard errors to each side."""
    low, high = interval(correlated, accuracy, draws=1000)
    p = accuracy(correlated)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 30), rel=0.15)


def test_interval_over_slices_of_alike_patients_is_too_narrow(correlated):
    low, high = interval(correlated, accuracy, draws=300)
    slices = correlated.assign(slice=np.arange(len(correlated)))
    narrow_low, narrow_high = interval(slices, accuracy, groups="slice", draws=300)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_interval_of_one_patient_is_a_point():
    table = TABLE[TABLE["pid"] == "A"]
    assert interval(table, accuracy, draws=20) == pytest.approx((2 / 3, 2 / 3))


def test_tumor_sizes_are_thirds_in_order():
    sizes = tumor_sizes(pd.Series([50, 1, 9, 9, 9, 200]))
    assert sizes.tolist() == ["large", "small", "small", "medium", "medium", "large"]
    assert list(sizes.cat.categories) == ["small", "medium", "large"] and sizes.cat.ordered


def test_interval_of_a_mean_is_that_of_the_slow_way():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"pid": random.integers(20, size=200).astype(str), "dice": random.random(200)})
    slow = interval(table, lambda t: t["dice"].mean(), draws=100, seed=3)
    assert mean_interval(table["dice"], table["pid"], draws=100, seed=3) == pytest.approx(slow)


def test_pixels_are_counted_over_all_slices_together():
    rows = [segmentation_scores(SQUARE, box(4, 9, 10, 10), 0.5), segmentation_scores(SQUARE, EMPTY, 0.5)]
    table = pd.DataFrame(rows)
    assert pixel_sensitivity(table) == 50 / 200 and pixel_precision(table) == 50 / 100
    assert pixel_precision(table.iloc[1:]) == 0


def test_log_loss_by_hand():
    table = predictions(("a", 1, 0.5, 0.25, 0.25), ("b", 2, 1, 0, 0))
    assert log_loss(table) == pytest.approx((np.log(2) + np.log(1e6)) / 2)


def test_temperature_divides_logits_and_keeps_the_call():
    table = predictions(("a", 1, 0.64, 0.32, 0.04), ("b", 2, 1, 0, 0))
    softer = tempered(table, 2)
    assert softer.loc[0, ["p1", "p2", "p3"]].tolist() == pytest.approx(np.sqrt([16, 8, 1]) / np.sqrt([16, 8, 1]).sum())
    assert softer["p1"][1] == pytest.approx(1 / 1.002) and table["p1"][1] == 1
    assert tempered(table, 1)["p2"][0] == pytest.approx(0.32)


def test_surest_leave_out_the_least_sure():
    table = predictions(*((str(n), 1, p, 1 - p, 0) for n, p in enumerate((0.9, 0.5, 0.8, 0.95))))
    assert surest(table, 0.75)["pid"].tolist() == ["3", "0", "2"]
    assert len(surest(table, 1)) == 4
