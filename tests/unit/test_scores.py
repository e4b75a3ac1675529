"""Predictions of the folds of a run, their scores and differences."""

import json
from functools import partial

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.data.splits import patient_family
from braintumor.evaluation import metrics, scores

MEAN_DICE = metrics.mean_of("dice")
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
    table["pid"] = table["file"].map("{:03}".format)
    table.to_csv(folder / "predictions.csv", index=False)
    parameters = SHARED | {"fold": fold, "threads": fold} | parameters
    record = {"parameters": parameters, "data": {"digest": digest}}
    (folder / "run.json").write_text(json.dumps(record))


INCONSISTENT = {
    "differ in data": {"digest": "e"},
    "differ in epochs": {"epochs": 4},
    "slice 2": {"files": (2, 5)},
}


@pytest.mark.parametrize("field", INCONSISTENT)
def test_inconsistent_folds_are_an_error(tmp_path, field):
    write_fold(tmp_path, 1)
    write_fold(tmp_path, 2, **({"files": (3, 4)} | INCONSISTENT[field]))
    with pytest.raises(DatasetError, match=f"{tmp_path}.*{field}"):
        scores.load_predictions(tmp_path, "classify")


def test_only_requested_finished_folds_are_loaded(tmp_path):
    write_fold(tmp_path, 1, (1, 5))
    write_fold(tmp_path, 2, (3, 4), epochs=9)
    write_fold(tmp_path, 3, (2, 6), description="other", tried="x")
    table, records = scores.load_predictions(tmp_path, "classify", folds=(3, 1, 5))
    assert table["file"].tolist() == [1, 2, 5, 6]
    assert table["pid"].tolist() == ["001", "002", "005", "006"]
    assert [record["parameters"]["fold"] for record in records] == [1, 3]
    with pytest.raises(DatasetError, match="classify"):
        scores.load_predictions(tmp_path, "classify", folds=[4, 5])
    load = partial(scores.load_fold_tables, tmp_path, "classify", records)
    assert load("predictions.csv")["fold"].tolist() == [1, 1, 3, 3]
    with pytest.raises(FileNotFoundError, match="fold-1/history.csv"):
        load("history.csv")


def test_temperatures_are_fitted_by_fold():
    low_confidence = predictions([1] * 10, [1] * 7 + [2] * 3)  # 0.6 for 0.7 correct
    high_confidence = predictions([1] * 10, [1] * 4 + [2] * 6)
    folds = [low_confidence.assign(fold=1), high_confidence.assign(fold=2)]
    temperatures = scores.fit_temperatures(pd.concat(folds))
    assert temperatures[1] < 1 < temperatures[2]


def test_scores_in_mm_have_one_digit_and_are_left_out_if_not_known():
    columns = {"pid": ["a", "b"], "dice": [0.5, 0], "iou": [0.4, 0], "area_true": 10}
    table = pd.DataFrame(columns).assign(area_pred=[10, 0], hd95_mm=[2.0, None])
    summary = scores.summarize_scores(table, scores.SEGMENTATION_METRICS, 5)
    assert summary["share of empty masks"]["value"] == 0.5
    assert "median HD95 (mm)" not in summary
    table = table.fillna(3.0)
    summary = scores.summarize_scores(table, scores.SEGMENTATION_METRICS, 5)
    assert summary["median HD95 (mm)"]["value"] == 2.5
    dice = {"slices": 3, "value": 0.76012, "low": 0.7, "high": 0.8}
    hd95 = {"slices": 3, "value": 3.4641, "low": 3, "high": 3.95}
    table = scores.format_scores({"mean Dice": dice, "median HD95 (mm)": hd95})
    assert list(table) == ["slices", "value", "95% interval"]
    assert table["value"].tolist() == ["0.760", "3.5"]
    assert table["95% interval"].tolist() == ["0.700–0.800", "3.0–4.0"]


def make_table(pids, dice):
    return pd.DataFrame({"file": range(len(pids)), "pid": pids, "dice": dice})


def test_difference_is_paired_by_patient_or_family():
    table = make_table([f"{k}" for k in range(20)], dice=[k / 20 for k in range(20)])
    other = table.assign(dice=table["dice"] - 0.01).sample(frac=1, random_state=0)
    score = scores.paired_difference(table, other, MEAN_DICE, n_bootstrap=50)
    assert list(score.values()) == pytest.approx([0.01] * 3, abs=1e-6)
    with pytest.raises(DatasetError, match="file"):
        scores.paired_difference(table, other.iloc[1:], MEAN_DICE)
    pids = ["MR000001", "MR000001B", "MR000002", "MR000002B"]
    other = make_table(pids, dice=0.5)
    # each family gains as much as the other, patients do not
    table = other.assign(dice=[0.9, 0.5, 0.9, 0.5])
    score = scores.paired_difference(table, other, MEAN_DICE, 50)
    assert score["low"] < 0.2 < score["high"]
    family = {"cluster": patient_family}
    score = scores.paired_difference(table, other, MEAN_DICE, 50, **family)
    assert list(score.values()) == pytest.approx([0.2] * 3, abs=1e-6)
