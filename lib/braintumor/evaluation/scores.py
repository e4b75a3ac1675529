"""From the folds of a run to one table a task, and from the tables to scores with intervals."""

import json
from pathlib import Path

import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_fscore_support

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data.prepared import LABELS, figshare_table, open_data
from braintumor.data.splits import FOLDS
from braintumor.evaluation import metrics
from braintumor.training.loop import read_predictions, read_table
from braintumor.training.provenance import SHOW_ONLY

# scores for a quick look: name to (task, function of its predictions table)
QUICK_SCORES = {
    "accuracy by slice": ("classify", metrics.accuracy),
    "balanced accuracy by patient": ("classify", lambda table: metrics.balanced_accuracy(metrics.by_patient(table))),
    "cross-entropy": ("classify", metrics.log_loss),
    "expected calibration error": ("classify", metrics.calibration_error),
    "mean Dice": ("segment", lambda table: float(table["dice"].mean())),
    "share without overlap": ("segment", lambda table: float((table["dice"] == 0).mean())),
}
HEADLINES = ("accuracy by slice", "balanced accuracy by patient", "mean Dice")  # those by which runs are compared


def gather(run, task, folds=FOLDS):
    """The finished ones of `folds` of one task: (predictions table, list of run.json dicts).

    `run` is a folder under the project, such as results/quick-phantom; `task` the folder in it, such as "classify" or
    "segment". Raises DatasetError if no fold is finished, if folds come from different data or settings, or if a slice
    is predicted twice.
    """
    folder = ROOT / Path(run) / task
    folds = [folder / f"fold-{fold}" for fold in sorted(folds) if (folder / f"fold-{fold}" / "run.json").exists()]
    if not folds:
        raise DatasetError(
            f"{folder}: holds no finished fold; run the notebook that trains them (02_classify, 03_segment) with the "
            "same results folder first, or `make book`"
        )
    records = [json.loads((fold / "run.json").read_text()) for fold in folds]
    refuse_mixed(folder, records)
    table = pd.concat([read_predictions(fold) for fold in folds], ignore_index=True)
    if (twice := table["file"].duplicated()).any():
        raise DatasetError(f"{folder}: slice {table['file'][twice].iloc[0]} is predicted by two folds; expected one")
    return table.sort_values("file", ignore_index=True), records


def refuse_mixed(folder, records, varying=()):
    """Raise DatasetError if run.json dicts, of `folder`, come from different data or settings.

    Folds differ in number, and may in what does not change a result; `varying` names other parameters that may differ.
    """
    if len({record["data"]["digest"] for record in records}) > 1:
        raise DatasetError(f"{folder}: its folds were trained on different data; remove those that do not belong")
    may_differ = {"fold", *SHOW_ONLY, *varying}
    settings = [{k: v for k, v in record["parameters"].items() if k not in may_differ} for record in records]
    if differing := [name for name in settings[0] if any(one.get(name) != settings[0][name] for one in settings)]:
        raise DatasetError(f"{folder}: its folds differ in {', '.join(differing)}; remove those that do not belong")


def origin(table, records):
    """What a table of scores was made from: data, protocol, folds, how many slices of how many, and digests of runs."""
    first = records[0]
    return {
        "data": first["data"],
        "protocol": first["parameters"]["protocol"],
        "folds": [record["parameters"]["fold"] for record in records],
        "slices": len(table),
        "runs": [record["digest"] for record in records],
    }


def gather_validation(run, records):
    """What each fold of a run's classification said of its validation patients: one table, `fold` telling which.

    `records` are those of `gather`. A patient may validate in several folds. Raises DatasetError if a fold has no such
    table.
    """
    folder = ROOT / Path(run) / "classify"
    paths = [folder / f"fold-{record['parameters']['fold']}" / "validation.csv" for record in records]
    if missing := [path for path in paths if not path.exists()]:
        raise DatasetError(f"{missing[0]}: is not there; remove {missing[0].parent} and train that fold again")
    return pd.concat(map(read_table, paths), ignore_index=True)


