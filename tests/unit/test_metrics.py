"""Metrics by hand, their weighted forms and intervals; masks from maps."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score

from braintumor.evaluation import masks, metrics
from braintumor.evaluation.bootstrap import bootstrap_interval, mean_interval
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
        (box(5, 5, 1, 1), box(8, 9, 1, 1), 0.5, 2.5),
        (box(0, 0, 1, 1), box(0, 31, 1, 1), 1, 31),
        # 16 of the 36 border pixels of each mask are 2 away, 4 are 1, 16 are 0
        (SQUARE, box(4, 6, 10, 10), 0.49, 0.98),
        # two far pixels are less than 5% of both borders, pooled
        (SQUARE, SQUARE | box(30, 30, 1, 1) | box(30, 0, 1, 1), 1, 0),
        (SQUARE, EMPTY, 0.5, 0.5 * 32 * np.sqrt(2)),
        (EMPTY, EMPTY, 0.5, 0),
    ],
)
def test_hd95_in_both_directions(y_true, y_pred, spacing_mm, distance):
    for pair in ((y_true, y_pred), (y_pred, y_true)):
        assert metrics.compute_hd95(*pair, spacing_mm) == pytest.approx(distance)


def test_metrics_of_patients_and_of_a_single_source():
    patients = metrics.average_by_patient(TABLE)
    assert patients["prob_glioma"].tolist() == pytest.approx([0.4, 0.8, 0.1])
    assert metrics.by_patient(metrics.accuracy)(TABLE) == 1
    # without the source of most gliomas
    table = predictions(("1", 1, 1, 0, 0), ("2", 2, 1, 0, 0), ("MR000001", 2, 0, 1, 0))
    assert metrics.in_single_source(metrics.balanced_accuracy)(table) == 0.5
    assert metrics.balanced_accuracy(table) == 0.75


@pytest.mark.parametrize("rows", [slice(None), slice(4), slice(1, 2)])
def test_metrics_of_classes_agree_with_sklearn(rows):
    table = TABLE.iloc[rows]
    y_true, y_pred = table["y_true"], metrics.predict_classes(table)
    assert metrics.accuracy(table) == pytest.approx((y_true == y_pred).mean())
    f1 = f1_score(y_true, y_pred, average="macro", zero_division=0)
    assert metrics.macro_f1(table) == pytest.approx(f1)
    recall = recall_score(y_true, y_pred, labels=y_true.unique(), average="macro")
    assert metrics.balanced_accuracy(table) == pytest.approx(recall)


def test_metrics_of_probabilities_and_their_temperature():
    table = predictions(("a", 1, 0.5, 0.25, 0.25), ("b", 2, 1, 0, 0))  # clipped
    assert metrics.log_loss(table) == pytest.approx((np.log(2) + np.log(1e6)) / 2)
    expected = (abs(2 - (0.7 + 0.7 + 0.6 + 0.5)) + abs(2 - (0.8 + 0.8))) / 6
    assert metrics.calibration_error(TABLE, n_bins=4) == pytest.approx(expected)
    assert metrics.confident_accuracy(TABLE, fraction=5 / 6) == 0.8
    table = predictions(("a", 1, 0.64, 0.32, 0.04), ("b", 2, 1, 0, 0))
    scaled = metrics.temperature_scale(table, 2)
    expected = np.array([4, np.sqrt(8), 1]) / (5 + np.sqrt(8))
    assert scaled.loc[0, PROBABILITY_COLUMNS].tolist() == pytest.approx(expected)
    assert scaled.loc[1, PROBABILITY_COLUMNS[0]] == pytest.approx(1 / 1.002)
    by_row = metrics.temperature_scale(table, pd.Series([2, 1]))
    assert by_row.loc[0].equals(scaled.loc[0])


def test_pixel_metrics_pool_the_slices_and_sizes_are_thirds():
    masks = [(SQUARE, box(4, 9, 10, 10)), (SQUARE, EMPTY)]
    table = pd.DataFrame([metrics.slice_metrics(*pair, 0.5) for pair in masks])
    assert metrics.pixel_recall(table) == 50 / 200
    assert metrics.pixel_precision(table) == 50 / 100
    assert metrics.pixel_precision(table.iloc[1:]) == 0
    assert metrics.median_of("dice")(table) == 0.25
    sizes = metrics.bin_tumor_sizes(pd.Series([50, 1, 9, 200, 9, 9])).cat
    assert sizes.codes.tolist() == [2, 0, 0, 2, 1, 1]
    assert list(sizes.categories) == ["small", "medium", "large"]


@pytest.mark.parametrize("n_rows", [40, 41])
@pytest.mark.parametrize("name", METRICS)
def test_weights_count_repeated_rows(name, n_rows):
    rng = np.random.default_rng(n_rows)
    table = pd.DataFrame(rng.dirichlet([1, 1, 1], n_rows), columns=PROBABILITY_COLUMNS)
    pids = [f"{n:04}" for n in range(4 * n_rows)]
    table = table.assign(pid=pids[:n_rows], y_true=rng.integers(1, 4, n_rows))
    table[["dice", "iou", "hd95_mm"]] = rng.random((n_rows, 3)).round(1)
    table[["area_true", "area_pred"]] = rng.integers(0, 9, (n_rows, 2))
    weights = rng.integers(0, 4, (3, n_rows)).astype(np.float32)
    expected = []
    for row in weights.astype(int):
        repeated = table.loc[table.index.repeat(row)].reset_index(drop=True)
        if "by patient" in name:  # each copy is a patient
            repeated["pid"] = pids[: len(repeated)]
        expected.append(METRICS[name](repeated))
    assert METRICS[name](table, weights) == pytest.approx(expected, rel=1e-5)


# Intervals by bootstrap over patients


def test_interval_is_that_of_a_loop_over_resampled_tables():
    pids = np.repeat([f"P{k}" for k in range(30)], 10)
    scores = np.random.default_rng(1).random(300)
    table, mean = pd.DataFrame({"pid": pids, "score": scores}), metrics.mean_of("score")
    rows = list(table.groupby("pid").indices.values())
    random = np.random.default_rng(3)
    values = []
    for _ in range(100):
        sample = random.integers(len(rows), size=len(rows))
        resampled = table.iloc[np.concatenate([rows[k] for k in sample])]
        values.append(resampled["score"].mean())
    expected = np.percentile(values, [2.5, 97.5])
    interval = bootstrap_interval(table, mean, n_bootstrap=100, seed=3)
    assert interval == pytest.approx(expected, rel=1e-6)
    assert mean_interval(table["score"], table["pid"], 100, seed=3) == interval
    assert bootstrap_interval(table, mean, n_bootstrap=100, seed=4) != interval


# Masks from probability maps


def blob(center, radius):
    """A Gaussian bump of height 1, shape (64, 64)."""
    rows, columns = np.mgrid[:64, :64]
    squares = (rows - center) ** 2 + (columns - center) ** 2
    return np.exp(-squares / radius**2).astype(np.float32)


def test_expected_dice_is_highest_at_the_threshold():
    mask = blob(30, 8) > 0.4
    for threshold in (masks.threshold_at_half, masks.threshold_by_expected_dice):
        assert np.array_equal(threshold(mask, 64), mask)
        assert threshold(mask, 128).sum() == pytest.approx(4 * mask.sum(), rel=0.1)
        assert not threshold(0 * mask, 64).any()
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
    assert metrics.score_masks(prepared, [1], maps)["dice"].tolist() == [0]
    threshold = masks.threshold_by_expected_dice
    scores = metrics.score_masks(prepared, [1], maps, threshold).iloc[0]
    assert scores["dice"] > 0.9 and scores["hd95_mm"] <= 1
    assert scores["area_true"] == 1600
