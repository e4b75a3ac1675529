"""The experiment log."""

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.evaluation.experiments import log_experiment
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS


@pytest.fixture
def tables():
    columns = {"pid": list("abc"), "fold": 1, "y_true": [1, 2, 3]}
    table = pd.DataFrame(columns)
    table[PROBABILITY_COLUMNS] = [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.6, 0.2]]
    return {"classify": table}


@pytest.fixture
def record():
    parameters = {"protocol": "official", "fold": 1, "seed": 7, "epochs": 2}
    return {
        "finished": "2026-01-01 00:00 UTC",
        "git": {"commit": "0123456789abcdef"},
        "parameters": parameters | {"image_size": 64, "head_size": 32},
        "data": {"digest": "d" * 64},
        "seconds": 90,
    }


def test_each_evaluation_is_a_row(tmp_path, tables, record):
    path = tmp_path / "new/experiments.csv"
    for eval_split in ("validation", "test"):
        log_experiment(path, 'more, and "other"', eval_split, tables, record)
    rows = pd.read_csv(path, dtype={"commit": str})
    assert rows["eval_split"].tolist() == ["validation", "test"]
    assert rows["description"][1] == 'more, and "other"'
    assert rows["accuracy by slice"].tolist() == [0.6667, 0.6667]
    assert rows["mean Dice"].isna().all()
    first = rows.loc[0, ["commit", "minutes", "input_size", "n_slices", "digest"]]
    assert first.tolist() == ["0123456789", 1.5, 32, 3, "d" * 12]
    published = ROOT / "results/published/full/experiments.csv"
    assert list(rows) == list(pd.read_csv(published, nrows=0))


def test_file_with_other_columns_is_an_error_and_is_not_changed(
    tmp_path, tables, record
):
    path = tmp_path / "experiments.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="experiments.csv"):
        log_experiment(path, "", "test", tables, record)
    assert path.read_text() == "a,b\n1,2\n"
