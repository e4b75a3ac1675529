"""Differences of runs, paired by patient."""

import json

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.data.splits import patient_family
from braintumor.evaluation.comparison import (
    compare_runs,
    comparison_table,
    paired_difference,
)
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, mean_of


def make_table(pids, **columns):
    table = pd.DataFrame({"file": range(len(pids)), "pid": pids, "fold": 1, **columns})
    table[PROBABILITY_COLUMNS] = [0.5, 0.3, 0.2]
    return table


def test_difference_is_paired_by_patient():
    pids = [f"{k}" for k in range(20)]
    table = make_table(pids, dice=[k / 20 for k in range(20)])
    other = table.assign(dice=table["dice"] - 0.01).sample(frac=1, random_state=0)
    score = paired_difference(table, other, mean_of("dice"), n_bootstrap=50)
    assert list(score.values()) == pytest.approx([0.01] * 3, abs=1e-6)


def test_different_slices_are_an_error():
    table = make_table(["a", "b"], dice=0.5)
    with pytest.raises(DatasetError, match="file"):
        paired_difference(table, table.iloc[1:], mean_of("dice"))


def test_families_can_be_resampled_whole():
    pids = ["MR000001", "MR000001B", "MR000002", "MR000002B"]
    other = make_table(pids, y_true=[1, 2, 1, 2], dice=0.5)
    # each family gains as much as the other, patients do not
    table = other.assign(dice=[0.9, 0.5, 0.9, 0.5])
    runs = [{"classify": run, "segment": run} for run in (table, other)]
    score = compare_runs(*runs, n_bootstrap=50)["mean Dice"]
    assert score["low"] < 0.2 < score["high"]
    score = compare_runs(*runs, 50, cluster=patient_family)["mean Dice"]
    assert list(score.values()) == pytest.approx([0.2] * 3, abs=1e-6)


def test_comparison_table(tmp_path):
    for name, dice, filters in (("small", 0.5, 16), ("large", 0.6, 32)):
        for task in ("classify", "segment"):
            folder = tmp_path / name / task / "fold-1"
            folder.mkdir(parents=True)
            table = make_table(list("abcd"), y_true=[1, 1, 2, 3], dice=dice)
            table.to_csv(folder / "predictions.csv", index=False)
            parameters = {"fold": 1, "task": task, "seed": 1, "filters": filters}
            record = {
                "notebook": "labs/04_joint",
                "parameters": parameters,
                "data": {"digest": "d"},
                "seconds": 90,
                "finished": "2026-01-01 00:00 UTC",
            }
            (folder / "run.json").write_text(json.dumps(record))
    table = comparison_table([tmp_path / "small", tmp_path / "large"], n_bootstrap=5)
    assert table.index.tolist() == ["small", "large"]
    assert "seed" not in table and table["filters"].tolist() == ["16", "32"]
    assert table["mean Dice"].tolist() == ["0.500", "0.600"]
    expected = ["", "+0.100 (+0.100 to +0.100)"]
    assert table["mean Dice, difference"].tolist() == expected
    assert table["minutes"].tolist() == ["1.5", "1.5"]  # one training for both tasks
