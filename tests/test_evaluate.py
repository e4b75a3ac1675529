"""Folds gathered into one table, and the scores of it."""

import json

import pandas as pd
import pytest

from braintumor import evaluate, metrics
from braintumor.errors import DatasetError


def write_fold(run, fold, files=(1, 2), epochs=3, digest="d"):
    folder = run / "classify" / f"fold-{fold}"
    folder.mkdir(parents=True)
    table = pd.DataFrame({"file": files, "pid": [f"{f:03}" for f in files], "fold": fold, "label": [1, 2]})
    table[metrics.PROBABILITIES] = [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3]]
    table.to_csv(folder / "predictions.csv", index=False)
    parameters = {"fold": fold, "epochs": epochs, "protocol": "official", "results": "x", "threads": fold}
    record = {"digest": f"run {fold}", "parameters": parameters, "data": {"kind": "phantom", "digest": digest}}
    (folder / "run.json").write_text(json.dumps(record))


def test_folds_become_one_table_in_order(tmp_path):
    write_fold(tmp_path, 2, (1, 4))
    write_fold(tmp_path, 1, (2, 3))
    table, records = evaluate.gather(tmp_path, "classify")
    assert table["file"].tolist() == [1, 2, 3, 4] and table["pid"].tolist() == ["001", "002", "003", "004"]
    origin = evaluate.origin(table, records)
    assert (origin["folds"], origin["slices"], origin["runs"]) == ([1, 2], 4, ["run 1", "run 2"])


@pytest.mark.parametrize(
    "other, named",
    [
        ({"digest": "e"}, "trained on different data"),
        ({"epochs": 4}, "differ in epochs"),
        ({"files": (2, 5)}, "slice 2 is predicted by two folds"),
    ],
)
def test_folds_that_do_not_belong_together_are_refused(tmp_path, other, named):
    write_fold(tmp_path, 1)
    write_fold(tmp_path, 2, **({"files": (3, 4)} | other))
    with pytest.raises(DatasetError, match=named):
        evaluate.gather(tmp_path, "classify")


def test_run_without_folds_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="holds no finished fold; run the notebook that trains them"):
        evaluate.gather(tmp_path, "segment")


def test_only_the_folds_asked_for_are_gathered(tmp_path):
    write_fold(tmp_path, 1, (1, 2))
    write_fold(tmp_path, 2, (3, 4), epochs=9, digest="e")
    write_fold(tmp_path, 3, (5, 6))
    for folds in ([1, 3], (3, 1), (1, 3, 5)):  # 5 is not finished
        table, records = evaluate.gather(tmp_path, "classify", folds=folds)
        assert table["file"].tolist() == [1, 2, 5, 6]
        assert [record["parameters"]["fold"] for record in records] == [1, 3]
    assert evaluate.gather(tmp_path, "classify", folds=[2])[0]["file"].tolist() == [3, 4]
    with pytest.raises(DatasetError, match="different data"):
        evaluate.gather(tmp_path, "classify")
    with pytest.raises(DatasetError, match="holds no finished fold"):
        evaluate.gather(tmp_path, "classify", folds=[4, 5])


def calls(labels, called):
    """A predictions table in which each slice of `labels` is called what `called` says."""
    table = pd.DataFrame({"label": labels})
    table[metrics.PROBABILITIES] = [[0.6 if label == n else 0.2 for n in (1, 2, 3)] for label in called]
    return table


def test_class_scores_by_hand():
    scores = evaluate.class_scores(calls([1, 1, 1, 1, 2, 2, 2, 3, 3, 3], [1, 1, 1, 2, 2, 2, 1, 3, 2, 1]))
    assert scores.index.tolist() == ["meningioma", "glioma", "pituitary tumor"]
    assert scores["slices"].tolist() == [4, 3, 3]
    assert scores["accuracy"].tolist() == pytest.approx([7 / 10, 7 / 10, 8 / 10])
    assert scores["precision"].tolist() == pytest.approx([3 / 5, 2 / 4, 1])
    assert scores["recall"].tolist() == pytest.approx([3 / 4, 2 / 3, 1 / 3])
    assert scores["F1"].tolist() == pytest.approx([6 / 9, 4 / 7, 2 / 4])


def test_class_that_is_never_called_or_not_there_counts_zero():
    scores = evaluate.class_scores(calls([1, 1, 3], [1, 2, 1]))
    assert scores.loc["pituitary tumor"].tolist() == pytest.approx([2 / 3, 0, 0, 0, 1])  # never called
    assert scores.loc["glioma"].tolist() == pytest.approx([2 / 3, 0, 0, 0, 0])  # not there


def test_distance_is_left_out_where_a_spacing_is_not_known():
    table = pd.DataFrame({"pid": ["a", "b"], "dice": [0.5, 1], "iou": [0.4, 1], "hd95_mm": [2.0, None]})
    assert "median HD95 (mm)" not in evaluate.segmentation_scores(table, draws=5)
    assert evaluate.segmentation_scores(table.fillna(3.0), draws=5)["median HD95 (mm)"]["value"] == 2.5
