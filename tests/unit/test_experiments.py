"""The experiment log."""

import json

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import log_experiment

TABLE = pd.DataFrame({"pid": list("abc"), "fold": 1, "y_true": [1, 2, 3]})
TABLE[PROBABILITY_COLUMNS] = [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.6, 0.2]]
TABLES = {"classify": TABLE}
PUBLISHED = ROOT / "results/published/full"
RECORD = json.loads((PUBLISHED / "classify/fold-1/run.json").read_text())


def test_each_evaluation_is_a_row(tmp_path):
    path = tmp_path / "new/experiments.csv"
    for eval_split in ("validation", "test"):
        log_experiment(path, 'more, and "other"', eval_split, TABLES, RECORD)
    rows = pd.read_csv(path, dtype={"commit": str})
    assert rows["eval_split"].tolist() == ["validation", "test"]
    assert rows["description"][1] == 'more, and "other"'
    assert rows["accuracy by slice"].tolist() == [0.6667, 0.6667]
    assert rows["mean Dice"].isna().all()
    commit, digest = RECORD["git"]["commit"][:10], RECORD["data"]["digest"][:12]
    first = rows.loc[0, ["commit", "n_slices", "digest"]].tolist()
    assert first == [commit, 3, digest]
    assert list(rows) == list(pd.read_csv(PUBLISHED / "experiments.csv", nrows=0))


def test_file_with_other_columns_is_an_error_and_is_not_changed(tmp_path):
    path = tmp_path / "experiments.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="experiments.csv"):
        log_experiment(path, "", "test", TABLES, RECORD)
    assert path.read_text() == "a,b\n1,2\n"
