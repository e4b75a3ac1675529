"""Comparison of runs on the same slices, by differences paired by patient."""

from braintumor.core.errors import DatasetError
from braintumor.evaluation.scores import score_with_ci


def paired_difference(table, other, metric, n_bootstrap=2000, cluster=str):
    """Score metric(table) - metric(other) with resamples paired by cluster(pid)."""
    if sorted(table["file"]) != sorted(other["file"]):
        raise DatasetError(
            f"file: got {len(table)} and {len(other)} different slices, expected the "
            "same slices in both tables. Compare the same folds of both runs."
        )
    other = other.set_index("file").loc[table["file"]].reset_index()

    def difference(table, weights=None):
        return metric(table, weights) - metric(other, weights)

    return score_with_ci(table, difference, n_bootstrap, table["pid"].map(cluster))
