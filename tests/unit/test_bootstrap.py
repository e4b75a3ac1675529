"""Intervals by bootstrap over patients."""

import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import ParameterError
from braintumor.evaluation.bootstrap import bootstrap_interval, mean_interval
from braintumor.evaluation.metrics import mean_of

MEAN = mean_of("score")


@pytest.fixture
def table():
    """30 patients with ten slices each."""
    pids = np.repeat([f"P{k}" for k in range(30)], 10)
    return pd.DataFrame({"pid": pids, "score": np.random.default_rng(1).random(300)})


def test_interval_is_that_of_a_loop_over_resampled_tables(table):
    rows = list(table.groupby("pid").indices.values())
    random = np.random.default_rng(3)
    values = []
    for _ in range(100):
        sample = random.integers(len(rows), size=len(rows))
        resampled = table.iloc[np.concatenate([rows[k] for k in sample])]
        values.append(resampled["score"].mean())
    expected = np.percentile(values, [2.5, 97.5])
    low, high = bootstrap_interval(table, MEAN, n_bootstrap=100, seed=3)
    assert (low, high) == pytest.approx(expected, rel=1e-6)
    assert mean_interval(table["score"], table["pid"], 100, seed=3) == (low, high)
    assert bootstrap_interval(table, MEAN, n_bootstrap=100, seed=4) != (low, high)


def test_zero_resamples_are_an_error(table):
    with pytest.raises(ParameterError, match="n_bootstrap"):
        bootstrap_interval(table, MEAN, n_bootstrap=0)
