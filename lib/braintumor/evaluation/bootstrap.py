"""Confidence intervals by bootstrap over patients, which are resampled whole.

Slices of a patient are alike: resampling slices would give too narrow an interval.
"""

import numpy as np
import pandas as pd

from braintumor.core.errors import ParameterError
from braintumor.evaluation.metrics import mean_of


def bootstrap_weights(groups, n_bootstrap=2000, seed=0):
    """Count how often each row is in each resample of whole groups (n_rows,).

    Returns a float32 array of shape (n_bootstrap, n_rows).
    """
    if n_bootstrap < 1:
        raise ParameterError(f"n_bootstrap: got {n_bootstrap}, expected 1 or more.")
    codes, names = pd.factorize(np.asarray(groups), sort=True)
    size = (n_bootstrap, len(names))
    samples = np.random.default_rng(seed).integers(len(names), size=size)
    cells = samples + np.arange(n_bootstrap)[:, None] * len(names)
    counts = np.bincount(cells.ravel(), minlength=cells.size).reshape(size)
    return counts.astype(np.float32)[:, codes]


def bootstrap_interval(table, metric, groups="pid", n_bootstrap=2000, seed=0):
    """Compute the 95% percentile interval of a metric(table, weights): low, high.

    `groups` is a column of the table or an array (n_rows,).
    """
    groups = table[groups] if isinstance(groups, str) else groups
    values = metric(table, bootstrap_weights(groups, n_bootstrap, seed))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mean_interval(values, groups, n_bootstrap=2000, seed=0):
    """Compute the 95% interval of the mean of values (n,) by bootstrap over groups."""
    table = pd.DataFrame({"value": np.asarray(values, float)})
    return bootstrap_interval(table, mean_of("value"), groups, n_bootstrap, seed)
