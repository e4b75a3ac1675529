"""Folds gathered into one table, and the scores of it."""

import json

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.data import splits
from braintumor.data.prepared import open_data
from braintumor.evaluation import metrics
from braintumor.evaluation import scores as evaluate


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
    table = table.assign(area_true=10, area_pred=10)
    assert "median HD95 (mm)" not in evaluate.segmentation_scores(table, draws=5)
    assert evaluate.segmentation_scores(table.fillna(3.0), draws=5)["median HD95 (mm)"]["value"] == 2.5


def test_scores_are_written_with_the_digits_that_they_hold():
    scores = {"mean Dice": {"value": 0.76012, "low": 0.7, "high": 0.8}}
    scores |= {"median HD95 (mm)": {"value": 3.4641, "low": 3, "high": 3.95}}
    shown = evaluate.score_table(scores)
    assert shown["value"].tolist() == ["0.760", "3.5"]
    assert shown["95 % interval"].tolist() == ["0.700 to 0.800", "3.0 to 4.0"]


def test_group_means_and_their_intervals():
    table = pd.DataFrame({"pid": list("aabbc"), "right": [1, 0, 1, 1, 1], "fold": [1, 1, 2, 2, 2], "plane": "axial"})
    groups = evaluate.by_group(table, "right", ["fold", "plane"], draws=50)
    assert groups.index.tolist() == [("fold", "1"), ("fold", "2"), ("plane", "axial")]
    assert groups["slices"].tolist() == [2, 3, 5] and groups["patients"].tolist() == [1, 2, 3]
    assert groups["mean"].tolist() == [0.5, 1, 0.8]
    low, high = groups.loc[("plane", "axial"), ["low", "high"]]
    assert 0.5 <= low < 0.8 < high == 1
    shown = evaluate.group_table(groups, "accuracy")
    assert shown["95 % interval"].iloc[0] == "0.500 to 0.500" and "accuracy" in shown


def test_difference_of_two_runs_is_paired_by_patient():
    pids = [f"{n}" for n in range(20)]
    table = pd.DataFrame({"file": range(20), "pid": pids, "dice": [n / 20 for n in range(20)]})
    better = table.assign(dice=table["dice"] + 0.01)
    found = evaluate.difference(better, table.sample(frac=1, random_state=0), lambda t: t["dice"].mean(), draws=50)
    assert found["value"] == pytest.approx(0.01) and found["low"] == pytest.approx(found["high"])
    with pytest.raises(DatasetError, match="20 and 19 slices to compare"):
        evaluate.difference(table, table.iloc[1:], lambda t: t["dice"].mean())


def test_difference_of_two_runs_can_draw_whole_families():
    table = pd.DataFrame(
        {
            "file": range(4),
            "pid": ["MR000001", "MR000001B", "MR000002", "MR000002B"],
            "fold": 1,
            "label": [1, 2, 1, 2],
            "dice": 0.5,
        }
    )
    table[metrics.PROBABILITIES] = [0.5, 0.3, 0.2]
    better = table.assign(dice=[0.9, 0.5, 0.9, 0.5])  # each family gains as much as the other, each patient does not
    runs = [{"classify": one, "segment": one} for one in (better, table)]
    patients, families = (
        evaluate.run_differences(*runs, draws=50, whole=whole)["mean Dice"] for whole in (str, splits.family)
    )
    assert patients["low"] < 0.2 < patients["high"]
    assert families["low"] == pytest.approx(0.2) == families["high"]


def test_temperature_of_each_fold_is_fitted_on_its_own_validation_patients(tmp_path):
    sure = calls([1] * 10, [1] * 7 + [2] * 3)  # says 0.6, and 0.7 are right
    unsure = calls([1] * 10, [1] * 4 + [2] * 6)
    validation = pd.concat([sure.assign(fold=1), unsure.assign(fold=2)], ignore_index=True)
    fitted = evaluate.temperatures(validation)
    assert fitted[1] < 1 < fitted[2]
    tempered = evaluate.all_tempered(validation, fitted)
    assert metrics.log_loss(tempered) < metrics.log_loss(validation)
    assert (metrics.predicted_label(tempered) == metrics.predicted_label(validation)).all()
    assert tempered[metrics.PROBABILITIES].sum(axis=1).tolist() == pytest.approx([1] * 20)


