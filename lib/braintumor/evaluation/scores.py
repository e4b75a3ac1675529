"""Predictions of the folds of a run, joined, and their scores with intervals."""

import json

import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_fscore_support

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data.figshare import load_figshare_index
from braintumor.data.labels import LABELS
from braintumor.data.prepared import open_data
from braintumor.data.splits import FOLDS
from braintumor.evaluation import metrics
from braintumor.evaluation.bootstrap import bootstrap_interval, mean_interval
from braintumor.training.fold_run import NEUTRAL_PARAMETERS, read_table

# parameters in which the folds of a run may differ; the last two: in old records
VARYING_PARAMETERS = {"fold", *NEUTRAL_PARAMETERS, "tried", "change"}
CLASSIFICATION_METRICS = {
    "accuracy by slice": metrics.accuracy,
    "macro F1 by slice": metrics.macro_f1,
    "accuracy by patient": metrics.by_patient(metrics.accuracy),
    "balanced accuracy by patient": metrics.by_patient(metrics.balanced_accuracy),
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
    "balanced accuracy by patient": (
        "classify",
        CLASSIFICATION_METRICS["balanced accuracy by patient"],
    ),
    "cross-entropy": ("classify", metrics.log_loss),
    "expected calibration error": ("classify", metrics.calibration_error),
    "mean Dice": ("segment", SEGMENTATION_METRICS["mean Dice"]),
    "share of zero overlap": ("segment", SEGMENTATION_METRICS["share of zero overlap"]),
}
HEADLINE_METRICS = ("accuracy by slice", "balanced accuracy by patient", "mean Dice")


def load_predictions(run, task, folds=FOLDS):
    """Load the test predictions of the finished folds of a task.

    Parameters
    ----------
    run : str or Path
        Folder below the project, such as results/published/full, or absolute path.
    task : str
        Folder in it, such as classify or segment.

    Returns
    -------
    table : DataFrame
        Predictions of all folds, by file number.
    records : list of dict
        run.json of each fold.

    Raises
    ------
    DatasetError
        If no fold is finished, folds differ in data or settings, or share a slice.
    """
    folder = ROOT / run / task
    paths = [folder / f"fold-{fold}" for fold in sorted(folds)]
    paths = [path for path in paths if (path / "run.json").exists()]
    if not paths:
        raise DatasetError(
            f"{folder}: got no finished fold, expected at least 1. "
            "Run the notebook that trains this task with the same results folder."
        )
    records = [json.loads((path / "run.json").read_text()) for path in paths]
    check_consistent_runs(folder, records)
    table = pd.concat([read_table(path / "predictions.csv") for path in paths])
    repeated = table.loc[table["file"].duplicated(), "file"]
    if len(repeated):
        raise DatasetError(
            f"{folder}: got slice {repeated.iloc[0]} in two folds, expected one. "
            "Remove the fold that does not belong."
        )
    return table.sort_values("file", ignore_index=True), records


def check_consistent_runs(folder, records, varying=()):
    """Raise DatasetError if run.json dicts of a folder differ in data or settings.

    `varying` names parameters that may differ, besides VARYING_PARAMETERS.
    """
    first = records[0]["parameters"]
    differing = {
        name
        for name in first.keys() - VARYING_PARAMETERS - set(varying)
        if any(record["parameters"].get(name) != first[name] for record in records)
    }
    if len({record["data"]["digest"] for record in records}) > 1:
        differing.add("data")
    if differing:
        raise DatasetError(
            f"{folder}: got folds that differ in {', '.join(sorted(differing))}, "
            "expected the same in all. Remove the folds that do not belong."
        )


def score_metadata(table, records):
    """Return data, protocol, folds and number of slices of the scores: a dict."""
    return {
        "data": records[0]["data"],
        "protocol": records[0]["parameters"]["protocol"],
        "folds": [record["parameters"]["fold"] for record in records],
        "slices": len(table),
    }


def load_validation(run, records):
    """Load the validation predictions of classification folds, with a column fold.

    A patient may be in the validation part of several folds.
    """
    return _load_tables(run, "classify", records, "validation.csv")


def load_histories(run, task, records):
    """Load history.csv of the folds of `records`, with a column fold."""
    return _load_tables(run, task, records, "history.csv")


