"""Functions that labs define: the log of experiments, the original study's splits."""

import json

import numpy as np
import pandas as pd
import pytest
from samples import find_cell

from braintumor.core.errors import DatasetError, require
from braintumor.core.files import ROOT
from braintumor.data.splits import Split
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import SUMMARY_METRICS, summary_metrics

PUBLISHED = ROOT / "results/published/full"
RECORD = json.loads((PUBLISHED / "residual/classify/fold-1/run.json").read_text())


@pytest.fixture(scope="module")
def lab():
    """The functions of the lab, by name."""
    names = {"pd": pd, "require": require, "SUMMARY_METRICS": SUMMARY_METRICS}
    names["summary_metrics"] = summary_metrics
    for function in ("describe_experiment", "append_row"):
        exec(find_cell("labs/04_joint", f"def {function}("), names)
    return names


def test_each_evaluation_is_a_row(lab, tmp_path):
    table = pd.DataFrame({"y_true": [1, 2, 3], "pid": ["a", "b", "c"], "fold": 1})
    table[PROBABILITY_COLUMNS] = [[0.8, 0.1, 0.1], [0, 1, 0], [0, 1, 0]]
    path, text = tmp_path / "new/experiments.csv", 'more, and "other"'
    for eval_split in ("validation", "test"):
        tables = {"classify": table}
        row = lab["describe_experiment"](text, eval_split, tables, RECORD)
        lab["append_row"](path, row)
    rows = pd.read_csv(path, dtype={"commit": str})
    assert rows["eval_split"].tolist() == ["validation", "test"]
    assert rows["description"][1] == 'more, and "other"'
    assert rows["accuracy by slice"].tolist() == [0.6667, 0.6667]
    assert rows["mean Dice"].isna().all()
    commit, digest = RECORD["git"]["commit"][:10], RECORD["data"]["digest"][:12]
    first = rows.loc[0, ["commit", "n_slices", "digest"]].tolist()
    assert first == [commit, 3, digest]
    assert list(rows) == list(pd.read_csv(PUBLISHED / "experiments.csv", nrows=0))
    with pytest.raises(DatasetError, match="experiments.csv"):  # other columns
        lab["append_row"](path, {"a": 1, "c": 2})
    assert rows.equals(pd.read_csv(path, dtype={"commit": str}))


@pytest.fixture(scope="module")
def make_original_split():
    """The function of the lab."""
    names = {"np": np, "Split": Split}
    exec(find_cell("labs/08_original", "def make_original_split("), names)
    return names["make_original_split"]


def make_files(n):
    """An index of n slices, in another order than their numbers."""
    return pd.DataFrame({"file": np.random.default_rng(0).permutation(n) + 1})


SIZES = {("single", 3000): [2184, 458, 358], ("ensemble", 3000): [2400, 299, 301]}
SIZES["single", None] = [2231, 467, 366]


def test_parts_have_their_sizes_and_test_slices_do_not_train(make_original_split):
    for (name, n_exported), sizes in SIZES.items():
        index = make_files(3064)
        parts = make_original_split(index, name, 0, n_exported).parts().values()
        assert [len(rows) for rows in parts] == sizes
        numbers = set(index["file"].iloc[np.concatenate(list(parts))])
        assert numbers == set(range(1, (n_exported or 3064) + 1))
    for index in (make_files(3064), make_files(20)):
        single = make_original_split(index, "single", 5, 3000)
        ensemble = make_original_split(index, "ensemble", 5, 3000)
        assert set(ensemble.test) <= set(single.test)
        assert not set(single.test) & set(ensemble.train)