def parts_by_fold(table, validation, count):
    """Slices and patients in each fold's test, validation and training, and the tested patients by class.

    `table` and `validation` are those of `gather` and `gather_validation`; `count` is of all slices. Training had what
    was in neither, which is known when the folds are all there. A DataFrame, a row a fold.
    """
    rows = {}
    for fold, tested in table.groupby("fold"):
        validated = validation[validation["fold"] == fold]
        parts = {"test": tested, "validation": validated}
        if len(table) == count:
            parts["training"] = table[~table["file"].isin([*tested["file"], *validated["file"]])]
        patients = tested.groupby("label")["pid"].nunique()
        rows[fold] = {
            (part, what): number
            for part, own in parts.items()
            for what, number in (("slices", len(own)), ("patients", own["pid"].nunique()))
        } | {("patients of the test", name): patients.get(label, 0) for label, name in LABELS.items()}
    return pd.DataFrame(rows).T.rename_axis("fold")


def histories(run, task, records):
    """history.csv of each fold of a run, one under the other, with a column fold; `records` are those of `gather`."""
    folds = [record["parameters"]["fold"] for record in records]
    folder = ROOT / Path(run) / task
    return pd.concat([read_table(folder / f"fold-{fold}" / "history.csv").assign(fold=fold) for fold in folds])


def temperatures(validation):
    """The temperature of each fold that makes its validation patients' log loss least: Series by fold.

    Guo et al. 2017. It is sought between 0.25 and 4: a fold without errors would go on without end.
    """
    return pd.Series(
        {
            fold: minimize_scalar(
                lambda value, table=table: metrics.log_loss(metrics.tempered(table, value)), bounds=(0.25, 4)
            ).x
            for fold, table in validation.groupby("fold")
        }
    )


def all_tempered(table, by_fold):
    """A predictions table, each fold with its own temperature (Series by fold)."""
    return pd.concat(metrics.tempered(part, by_fold[fold]) for fold, part in table.groupby("fold")).sort_index()


def by_group(table, column, groups, draws=2000):
    """Mean of `column` in each of `groups` (names of columns), with its interval by patients: a table.

    Rows: (name of the column, group); columns: slices, patients, mean, low, high.
    """
    rows = {
        (name, str(group)): {
            "slices": len(part),
            "patients": part["pid"].nunique(),
            "mean": part[column].mean(),
            **dict(zip(("low", "high"), metrics.mean_interval(part[column], part["pid"], draws), strict=True)),
        }
        for name in groups
        for group, part in table.groupby(name, observed=True)
    }
    return pd.DataFrame(rows).T.astype({"slices": int, "patients": int})


def difference(table, other, statistic, draws=2000, whole=str):
    """`statistic` of one predictions table less that of another, of the same slices: {value, low, high}.

    Each draw takes the same patients from both, so what makes a patient hard for both cancels out. `whole` says of a
    pid what is drawn whole: itself, or its `splits.family` to compare folds that divide families with such as do not.
    Raises DatasetError if they do not hold the same slices.
    """
    if set(table["file"]) != set(other["file"]):
        raise DatasetError(f"{len(table)} and {len(other)} slices to compare; expected the same slices in both runs")
    both = pd.concat([table.assign(other=False), other.assign(other=True)], ignore_index=True)
    groups = both["pid"].map(whole)
    return scored(both, lambda t: statistic(t[~t["other"]]) - statistic(t[t["other"]]), draws, groups)


def run_differences(tables, others, draws=2000, whole=str):
    """`difference` of two runs, each {task: predictions table} of both tasks: the headline scores' names to it.

    `whole` as in `difference`.
    """
    patients = [metrics.by_patient(run["classify"]).assign(file=lambda t: t["pid"]) for run in (tables, others)]
    found = (
        difference(tables["classify"], others["classify"], metrics.accuracy, draws, whole),
        difference(*patients, metrics.balanced_accuracy, draws, whole),
        difference(tables["segment"], others["segment"], lambda t: t["dice"].mean(), draws, whole),
    )
    return dict(zip(HEADLINES, found, strict=True))


