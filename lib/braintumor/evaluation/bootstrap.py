"""Confidence intervals by bootstrap over patients, which are resampled whole."""

import numpy as np
import pandas as pd

from braintumor.evaluation.metrics import mean_of


def bootstrap_weights(groups, n_bootstrap=2000, seed=0):
    """Count each row in resamples of whole groups: float32 (n_bootstrap, n_rows).

    `groups` is an array (n_rows,), such as the patient of each slice.
    """
    codes, names = pd.factorize(np.asarray(groups), sort=True)
    size = (n_bootstrap, len(names))
    samples = np.random.default_rng(seed).integers(len(names), size=size)
    cells = samples + np.arange(n_bootstrap)[:, None] * len(names)
    counts = np.bincount(cells.ravel(), minlength=cells.size).reshape(size)
    return counts.astype(np.float32)[:, codes]


def bootstrap_interval(table, metric, groups="pid", n_bootstrap=2000, seed=0):
    """Compute the 95% interval of metric(table, weights); groups: column or array."""
    groups = table[groups] if isinstance(groups, str) else groups
    values = metric(table, bootstrap_weights(groups, n_bootstrap, seed))
    return tuple(np.percentile(values, [2.5, 97.5]).tolist())


def mean_interval(values, groups, n_bootstrap=2000, seed=0):
    """Compute the 95% interval of the mean of values (n,) by bootstrap over groups."""
    table = pd.DataFrame({"value": np.asarray(values, float)})
    return bootstrap_interval(table, mean_of("value"), groups, n_bootstrap, seed)
