"""Predictions of the folds of a run, and their scores."""

import json

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.evaluation import metrics, scores

SHARED = {"epochs": 3, "protocol": "official", "results": "x"}


def predictions(y_true, y_pred):
    """Predictions with the confidence 0.6."""
    table = pd.DataFrame({"y_true": y_true})
    rows = [[0.6 if label == k else 0.2 for k in (1, 2, 3)] for label in y_pred]
    table[metrics.PROBABILITY_COLUMNS] = rows
    return table


def write_fold(run, fold, files=(1, 2), digest="d", **parameters):
    folder = run / "classify" / f"fold-{fold}"
    folder.mkdir(parents=True)
    table = predictions([1, 2], [1, 2]).assign(file=files, fold=fold)
    table["pid"] = [f"{file:03}" for file in files]
    table.to_csv(folder / "predictions.csv", index=False)
    record = {
        "parameters": SHARED | {"fold": fold, "threads": fold} | parameters,
        "data": {"kind": "phantom", "digest": digest},
    }
    (folder / "run.json").write_text(json.dumps(record))


def test_folds_are_joined_by_file_number(tmp_path):
    write_fold(tmp_path, 2, (1, 4), description="other", tried="x")
    write_fold(tmp_path, 1, (2, 3))
    table, _ = scores.load_predictions(tmp_path, "classify")
    assert table["file"].tolist() == [1, 2, 3, 4]
    assert table["pid"].tolist() == ["001", "002", "003", "004"]


@pytest.mark.parametrize(
    "other, field",
    [
        ({"digest": "e"}, "differ in data"),
        ({"epochs": 4}, "differ in epochs"),
        ({"files": (2, 5)}, "slice 2"),
    ],
)
def test_inconsistent_folds_are_an_error(tmp_path, other, field):
    write_fold(tmp_path, 1)
    write_fold(tmp_path, 2, **({"files": (3, 4)} | other))
    with pytest.raises(DatasetError, match=f"{tmp_path}.*{field}"):
        scores.load_predictions(tmp_path, "classify")


def test_only_requested_finished_folds_are_loaded(tmp_path):
    write_fold(tmp_path, 1, (1, 2))
    write_fold(tmp_path, 2, (3, 4), epochs=9)
    write_fold(tmp_path, 3, (5, 6))
    table, records = scores.load_predictions(tmp_path, "classify", folds=(3, 1, 5))
    assert table["file"].tolist() == [1, 2, 5, 6]
    assert [record["parameters"]["fold"] for record in records] == [1, 3]
    with pytest.raises(DatasetError, match="classify"):
        scores.load_predictions(tmp_path, "classify", folds=[4, 5])


def test_tables_of_folds_are_joined(tmp_path):
    write_fold(tmp_path, 3)
    _, records = scores.load_predictions(tmp_path, "classify")
    with pytest.raises(FileNotFoundError, match="fold-3/history.csv"):
        scores.load_fold_tables(tmp_path, "classify", records, "history.csv")
    (tmp_path / "classify/fold-3/history.csv").write_text("epoch,loss\n1,2\n")
    history = scores.load_fold_tables(tmp_path, "classify", records, "history.csv")
    assert history.to_dict("list") == {"epoch": [1], "loss": [2], "fold": [3]}


def test_temperatures_are_fitted_by_fold():
    low_confidence = predictions([1] * 10, [1] * 7 + [2] * 3)  # 0.6 for 0.7 correct
    high_confidence = predictions([1] * 10, [1] * 4 + [2] * 6)
    folds = [low_confidence.assign(fold=1), high_confidence.assign(fold=2)]
    validation = pd.concat(folds, ignore_index=True)
    temperatures = scores.fit_temperatures(validation)
    assert temperatures[1] < 1 < temperatures[2]
    fold_temperatures = validation["fold"].map(temperatures)
    scaled = metrics.temperature_scale(validation, fold_temperatures)
    assert metrics.log_loss(scaled) < metrics.log_loss(validation)


def test_classification_summary():
    table = predictions([1, 1, 2, 3], [1, 2, 2, 3]).assign(pid=list("aabc"), fold=1)
    summary = scores.summarize_classification(table, n_bootstrap=20)
    assert summary["accuracy by slice"]["value"] == 0.75
    assert summary["balanced accuracy by patient"]["value"] == 1
    for score in summary.values():
        assert score["low"] <= score["value"] <= score["high"]


def test_segmentation_summary_is_without_hd95_if_a_spacing_is_not_known():
    columns = {"pid": ["a", "b"], "dice": [0.5, 0], "iou": [0.4, 0], "area_true": 10}
    table = pd.DataFrame(columns).assign(area_pred=[10, 0], hd95_mm=[2.0, None])
    summary = scores.summarize_segmentation(table, n_bootstrap=5)
    assert summary["mean Dice"]["value"] == 0.25
    assert summary["share of empty masks"]["value"] == 0.5
    assert "median HD95 (mm)" not in summary
    summary = scores.summarize_segmentation(table.fillna(3.0), n_bootstrap=5)
    assert summary["median HD95 (mm)"]["value"] == 2.5


def test_scores_in_mm_have_one_digit():
    dice = {"slices": 3, "value": 0.76012, "low": 0.7, "high": 0.8}
    hd95 = {"slices": 3, "value": 3.4641, "low": 3, "high": 3.95}
    table = scores.format_scores({"mean Dice": dice, "median HD95 (mm)": hd95})
    assert list(table) == ["slices", "value", "95% interval"]
    assert table["value"].tolist() == ["0.760", "3.5"]
    assert table["95% interval"].tolist() == ["0.700–0.800", "3.0–4.0"]