def comparison(runs, draws=2000):
    """Runs on the same slices beside the first of them: a table for reading, a row a run (named by its folder).

    Columns: the parameters in which any two of them differ, each of the headline scores with its paired difference to
    the first run and the 95 % interval of that, and the minutes that training took, of all folds together. A parameter
    of both tasks has two values, classify / segment, where they differ; one that is not asked for counts as "-".
    Raises DatasetError as `gather` and `difference` do.
    """
    rows, first = [], None
    for run in runs:
        gathered = {task: gather(run, task) for task in ("classify", "segment")}
        tables = {task: table for task, (table, _) in gathered.items()}
        first = first or tables
        gaps = {} if tables is first else run_differences(tables, first, draws)
        row = {"run": Path(run).name} | _settings(gathered)
        for name in HEADLINES:
            task, score = QUICK_SCORES[name]
            row[name] = f"{score(tables[task]):.3f}"
            row[f"{name}, less the first"] = (
                "{value:+.3f} ({low:+.3f} to {high:+.3f})".format(**gaps[name]) if gaps else ""
            )
        # a network for both tasks has two records of one training
        trained = {(one["notebook"], one["parameters"]["fold"]): one for _, some in gathered.values() for one in some}
        rows.append(row | {"minutes": f"{sum(one['seconds'] for one in trained.values()) / 60:.1f}"})
    table = pd.DataFrame(rows).fillna("-").set_index("run")
    scores = [name for name in table if name.startswith(HEADLINES) or name == "minutes"]
    return table[[name for name in table if name not in scores and table[name].nunique() > 1] + scores]


def _settings(gathered):
    """Parameter to value, as text, of one run: {task: (table, records)}."""
    found = {}
    for _, records in gathered.values():
        for name, value in records[0]["parameters"].items():
            if name not in {*SHOW_ONLY, "fold", "task"}:
                found.setdefault(name, {})[str(value)] = None
    return {name: " / ".join(values) for name, values in found.items()}


def planes(about, data=""):
    """Plane of each slice of the data that a run was made from, by file number: Series, or None if it is not known.

    figshare's are known from the table in this package; others from `data`, if those are the run's data.
    """
    if about["kind"].startswith("figshare"):
        return figshare_table()["plane"]
    if not data or (prepared := open_data(data, about["size"])).about["digest"] != about["digest"]:
        return None
    return prepared.index.set_index("file")["plane"]


def classification_scores(table, draws=2000):
    """Out-of-fold scores of a classification table: name to value, low and high (95 % by patients)."""
    patients = metrics.by_patient(table)
    return {
        "accuracy by slice": scored(table, metrics.accuracy, draws),
        "macro F1 by slice": scored(table, metrics.macro_f1, draws),
        "accuracy by patient": scored(patients, metrics.accuracy, draws),
        "balanced accuracy by patient": scored(patients, metrics.balanced_accuracy, draws),
        "expected calibration error": scored(table, metrics.calibration_error, draws),
        "accuracy by slice, surest 90 %": scored(table, lambda t: metrics.accuracy(metrics.surest(t)), draws),
    }


def class_scores(table):
    """Each class against the rest: accuracy, precision, recall, F1 and number of slices, a row a class.

    Precision of a class that is never called, and recall of one that is not there, count as 0.
    """
    predicted = metrics.predicted_label(table)
    of = {"labels": list(LABELS), "zero_division": 0}
    precision, recall, f1, slices = precision_recall_fscore_support(table["label"], predicted, **of)
    accuracy = [((predicted == label) == (table["label"] == label)).mean() for label in LABELS]
    columns = {"accuracy": accuracy, "precision": precision, "recall": recall, "F1": f1, "slices": slices}
    return pd.DataFrame(columns, index=list(LABELS.values()))


