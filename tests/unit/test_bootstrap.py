"""Intervals by bootstrap over patients."""

import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import ParameterError
from braintumor.evaluation.bootstrap import (
    bootstrap_interval,
    bootstrap_weights,
    mean_interval,
)
from braintumor.evaluation.metrics import mean_of

MEAN = mean_of("score")


@pytest.fixture
def table():
    """30 patients with ten slices each."""
    pids = np.repeat([f"P{k}" for k in range(30)], 10)
    return pd.DataFrame({"pid": pids, "score": np.random.default_rng(1).random(300)})


def test_weights_are_the_counts_of_resampled_groups():
    groups = ["b", "a", "b", "c"]
    weights = bootstrap_weights(groups, n_bootstrap=50, seed=2)
    assert weights.shape == (50, 4) and weights.dtype == np.float32
    assert (weights[:, 0] == weights[:, 2]).all()
    random = np.random.default_rng(2)
    for row in weights:
        counts = np.bincount(random.integers(3, size=3), minlength=3)
        assert row.tolist() == counts[[1, 0, 1, 2]].tolist()


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
