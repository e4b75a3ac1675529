"""Predictions of the folds of a run, joined, and their scores with intervals."""

import json
from pathlib import Path

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
from braintumor.training.fold_run import read_table

# parameters that do not change a result; tried and change: in records of 2026
BOOKKEEPING = {
    "fold", "data", "results", "threads", "experiment_log", "description", "tried",
    "change",
}  # fmt: skip
# name of a score without interval: (task, function of its table of predictions)
SUMMARY_METRICS = {
    "accuracy by slice": ("classify", metrics.accuracy),
    "balanced accuracy by patient": (
        "classify",
        lambda table: metrics.balanced_accuracy(metrics.average_by_patient(table)),
    ),
    "cross-entropy": ("classify", metrics.log_loss),
    "expected calibration error": ("classify", metrics.calibration_error),
    "mean Dice": ("segment", metrics.mean_of("dice")),
    "share of zero overlap": ("segment", metrics.fraction_of_zeros("dice")),
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
    folds : iterable of int
        Folds to load; unfinished folds are left out.

    Returns
    -------
    table : DataFrame
        Predictions of all folds, by file number.
    records : list of dict
        run.json of each fold.

    Raises
    ------
    DatasetError
        If no fold is finished, data or settings differ between folds, or a slice is
        in two folds.
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
    tables = [read_table(path / "predictions.csv") for path in paths]
    table = pd.concat(tables, ignore_index=True).sort_values("file", ignore_index=True)
    repeated = table.loc[table["file"].duplicated(), "file"]
    if len(repeated):
        raise DatasetError(
            f"{folder}: got slice {repeated.iloc[0]} in two folds, expected one. "
            "Remove the fold that does not belong."
        )
    return table, records


def check_consistent_runs(folder, records, varying=()):
    """Check that records of a folder have the same data and settings.

    Parameters
    ----------
    folder : Path
        Named in the error message.
    records : list of dict
        Contents of run.json.
    varying : iterable of str
        Parameters that may differ, besides the fold and what changes no result.

    Raises
    ------
    DatasetError
        If they differ.
    """
    differing = []
    if len({record["data"]["digest"] for record in records}) > 1:
        differing.append("data")
    settings = [record["parameters"] for record in records]
    for name in settings[0].keys() - BOOKKEEPING - set(varying):
        if any(other.get(name) != settings[0][name] for other in settings):
            differing.append(name)
    if differing:
        raise DatasetError(
            f"{folder}: got folds that differ in {', '.join(sorted(differing))}, "
            "expected the same values in all. Remove the folds that do not belong."
        )


def score_metadata(table, records):
    """Return what a table of scores is made from: data, protocol, folds, slices."""
    return {
        "data": records[0]["data"],
        "protocol": records[0]["parameters"]["protocol"],
        "folds": [record["parameters"]["fold"] for record in records],
        "slices": len(table),
    }


def load_validation(run, records):
    """Load the validation predictions of a run's classification folds, joined.

    `records` are those of `load_predictions`. A patient may be in several folds.

    Raises
    ------
    DatasetError
        If a fold has no validation.csv.
    """
    tables = []
    for record in records:
        fold = record["parameters"]["fold"]
        path = ROOT / run / "classify" / f"fold-{fold}" / "validation.csv"
        if not path.exists():
            raise DatasetError(
                f"{path}: got no file, expected the validation predictions. "
                f"Remove {path.parent} and train fold {fold} again."
            )
        tables.append(read_table(path))
    return pd.concat(tables, ignore_index=True)


def load_histories(run, task, records):
    """Load history.csv of each fold of `records`, joined, with a column fold."""
    tables = []
    for record in records:
        fold = record["parameters"]["fold"]
        path = ROOT / run / task / f"fold-{fold}" / "history.csv"
        tables.append(read_table(path).assign(fold=fold))
    return pd.concat(tables, ignore_index=True)


def fold_composition(table, validation, n_slices):
    """Count slices and patients in each part of each fold.

    Parameters
    ----------
    table, validation : DataFrame
        From `load_predictions` and `load_validation`.
    n_slices : int
        Slices of the whole data; the training part is counted if all folds are there.

    Returns
    -------
    DataFrame
        A row per fold; columns (part, "slices" or "patients"), and the number of
        test patients of each class.
    """
    rows = {}
    for fold, test in table.groupby("fold"):
        parts = {"test": test, "validation": validation[validation["fold"] == fold]}
        if len(table) == n_slices:
            held_out = pd.concat(parts.values())["file"]
            parts["training"] = table[~table["file"].isin(held_out)]
        row = {}
        for part, rows_of_part in parts.items():
            row[part, "slices"] = len(rows_of_part)
            row[part, "patients"] = rows_of_part["pid"].nunique()
        patients = test.groupby("y_true")["pid"].nunique()
        for label, name in LABELS.items():
            row["test patients", name] = patients.get(label, 0)
        rows[fold] = row
    return pd.DataFrame(rows).T.rename_axis("fold")


def fit_temperatures(validation):
    """Fit each fold's temperature, 0.25 to 4, to the log loss of its validation.

    Returns
    -------
    Series
        Temperature by fold.

    References
    ----------
    Guo et al. 2017.
    """

    def loss(temperature, table):
        return metrics.log_loss(metrics.temperature_scale(table, temperature))

    return pd.Series(
        {
            fold: minimize_scalar(loss, bounds=(0.25, 4), args=(table,)).x
            for fold, table in validation.groupby("fold")
        }
    )


def apply_temperatures(table, temperatures):
    """Scale each fold's predictions by its temperature (Series by fold)."""
    parts = [
        metrics.temperature_scale(part, temperatures[fold])
        for fold, part in table.groupby("fold")
    ]
    return pd.concat(parts).sort_index()


def score_with_ci(table, metric, n_bootstrap=2000, groups="pid"):
    """Compute a metric and its 95% interval by bootstrap over groups.

    Returns
    -------
    dict
        value, low and high, rounded to six digits: more depend on the machine.
    """
    low, high = bootstrap_interval(table, metric, groups, n_bootstrap)
    scores = {"value": metric(table), "low": low, "high": high}
    return {name: round(float(score), 6) for name, score in scores.items()}


def summarize_classification(table, n_bootstrap=2000):
    """Compute the scores of a classification table: {name: {value, low, high}}."""
    patients = metrics.average_by_patient(table)
    scores = {
        "accuracy by slice": (table, metrics.accuracy),
        "macro F1 by slice": (table, metrics.macro_f1),
        "accuracy by patient": (patients, metrics.accuracy),
        "balanced accuracy by patient": (patients, metrics.balanced_accuracy),
        "expected calibration error": (table, metrics.calibration_error),
        "accuracy by slice, most confident 90%": (table, metrics.confident_accuracy),
    }
    return {name: score_with_ci(*score, n_bootstrap) for name, score in scores.items()}


def summarize_segmentation(table, n_bootstrap=2000):
    """Compute the scores of a segmentation table: {name: {value, low, high}}.

    HD95 is left out if the pixel spacing of a slice is not known.
    """
    scores = {
        "mean Dice": metrics.mean_of("dice"),
        "median Dice": metrics.median_of("dice"),
        "mean IoU": metrics.mean_of("iou"),
        "share of zero overlap": metrics.fraction_of_zeros("dice"),
        "share of empty masks": metrics.fraction_of_zeros("area_pred"),
        "pixel recall": metrics.pixel_recall,
        "pixel precision": metrics.pixel_precision,
    }
    if table["hd95_mm"].notna().all():
        scores["median HD95 (mm)"] = metrics.median_of("hd95_mm")
    return {
        name: score_with_ci(table, metric, n_bootstrap)
        for name, metric in scores.items()
    }


def summarize_by_class(table):
    """Compute accuracy, precision, recall, F1 and slices of each class vs. the rest.

    Precision of a class that is not predicted, and recall of a class that is not
    present, are 0.
    """
    y_true, y_pred = table["y_true"].to_numpy(), metrics.predict_classes(table)
    precision, recall, f1, n_slices = precision_recall_fscore_support(
        y_true, y_pred, labels=list(LABELS), zero_division=0
    )
    scores = {
        "accuracy": [((y_pred == k) == (y_true == k)).mean() for k in LABELS],
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "slices": n_slices,
    }
    return pd.DataFrame(scores, index=list(LABELS.values()))


def summarize_by_group(table, column, groups, n_bootstrap=2000):
    """Compute the mean of a column in each group, with its interval.

    Parameters
    ----------
    table : DataFrame
    column : str
        Such as dice or is_correct.
    groups : iterable of str
        Columns to group by, each on its own.

    Returns
    -------
    DataFrame
        Rows (name of the column, group); columns slices, patients, mean, low, high.
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
    """Format a table of `summarize_by_group`; its mean is renamed to `score_name`."""
    texts = _format(frame, "mean").rename(columns={"mean": score_name})
    columns = ["slices", "patients", score_name, "95% interval"]
    return texts[columns].rename_axis(["by", "group"])


def _format(frame, value):
    """Format the value, low and high of each row: three digits, one for mm."""

    def interval(row):
        digits = 1 if str(row.name).endswith("(mm)") else 3  # a pixel is half a mm
        texts = [f"{row[name]:.{digits}f}" for name in (value, "low", "high")]
        return pd.Series([texts[0], f"{texts[1]}–{texts[2]}"])

    texts = frame.apply(interval, axis=1)
    return frame.assign(**{value: texts[0], "95% interval": texts[1]})


def summary_metrics(tables):
    """Compute SUMMARY_METRICS of tables, {task: table}: {name: float}."""
    return {
        name: metric(tables[task])
        for name, (task, metric) in SUMMARY_METRICS.items()
        if task in tables
    }


def load_planes(data_info, data=""):
    """Look up the plane of each slice of the data that a run was made from.

    Parameters
    ----------
    data_info : dict
        The `data` of a run.json.
    data : str
        Where the data are; not needed for figshare.

    Returns
    -------
    Series or None
        Plane by file number; None if `data` is not the run's data.
    """
    if data_info["kind"].startswith("figshare"):
        return load_figshare_index()["plane"]
    if not data:
        return None
    prepared = open_data(data, data_info["size"])
    if prepared.info["digest"] != data_info["digest"]:
        return None
    return prepared.index.set_index("file")["plane"]