def segmentation_scores(table, draws=2000):
    """Out-of-fold scores of a segmentation table: name to value, low and high (95 % by patients)."""
    return {
        "mean Dice": scored(table, lambda t: t["dice"].mean(), draws),
        "median Dice": scored(table, lambda t: t["dice"].median(), draws),
        "mean IoU": scored(table, lambda t: t["iou"].mean(), draws),
        "share without overlap": scored(table, lambda t: (t["dice"] == 0).mean(), draws),
        "share with no mask at all": scored(table, lambda t: (t["area_pred"] == 0).mean(), draws),
        "pixel sensitivity": scored(table, metrics.pixel_sensitivity, draws),
        "pixel precision": scored(table, metrics.pixel_precision, draws),
    } | (
        {}
        if table["hd95_mm"].isna().any()  # the pixel spacing of some slices is not known
        else {"median HD95 (mm)": scored(table, lambda t: t["hd95_mm"].median(), draws)}
    )


def quick_scores(tables):
    """QUICK_SCORES of predictions tables, {task: table}, without intervals: name to number."""
    return {name: score(tables[task]) for name, (task, score) in QUICK_SCORES.items() if task in tables}


def write_down(path, change, part, tables, record):
    """Add a row for one look at predictions to a table of all that was tried (CSV at `path` under the project).

    `change` says in words what was tried, `part` whose predictions `tables` ({task: table}) are, "validation" or
    "test"; `record` is the run.json of notebook 08. Raises DatasetError if the file there has other columns.
    """
    given, path = record["parameters"], ROOT / path
    row = {
        "finished": record["finished"],
        "commit": (record["git"]["commit"] or "")[:10],
        "change": change,
        "part": part,
        **{name: given[name] for name in ("protocol", "fold", "seed", "epochs")},
        "pixels": given["crop_to"] or given["image_size"],  # that the network sees
        "slices": len(next(iter(tables.values()))),
        **dict.fromkeys(QUICK_SCORES),
        **{name: round(score, 4) for name, score in quick_scores(tables).items()},
        "minutes": round(record["seconds"] / 60, 1),
        "digest": record["digest"][:12],
    }
    if path.exists() and (found := list(pd.read_csv(path, nrows=0))) != list(row):
        raise DatasetError(f"{path}: its columns are {', '.join(found)}; expected {', '.join(row)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    line = pd.DataFrame([row]).to_csv(index=False, header=not path.exists())
    with path.open("a") as file:  # not rewritten: two folds may end at the same time
        file.write(line)


def scored(table, statistic, draws=2000, groups="pid"):
    """`statistic(table)` with its 95 % interval by `groups` (patients): {value, low, high}, at six digits.

    More digits would differ from one machine to the next, and committed scores with them.
    """
    values = (statistic(table), *metrics.interval(table, statistic, groups, draws))
    return {name: round(float(value), 6) for name, value in zip(("value", "low", "high"), values, strict=True)}


def score_table(scores):
    """Scores as a table for reading, as text: three decimals, of mm one, with the interval beside the value."""
    return _readable(pd.DataFrame(scores).T, "value")[["value", "95 % interval"]]


def group_table(frame, score):
    """A table of `by_group` for reading; its mean is called `score`."""
    shown = _readable(frame, "mean").rename(columns={"mean": score}).rename_axis(["by", "group"])
    return shown[["slices", "patients", score, "95 % interval"]]


def _readable(frame, value):
    def written(name, number):
        return f"{number:.1f}" if str(name).endswith("(mm)") else f"{number:.3f}"  # a pixel is half a mm

    shown = {name: [written(*pair) for pair in frame[name].items()] for name in (value, "low", "high")}
    intervals = [f"{low} to {high}" for low, high in zip(shown["low"], shown["high"], strict=True)]
    return frame.assign(**{value: shown[value], "95 % interval": intervals})
