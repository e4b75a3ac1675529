"""Predictions of the folds of a run, and their scores."""

import json
from types import SimpleNamespace

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
    table, records = scores.load_predictions(tmp_path, "classify")
    assert table["file"].tolist() == [1, 2, 3, 4]
    assert table["pid"].tolist() == ["001", "002", "003", "004"]
    assert scores.score_metadata(table, records) == {
        "data": {"kind": "phantom", "digest": "d"},
        "protocol": "official",
        "folds": [1, 2],
        "slices": 4,
    }


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


def test_validation_and_history_are_loaded_by_fold(tmp_path):
    write_fold(tmp_path, 3)
    table, records = scores.load_predictions(tmp_path, "classify")
    with pytest.raises(DatasetError, match="fold-3/validation.csv"):
        scores.load_validation(tmp_path, records)
    table.to_csv(tmp_path / "classify/fold-3/validation.csv", index=False)
    validation = scores.load_validation(tmp_path, records)
    assert validation["pid"].tolist() == ["001", "002"]
    (tmp_path / "classify/fold-3/history.csv").write_text("epoch,loss\n1,2\n2,1\n")
    history = scores.load_histories(tmp_path, "classify", records)
    assert history.to_dict("list") == {
        "epoch": [1, 2],
        "loss": [2, 1],
        "fold": [3, 3],
    }


def test_fold_composition():
    columns = {
        "file": range(1, 7),
        "pid": list("aabbcc"),
        "fold": [1, 1, 2, 2, 3, 3],
        "y_true": [1, 1, 2, 2, 1, 1],
    }
    table = pd.DataFrame(columns)
    validation = pd.DataFrame(
        {"file": [3, 4, 5, 1, 2], "pid": list("bbcaa"), "fold": [1, 1, 2, 3, 3]}
    )
    parts = scores.fold_composition(table, validation, 6)
    expected = {"slices": [2, 2, 2], "patients": [1, 1, 1]}
    assert parts["test"].to_dict("list") == expected
    expected = {"slices": [2, 3, 2], "patients": [1, 2, 1]}
    assert parts["training"].to_dict("list") == expected
    assert parts.loc[1, "test patients"].tolist() == [1, 0, 0]
    unfinished = scores.fold_composition(table[table["fold"] < 3], validation, 6)
    assert "training" not in unfinished


def test_temperatures_are_fitted_by_fold():
    low_confidence = predictions([1] * 10, [1] * 7 + [2] * 3)  # 0.6 for 0.7 correct
    high_confidence = predictions([1] * 10, [1] * 4 + [2] * 6)
    folds = [low_confidence.assign(fold=1), high_confidence.assign(fold=2)]
    validation = pd.concat(folds, ignore_index=True)
    temperatures = scores.fit_temperatures(validation)
    assert temperatures[1] < 1 < temperatures[2]
    scaled = scores.apply_temperatures(validation, temperatures)
    assert metrics.log_loss(scaled) < metrics.log_loss(validation)
    assert scaled["y_true"].equals(validation["y_true"])


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


def test_summary_by_class():
    y_true = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    y_pred = [1, 1, 1, 2, 2, 2, 1, 3, 2, 1]
    frame = scores.summarize_by_class(predictions(y_true, y_pred))
    assert frame.index.tolist() == ["meningioma", "glioma", "pituitary tumor"]
    assert frame["slices"].tolist() == [4, 3, 3]
    assert frame["accuracy"].tolist() == pytest.approx([0.7, 0.7, 0.8])
    assert frame["precision"].tolist() == pytest.approx([3 / 5, 2 / 4, 1])
    assert frame["recall"].tolist() == pytest.approx([3 / 4, 2 / 3, 1 / 3])
    assert frame["F1"].tolist() == pytest.approx([6 / 9, 4 / 7, 2 / 4])


def test_summary_by_group():
    columns = {"pid": list("aabbc"), "is_correct": [1, 0, 1, 1, 1]}
    table = pd.DataFrame(columns).assign(fold=[1, 1, 2, 2, 2], plane="axial")
    groups = ["fold", "plane"]
    frame = scores.summarize_by_group(table, "is_correct", groups, n_bootstrap=50)
    assert frame.index.tolist() == [("fold", "1"), ("fold", "2"), ("plane", "axial")]
    assert frame["slices"].tolist() == [2, 3, 5]
    assert frame["patients"].tolist() == [1, 2, 3]
    assert frame["mean"].tolist() == [0.5, 1, 0.8]
    low, high = frame.loc[("plane", "axial"), ["low", "high"]]
    assert 0.5 <= low < 0.8 < high == 1
    texts = scores.format_groups(frame, "accuracy")
    assert texts["accuracy"].tolist() == ["0.500", "1.000", "0.800"]
    assert texts["95% interval"].iloc[0] == "0.500–0.500"


def test_scores_in_mm_have_one_digit():
    table = scores.format_scores(
        {
            "mean Dice": {"value": 0.76012, "low": 0.7, "high": 0.8},
            "median HD95 (mm)": {"value": 3.4641, "low": 3, "high": 3.95},
        }
    )
    assert table["value"].tolist() == ["0.760", "3.5"]
    assert table["95% interval"].tolist() == ["0.700–0.800", "3.0–4.0"]


def test_planes_are_those_of_the_data_of_the_run(monkeypatch):
    assert scores.load_planes({"kind": "figshare-jpeg"})[1] == "axial"
    index = pd.DataFrame({"file": [3, 4], "plane": ["axial", "coronal"]})
    prepared = SimpleNamespace(info={"digest": "d"}, index=index)
    monkeypatch.setattr(scores, "open_data", lambda data, image_size: prepared)
    info = {"kind": "folder", "size": 64, "digest": "d"}
    assert scores.load_planes(info) is None
    assert scores.load_planes(info, "slices").to_dict() == {3: "axial", 4: "coronal"}
    assert scores.load_planes(info | {"digest": "e"}, "slices") is None
