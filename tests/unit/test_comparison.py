"""Differences of runs, paired by patient."""

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.data.splits import patient_family
from braintumor.evaluation.metrics import mean_of
from braintumor.evaluation.scores import paired_difference

MEAN_DICE = mean_of("dice")


def make_table(pids, dice):
    return pd.DataFrame({"file": range(len(pids)), "pid": pids, "dice": dice})


def test_difference_is_paired_by_patient():
    table = make_table([f"{k}" for k in range(20)], dice=[k / 20 for k in range(20)])
    other = table.assign(dice=table["dice"] - 0.01).sample(frac=1, random_state=0)
    score = paired_difference(table, other, MEAN_DICE, n_bootstrap=50)
    assert list(score.values()) == pytest.approx([0.01] * 3, abs=1e-6)
    with pytest.raises(DatasetError, match="file"):
        paired_difference(table, other.iloc[1:], MEAN_DICE)


def test_families_can_be_resampled_whole():
    pids = ["MR000001", "MR000001B", "MR000002", "MR000002B"]
    other = make_table(pids, dice=0.5)
    # each family gains as much as the other, patients do not
    table = other.assign(dice=[0.9, 0.5, 0.9, 0.5])
    score = paired_difference(table, other, MEAN_DICE, 50)
    assert score["low"] < 0.2 < score["high"]
    score = paired_difference(table, other, MEAN_DICE, 50, cluster=patient_family)
    assert list(score.values()) == pytest.approx([0.2] * 3, abs=1e-6)