def test_validation_tables_are_gathered_or_asked_for(tmp_path):
    write_fold(tmp_path, 3)
    table, records = evaluate.gather(tmp_path, "classify")
    with pytest.raises(DatasetError, match="validation.csv: is not there; remove .*fold-3 and train that fold again"):
        evaluate.gather_validation(tmp_path, records)
    table.to_csv(tmp_path / "classify/fold-3/validation.csv", index=False)
    assert evaluate.gather_validation(tmp_path, records)["pid"].tolist() == ["001", "002"]


def test_parts_of_each_fold_are_counted_and_training_is_the_rest_of_the_whole():
    table = pd.DataFrame(
        {"file": range(1, 7), "pid": list("aabbcc"), "fold": [1, 1, 2, 2, 3, 3], "label": [1, 1, 2, 2, 1, 1]}
    )
    validation = pd.DataFrame({"file": [3, 4, 5, 1, 2], "pid": list("bbcaa"), "fold": [1, 1, 2, 3, 3]})
    whole = evaluate.parts_by_fold(table, validation, 6)
    assert whole["test"].to_dict("list") == {"slices": [2, 2, 2], "patients": [1, 1, 1]}
    assert whole["training"].to_dict("index") == {
        1: {"slices": 2, "patients": 1},
        2: {"slices": 3, "patients": 2},
        3: {"slices": 2, "patients": 1},
    }
    assert whole.loc[1, "patients of the test"].to_dict() == {"meningioma": 1, "glioma": 0, "pituitary tumor": 0}
    assert "training" not in evaluate.parts_by_fold(table[table["fold"] < 3], validation, 6)


def test_planes_are_known_of_figshare_and_looked_up_elsewhere(phantom_folder):
    assert evaluate.planes({"kind": "figshare-jpeg"})[1] in ("axial", "coronal", "sagittal")
    about = {"kind": "phantom", "size": 64, "digest": "other"}
    assert evaluate.planes(about) is None and evaluate.planes(about, str(phantom_folder)) is None
    prepared = open_data(str(phantom_folder), 64)
    planes = evaluate.planes(prepared.about, str(phantom_folder))
    assert planes.loc[prepared.index["file"]].tolist() == prepared.index["plane"].tolist()


def test_each_look_is_a_row_of_what_was_tried(tmp_path):
    table = calls([1, 2, 3], [1, 2, 2]).assign(pid=["a", "b", "c"], fold=1)
    record = {
        "finished": "2026-01-01 00:00 UTC",
        "git": {"commit": "0123456789abcdef"},
        "parameters": {"protocol": "official", "fold": 1, "seed": 7, "image_size": 64, "crop_to": 32, "epochs": 2},
        "seconds": 90,
        "digest": "d" * 64,
    }
    path = tmp_path / "new/tried.csv"
    for part in ("validation", "test"):
        evaluate.write_down(path, 'more, and "other"', part, {"classify": table}, record)
    rows = pd.read_csv(path, dtype={"commit": str})
    assert rows["part"].tolist() == ["validation", "test"] and rows["change"][1] == 'more, and "other"'
    assert rows["accuracy by slice"].tolist() == [0.6667, 0.6667] and rows["mean Dice"].isna().all()
    assert (rows["commit"][0], rows["minutes"][0], rows["pixels"][0]) == ("0123456789", 1.5, 32)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="its columns are a, b; expected finished, commit"):
        evaluate.write_down(path, "", "test", {"classify": table}, record)
    assert path.read_text() == "a,b\n1,2\n"
