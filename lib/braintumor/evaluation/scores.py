"""Predictions of the folds of a run, joined, and their scores with intervals."""

import json

import pandas as pd
from scipy.optimize import minimize_scalar

from braintumor.core.errors import require
from braintumor.core.files import ROOT
from braintumor.data.splits import FOLDS
from braintumor.evaluation import metrics
from braintumor.evaluation.bootstrap import bootstrap_interval
from braintumor.training.fold_run import NEUTRAL_PARAMETERS, read_table

# parameters in which the folds of a run may differ; the last two: in old records
VARYING_PARAMETERS = {"fold", *NEUTRAL_PARAMETERS, "tried", "change"}
BALANCED_ACCURACY = metrics.by_patient(metrics.balanced_accuracy)
CLASSIFICATION_METRICS = {
    "accuracy by slice": metrics.accuracy,
    "macro F1 by slice": metrics.macro_f1,
    "accuracy by patient": metrics.by_patient(metrics.accuracy),
    "balanced accuracy by slice": metrics.balanced_accuracy,
    "balanced accuracy by patient": BALANCED_ACCURACY,
    "single-source balanced accuracy by slice": metrics.in_single_source(
        metrics.balanced_accuracy
    ),
    "single-source balanced accuracy by patient": metrics.in_single_source(
        BALANCED_ACCURACY
    ),
    "expected calibration error": metrics.calibration_error,
    "accuracy by slice, most confident 90%": metrics.confident_accuracy,
}
SEGMENTATION_METRICS = {
    "mean Dice": metrics.mean_of("dice"),
    "median Dice": metrics.median_of("dice"),
    "mean IoU": metrics.mean_of("iou"),
    "share of zero overlap": metrics.fraction_of_zeros("dice"),
    "share of empty masks": metrics.fraction_of_zeros("area_pred"),
    "pixel recall": metrics.pixel_recall,
    "pixel precision": metrics.pixel_precision,
    "median HD95 (mm)": metrics.median_of("hd95_mm"),
}
# scores without interval, such as those of experiments.csv: {name: (task, metric)}
SUMMARY_METRICS = {
    "accuracy by slice": ("classify", metrics.accuracy),
    "balanced accuracy by patient": ("classify", BALANCED_ACCURACY),
    "cross-entropy": ("classify", metrics.log_loss),
    "expected calibration error": ("classify", metrics.calibration_error),
    "mean Dice": ("segment", metrics.mean_of("dice")),
    "share of zero overlap": ("segment", metrics.fraction_of_zeros("dice")),
}
HEADLINE_METRICS = ("accuracy by slice", "balanced accuracy by patient", "mean Dice")


def load_predictions(run, task, folds=FOLDS):
    """Load the test predictions of the finished folds of a run.

    Parameters
    ----------
    run : str, a folder such as "results/published/full"
    task : "classify" or "segment"

    Returns
    -------
    table : DataFrame, a row per slice, ordered by file number
    records : list of dict, the run.json of each fold

    Raises
    ------
    DatasetError : no fold is finished, or folds are of different runs
    """
    folder = ROOT / run / task
    paths = [folder / f"fold-{fold}" for fold in sorted(folds)]
    paths = [path for path in paths if (path / "run.json").exists()]
    remedy = "Run the notebook that trains this task with the same results folder"
    require(paths, folder, "no finished fold", "at least 1", remedy)
    records = [json.loads((path / "run.json").read_text()) for path in paths]
    table = pd.concat([read_table(path / "predictions.csv") for path in paths])
    settings = [r["parameters"] | {"data digest": r["data"]["digest"]} for r in records]
    problems = [
        f"folds that differ in {name}"
        for name in sorted(settings[0].keys() - VARYING_PARAMETERS)
        if any(other.get(name) != settings[0][name] for other in settings)
    ]
    repeated = table.loc[table["file"].duplicated(), "file"]
    problems += [f"slice {file} in two folds" for file in repeated[:1]]
    remedy = "Remove those that do not belong"
    require(not problems, folder, ", ".join(problems), "folds of one run", remedy)
    return table.sort_values("file", ignore_index=True), records


def load_fold_tables(run, task, records, name):
    """Load a table, such as history.csv, of the folds of `records`, with their fold."""
    folder, folds = ROOT / run / task, [r["parameters"]["fold"] for r in records]
    tables = [read_table(folder / f"fold-{k}" / name).assign(fold=k) for k in folds]
    return pd.concat(tables, ignore_index=True)


def fit_temperatures(validation):
    """Fit a temperature to the validation log loss of each fold (Guo et al. 2017).

    Returns
    -------
    Series of float, 0.25 to 4, by fold
    """

    def loss(temperature, table):
        return metrics.log_loss(metrics.temperature_scale(table, temperature))

    temperatures, limits = {}, (0.25, 4)  # without errors the best one is 0
    for fold, table in validation.groupby("fold"):
        temperatures[fold] = minimize_scalar(loss, bounds=limits, args=(table,)).x
    return pd.Series(temperatures)


def score_with_ci(table, metric, n_bootstrap=2000, groups="pid"):
    """Compute a metric and its 95% interval: value, low and high, at six digits.

    Parameters
    ----------
    metric : function of a table and bootstrap weights, see ``evaluation.metrics``
    groups : str or array, which column or values stay together in a resample
    """
    low, high = bootstrap_interval(table, metric, groups, n_bootstrap)
    scores = {"value": metric(table), "low": low, "high": high}
    return {name: round(float(score), 6) for name, score in scores.items()}


def summarize_scores(table, named_metrics, n_bootstrap=2000):
    """Compute metrics with intervals; without HD95 if a pixel spacing is not known."""
    return {
        name: score_with_ci(table, metric, n_bootstrap)
        for name, metric in named_metrics.items()
        if name != "median HD95 (mm)" or table["hd95_mm"].notna().all()
    }


def format_scores(scores):
    """Format {name: {value, low, high, ...}} as a table of values and intervals."""
    rows = {}
    for name, score in scores.items():
        form = ".1f" if "(mm)" in name else ".3f"  # a pixel is half a mm
        texts = {key: format(score[key], form) for key in ("value", "low", "high")}
        rows[name] = score | texts | {"95% interval": "{low}–{high}".format(**texts)}
    return pd.DataFrame.from_dict(rows, orient="index").drop(columns=["low", "high"])


def summary_metrics(tables):
    """Compute SUMMARY_METRICS of {task: table}: {name: float}."""
    return {
        name: metric(tables[task])
        for name, (task, metric) in SUMMARY_METRICS.items()
        if task in tables
    }


def paired_difference(table, other, metric, n_bootstrap=2000, cluster=str):
    """Compute metric(table) - metric(other) like `score_with_ci`, in paired resamples.

    Parameters
    ----------
    table, other : DataFrame, predictions for the same slices, else a DatasetError
    cluster : function of a pid, the group that a resample keeps together
    """
    got = f"{len(table)} and {len(other)} different slices"
    is_same = sorted(table["file"]) == sorted(other["file"])
    remedy = "Compare the same folds of both runs"
    require(is_same, "file", got, "the same slices in both tables", remedy)
    other = other.set_index("file").loc[table["file"]].reset_index()

    def difference(table, weights=None):
        return metric(table, weights) - metric(other, weights)

    return score_with_ci(table, difference, n_bootstrap, table["pid"].map(cluster))
