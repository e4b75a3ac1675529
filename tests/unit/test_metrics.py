"""Metrics against values computed by hand, and their weighted forms."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from braintumor.evaluation import metrics
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import CLASSIFICATION_METRICS, SEGMENTATION_METRICS

METRICS = CLASSIFICATION_METRICS | SEGMENTATION_METRICS
METRICS["cross-entropy"] = metrics.log_loss


def box(top, left, height, width):
    mask = np.zeros((32, 32), bool)
    mask[top : top + height, left : left + width] = True
    return mask


EMPTY = np.zeros((32, 32), bool)
SQUARE = box(4, 4, 10, 10)


def predictions(*rows):
    """Predictions from rows of (pid, y_true, three probabilities)."""
    columns = ["pid", "y_true", *PROBABILITY_COLUMNS]
    return pd.DataFrame(rows, columns=columns).assign(fold=1)


TABLE = predictions(
    ("A", 1, 0.7, 0.2, 0.1),
    ("A", 1, 0.2, 0.7, 0.1),
    ("A", 1, 0.6, 0.3, 0.1),
    ("B", 2, 0.1, 0.8, 0.1),
    ("C", 3, 0.5, 0.1, 0.4),
    ("C", 3, 0.1, 0.1, 0.8),
)


@pytest.mark.parametrize(
    "y_true, y_pred, dice",
    [
        (SQUARE, SQUARE, 1),
        (SQUARE, box(4, 9, 10, 10), 0.5),
        (SQUARE, box(4, 4, 5, 10), 2 / 3),
        (SQUARE, box(20, 20, 5, 5), 0),
        (EMPTY, SQUARE, 0),
        (EMPTY, EMPTY, 1),
    ],
)
def test_dice_and_iou(y_true, y_pred, dice):
    assert metrics.compute_dice(y_true, y_pred) == pytest.approx(dice)
    assert metrics.compute_iou(y_true, y_pred) == pytest.approx(dice / (2 - dice))


@pytest.mark.parametrize(
    "y_true, y_pred, spacing_mm, distance",
    [
        (box(5, 5, 1, 1), box(5, 8, 1, 1), 0.5, 1.5),
        (box(5, 5, 1, 1), box(8, 9, 1, 1), 0.5, 2.5),
        (box(0, 0, 1, 1), box(0, 31, 1, 1), 1, 31),
        (box(0, 0, 32, 32), box(0, 0, 32, 32), 1, 0),
        (SQUARE, SQUARE, 0.49, 0),
        # 16 of the 36 border pixels of each mask are 2 away, 4 are 1, 16 are 0
        (SQUARE, box(4, 6, 10, 10), 0.49, 0.98),
        # two far pixels are less than 5% of both borders, pooled
        (SQUARE, SQUARE | box(30, 30, 1, 1) | box(30, 0, 1, 1), 1, 0),
        # an eighth of the border, but few of the mask's pixels
        (box(4, 4, 24, 24), box(2, 4, 26, 24), 1, 2),
        (SQUARE, EMPTY, 0.5, 0.5 * 32 * np.sqrt(2)),
        (EMPTY, EMPTY, 0.5, 0),
    ],
)
def test_hd95_in_both_directions(y_true, y_pred, spacing_mm, distance):
    for pair in ((y_true, y_pred), (y_pred, y_true)):
        assert metrics.compute_hd95(*pair, spacing_mm) == pytest.approx(distance)


def test_accuracy_metrics():
    assert metrics.predict_classes(TABLE).tolist() == [1, 2, 1, 2, 1, 3]
    assert metrics.accuracy(TABLE) == pytest.approx(4 / 6)
    assert metrics.balanced_accuracy(TABLE) == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    f1_scores = [2 * 2 / 6, 2 * 1 / 3, 2 * 1 / 3]
    assert metrics.macro_f1(TABLE) == pytest.approx(np.mean(f1_scores))


def test_patient_metrics_are_of_mean_probabilities():
    patients = metrics.average_by_patient(TABLE)
    assert patients["pid"].tolist() == ["A", "B", "C"]
    assert patients["y_true"].tolist() == [1, 2, 3]
    assert patients.loc[0, PROBABILITY_COLUMNS].tolist() == pytest.approx(
        [0.5, 0.4, 0.1]
    )
    assert metrics.by_patient(metrics.accuracy)(TABLE) == 1
    weights = np.array([[2, 2, 2, 0, 1, 1.0]])
    assert metrics.by_patient(metrics.accuracy)(TABLE, weights).tolist() == [1]


def test_metrics_with_classes_not_predicted_or_not_present_agree_with_sklearn():
    for y_true in ([1, 2, 3], [1, 2, 2]):
        table = predictions(*((str(k), y, 0.9, 0.1, 0) for k, y in enumerate(y_true)))
        y_pred = metrics.predict_classes(table)
        f1 = f1_score(y_true, y_pred, average="macro", zero_division=0)
        assert metrics.macro_f1(table) == pytest.approx(f1)
        balanced = balanced_accuracy_score(y_true, y_pred)
        assert metrics.balanced_accuracy(table) == pytest.approx(balanced)


def test_log_loss_clips_probabilities():
    table = predictions(("a", 1, 0.5, 0.25, 0.25), ("b", 2, 1, 0, 0))
    expected = (np.log(2) + np.log(1e6)) / 2
    assert metrics.log_loss(table) == pytest.approx(expected)


def test_calibration_error():
    table = predictions(
        ("A", 1, 0.9, 0.05, 0.05),
        ("A", 2, 0.92, 0.04, 0.04),
        ("B", 1, 0.55, 0.25, 0.2),
        ("C", 3, 0.05, 0.05, 0.9),
    )
    expected = abs(2 - (0.9 + 0.92 + 0.9)) / 4 + abs(1 - 0.55) / 4
    assert metrics.calibration_error(table, n_bins=10) == pytest.approx(expected)
    assert metrics.bin_confidence(table, n_bins=10).tolist() == [9, 9, 5, 9]


def test_accuracy_of_the_most_confident_rows():
    confidences = (0.9, 0.5, 0.8, 0.95)
    rows = [(str(k), 1 + (p == 0.8), p, 1 - p, 0) for k, p in enumerate(confidences)]
    accuracy = metrics.confident_accuracy(predictions(*rows), fraction=0.75)
    assert accuracy == pytest.approx(2 / 3)


def test_pixel_metrics_pool_the_slices():
    masks = [(SQUARE, box(4, 9, 10, 10)), (SQUARE, EMPTY)]
    table = pd.DataFrame([metrics.slice_metrics(*pair, 0.5) for pair in masks])
    assert metrics.pixel_recall(table) == 50 / 200
    assert metrics.pixel_precision(table) == 50 / 100
    assert metrics.pixel_precision(table.iloc[1:]) == 0


def test_temperature_divides_logits_and_keeps_the_class():
    table = predictions(("a", 1, 0.64, 0.32, 0.04), ("b", 2, 1, 0, 0))
    scaled = metrics.temperature_scale(table, 2)
    expected = np.array([4, np.sqrt(8), 1]) / (5 + np.sqrt(8))
    assert scaled.loc[0, PROBABILITY_COLUMNS].tolist() == pytest.approx(expected)
    assert scaled.loc[1, PROBABILITY_COLUMNS[0]] == pytest.approx(1 / 1.002)
    by_row = metrics.temperature_scale(table, pd.Series([2, 1]))
    assert by_row.loc[0].equals(scaled.loc[0])


def test_tumor_sizes_are_ordered_thirds():
    sizes = metrics.bin_tumor_sizes(pd.Series([50, 1, 9, 9, 9, 200]))
    expected = ["large", "small", "small", "medium", "medium", "large"]
    assert sizes.tolist() == expected and sizes.cat.ordered
    assert list(sizes.cat.categories) == ["small", "medium", "large"]


@pytest.mark.parametrize("n_rows", [40, 41])
@pytest.mark.parametrize("name", [*METRICS])
def test_weights_count_repeated_rows(name, n_rows):
    random = np.random.default_rng(n_rows)
    rows = random.dirichlet([1, 1, 1], n_rows)
    table = pd.DataFrame(rows, columns=PROBABILITY_COLUMNS).assign(
        pid=range(n_rows), fold=1, y_true=random.integers(1, 4, n_rows)
    )
    table[["dice", "iou", "hd95_mm"]] = random.random((n_rows, 3)).round(1)
    table[["area_true", "area_pred"]] = random.integers(0, 9, (n_rows, 2))
    weights = random.integers(0, 4, (3, n_rows)).astype(np.float32)
    repeated = [table.loc[table.index.repeat(row.astype(int))] for row in weights]
    if "by patient" in name:  # each copy is a patient
        repeated = [part.assign(pid=range(len(part))) for part in repeated]
    expected = [METRICS[name](part.reset_index(drop=True)) for part in repeated]
    assert METRICS[name](table, weights) == pytest.approx(expected, rel=1e-5)


def test_median_of_a_column_is_that_of_pandas():
    random = np.random.default_rng(0)
    for n_rows in (1, 2, 7, 8):
        table = pd.DataFrame({"dice": random.random(n_rows)})
        assert metrics.median_of("dice")(table) == table["dice"].median()