def _load_tables(run, task, records, name):
    tables = []
    for fold in [record["parameters"]["fold"] for record in records]:
        path = ROOT / run / task / f"fold-{fold}" / name
        if not path.exists():
            raise DatasetError(
                f"{path}: got no file, expected a table. "
                f"Remove {path.parent} and train fold {fold} again."
            )
        tables.append(read_table(path).assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def fold_composition(table, validation, n_slices):
    """Count slices and patients in the parts of each fold, and test patients by class.

    The training part is counted if `table` holds all `n_slices` slices of the data.
    Returns a DataFrame with a row per fold and columns (part, slices or patients).
    """
    rows = {}
    for fold, test in table.groupby("fold"):
        parts = {"test": test, "validation": validation[validation["fold"] == fold]}
        if len(table) == n_slices:
            held_out = pd.concat(parts.values())["file"]
            parts["training"] = table[~table["file"].isin(held_out)]
        rows[fold] = row = {}
        for name, part in parts.items():
            row[name, "slices"] = len(part)
            row[name, "patients"] = part["pid"].nunique()
        for label, tumor in LABELS.items():
            patients = test.loc[test["y_true"] == label, "pid"].nunique()
            row["test patients", tumor] = patients
    return pd.DataFrame(rows).T.rename_axis("fold")


def fit_temperatures(validation):
    """Fit a temperature to each fold's validation log loss: Series by fold.

    Temperatures are limited to 0.25 to 4: without errors the best one is 0.
    """

    def loss(temperature, table):
        return metrics.log_loss(metrics.temperature_scale(table, temperature))

    temperatures = {}
    for fold, table in validation.groupby("fold"):
        fit = minimize_scalar(loss, bounds=(0.25, 4), args=(table,))
        temperatures[fold] = fit.x
    return pd.Series(temperatures)


def apply_temperatures(table, temperatures):
    """Scale each fold's predictions by its temperature (Series by fold)."""
    parts = [
        metrics.temperature_scale(part, temperatures[fold])
        for fold, part in table.groupby("fold")
    ]
    return pd.concat(parts).sort_index()


def score_with_ci(table, metric, n_bootstrap=2000, groups="pid"):
    """Compute a metric and its 95% interval: {value, low, high}, at six digits."""
    low, high = bootstrap_interval(table, metric, groups, n_bootstrap)
    scores = {"value": metric(table), "low": low, "high": high}
    return {name: round(float(score), 6) for name, score in scores.items()}


def summarize_classification(table, n_bootstrap=2000):
    """Compute CLASSIFICATION_METRICS: {name: {value, low, high}}."""
    return {
        name: score_with_ci(table, metric, n_bootstrap)
        for name, metric in CLASSIFICATION_METRICS.items()
    }


def summarize_segmentation(table, n_bootstrap=2000):
    """Compute SEGMENTATION_METRICS, without HD95 if a pixel spacing is not known."""
    scores = SEGMENTATION_METRICS.copy()
    if table["hd95_mm"].isna().any():
        del scores["median HD95 (mm)"]
    return {
        name: score_with_ci(table, metric, n_bootstrap)
        for name, metric in scores.items()
    }


def summarize_by_class(table):
    """Compute accuracy, precision, recall, F1 and slices of each class vs. the rest."""
    y_true, y_pred = table["y_true"].to_numpy(), metrics.predict_classes(table)
    scores = precision_recall_fscore_support(
        y_true, y_pred, labels=list(LABELS), zero_division=0
    )
    names = ["precision", "recall", "F1", "slices"]
    frame = pd.DataFrame(dict(zip(names, scores, strict=True)), LABELS.values())
    accuracy = [((y_true == label) == (y_pred == label)).mean() for label in LABELS]
    frame.insert(0, "accuracy", accuracy)
    return frame


def summarize_by_group(table, column, groups, n_bootstrap=2000):
    """Compute the mean of a column in each group of each column in `groups`.

    Returns a DataFrame with rows (name of the column, group) and the columns slices,
    patients, mean, low and high.
    """
    rows = {}
    for name in groups:
        for group, part in table.groupby(name, observed=True):
            low, high = mean_interval(part[column], part["pid"], n_bootstrap)
            rows[name, str(group)] = {
                "slices": len(part),
                "patients": part["pid"].nunique(),
                "mean": part[column].mean(),
                "low": low,
                "high": high,
            }
    return pd.DataFrame(rows).T.astype({"slices": int, "patients": int})


def format_scores(scores):
    """Format scores as a table of texts with the columns value and 95% interval."""
    return _format(pd.DataFrame(scores).T, "value")[["value", "95% interval"]]


def format_groups(frame, score_name):
    """Format a table of `summarize_by_group`, its mean renamed to `score_name`."""
    texts = _format(frame, "mean").rename(columns={"mean": score_name})
    columns = ["slices", "patients", score_name, "95% interval"]
    return texts[columns].rename_axis(["by", "group"])


def _format(frame, value):
    texts = {value: [], "95% interval": []}
    for name, row in frame.iterrows():
        form = ".1f" if str(name).endswith("(mm)") else ".3f"  # a pixel is half a mm
        texts[value].append(format(row[value], form))
        interval = f"{row['low']:{form}}–{row['high']:{form}}"
        texts["95% interval"].append(interval)
    return frame.assign(**texts)


def summary_metrics(tables):
    """Compute SUMMARY_METRICS of {task: table}: {name: float}."""
    return {
        name: metric(tables[task])
        for name, (task, metric) in SUMMARY_METRICS.items()
        if task in tables
    }


def load_planes(data_info, data=""):
    """Load the plane of each slice of a run's data: Series by file number.

    `data_info` is the `data` of run.json. figshare's planes are in the package; those
    of other data are read from `data`. Returns None if `data` is not the run's data.
    """
    if data_info["kind"].startswith("figshare"):
        return load_figshare_index()["plane"]
    prepared = open_data(data, data_info["size"]) if data else None
    if prepared is None or prepared.info["digest"] != data_info["digest"]:
        return None
    return prepared.index.set_index("file")["plane"]
