"""Comparison of runs on the same slices, by differences paired by patient."""

from pathlib import Path

import pandas as pd

from braintumor.core.errors import DatasetError
from braintumor.evaluation.scores import (
    HEADLINE_METRICS,
    SUMMARY_METRICS,
    VARYING_PARAMETERS,
    load_predictions,
    score_with_ci,
)
from braintumor.training.provenance import group_by_training

TASKS = ("classify", "segment")


def paired_difference(table, other, metric, n_bootstrap=2000, cluster=str):
    """Compute metric(table) - metric(other) with its 95% interval.

    Each resample has the same patients of both tables, so what makes a patient hard
    for both cancels out.

    Parameters
    ----------
    table, other : DataFrame
        Predictions for the same slices.
    cluster : callable
        Maps a pid to what is resampled: itself, or its `splits.patient_family` if a
        run has folds grouped by family.

    Returns
    -------
    dict
        value, low and high.

    Raises
    ------
    DatasetError
        If the slices differ.
    """
    if sorted(table["file"]) != sorted(other["file"]):
        raise DatasetError(
            f"file: got {len(table)} and {len(other)} different slices, expected the "
            "same slices in both tables. Compare the same folds of both runs."
        )
    other = other.set_index("file").loc[table["file"]].reset_index()

    def difference(table, weights=None):
        return metric(table, weights) - metric(other, weights)

    return score_with_ci(table, difference, n_bootstrap, table["pid"].map(cluster))


def compare_runs(tables, others, n_bootstrap=2000, cluster=str):
    """Compute `paired_difference` of HEADLINE_METRICS of two runs, {task: table}."""
    differences = {}
    for name in HEADLINE_METRICS:
        task, metric = SUMMARY_METRICS[name]
        differences[name] = paired_difference(
            tables[task], others[task], metric, n_bootstrap, cluster
        )
    return differences


def comparison_table(runs, n_bootstrap=2000):
    """Compare runs with the first run: a DataFrame of texts with a row per run.

    Columns are the parameters in which runs differ (classify / segment, where tasks
    differ), the headline scores, their differences to the first run with 95%
    intervals, and the minutes of training.
    """
    loaded = [{task: load_predictions(run, task) for task in TASKS} for run in runs]
    tables = [{task: run[task][0] for task in TASKS} for run in loaded]
    settings, scores = [], []
    for run, run_tables in zip(loaded, tables, strict=True):
        settings.append(_format_settings([run[task][1][0] for task in TASKS]))
        row = {}
        for name in HEADLINE_METRICS:
            task, metric = SUMMARY_METRICS[name]
            row[name] = f"{metric(run_tables[task]):.3f}"
            row[f"{name}, difference"] = ""
        if run_tables is not tables[0]:
            differences = compare_runs(run_tables, tables[0], n_bootstrap)
            for name, score in differences.items():
                text = "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**score)
                row[f"{name}, difference"] = text
        trainings = group_by_training([r for task in TASKS for r in run[task][1]])
        seconds = sum(records[0]["seconds"] for records in trainings)
        scores.append(row | {"minutes": f"{seconds / 60:.1f}"})
    names = pd.Index([Path(run).name for run in runs], name="run")
    settings = pd.DataFrame(settings, names).fillna("-")
    settings = settings.loc[:, settings.nunique() > 1]
    return settings.join(pd.DataFrame(scores, names))


def _format_settings(records):
    """Parameters of the tasks' first records as texts; both values if they differ."""
    settings = {}
    for record in records:
        for name, value in record["parameters"].items():
            if name not in VARYING_PARAMETERS | {"task"}:
                settings.setdefault(name, {})[str(value)] = None
    return {name: " / ".join(values) for name, values in settings.items()}
