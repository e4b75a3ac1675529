"""Predict each fold by all networks of a run that held it out.

The networks of a fold differ in seed, so each has other validation patients, and may
differ in encoder and size; run.json has the parameters that they share. Classes and
maps are averaged over networks and views. The validation table of a fold has the
ensembles' predictions for the other folds; a temperature is fitted to them.
"""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from export_onnx import export_networks
from rescore import predict_tables

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT, atomic_directory, write_json
from braintumor.data.prepared import open_data
from braintumor.data.splits import FOLDS, assign_folds
from braintumor.evaluation.scores import summary_metrics
from braintumor.inference.predictor import Ensemble, find_networks
from braintumor.training.provenance import collect_environment


def predict_folds(prepared, folds, models):
    """Predict the slices of each fold: {task: table of all slices}."""
    index, parts = prepared.index.rename(columns={"label": "y_true"}), []
    for fold in FOLDS:
        table = index.assign(fold=folds)[folds == fold]
        ensemble = Ensemble(find_networks(fold, models))
        parts.append(predict_tables(ensemble, prepared, table))
        print(f"fold {fold}: {len(table)} slices by {len(ensemble.networks)} networks")
    return {task: pd.concat([p[task] for p in parts]) for task in parts[0]}


def save_fold(folder, table, fold, record):
    """Write predictions.csv, validation.csv and run.json of a fold and task."""
    with atomic_directory(folder) as directory:
        for name, rows in (("predictions", True), ("validation", False)):
            part = table[(table["fold"] == fold) == rows]
            part.to_csv(directory / f"{name}.csv", index=False, float_format="%.6f")
        write_json(directory / "run.json", record)


def log_fold(tables, fold, record):
    """Append the evaluation of a fold to the experiment log, if there is one."""
    parameters = record["parameters"]
    if not parameters["experiment_log"]:
        return
    path = ROOT / parameters["experiment_log"]
    columns = pd.read_csv(path, nrows=0).columns
    tables = {task: table[table["fold"] == fold] for task, table in tables.items()}
    row = parameters | summary_metrics(tables)
    row |= {
        "finished": record["finished"],
        "commit": (record["git"]["commit"] or "")[:10],
        "eval_split": "test",
        "input_size": parameters.get("head_size"),
        "n_slices": len(tables["classify"]),
        "minutes": round(record["seconds"] / 60, 1),
        "digest": record["data"]["digest"][:12],
    }
    row = pd.DataFrame([row]).reindex(columns=columns).round(4)
    row.to_csv(path, mode="a", index=False, header=False)


def _share_parameters(records):
    """Return the parameters that are the same in all records."""
    first, *remaining = (record["parameters"] for record in records)
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in remaining)
    }


def predict_ensemble(data, paths, out):
    """Predict by the networks beside `paths`, run.json files; write to a run folder."""
    records = export_networks(map(Path, paths), out / "models")
    first = next(iter(records.values()))
    parameters, info = _share_parameters(records.values()), first["data"]
    prepared = open_data(data, parameters["image_size"])
    if prepared.info["digest"] != info["digest"]:
        raise DatasetError(f"{data}: got other slices than those of {out}. Correct it.")
    seed = first["parameters"]["seed"]  # has no effect on folds that networks share
    folds = assign_folds(prepared.index, parameters["protocol"], seed)
    tables = predict_folds(prepared, folds, out / "models")
    finished = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"
    for fold in FOLDS:
        trained = [r for r in records.values() if r["parameters"]["fold"] == fold]
        for task, table in tables.items():
            record = first | collect_environment(threads=0)
            record.pop("epochs", None)  # networks differ in it
            record["notebook"], record["finished"] = "workflow/ensemble.py", finished
            networks = [p.stem for p in find_networks(fold, out / "models")]
            record["networks"] = networks
            changes = {"fold": fold, "task": task}
            changes["description"] = f"mean of {len(networks)} networks"
            record["parameters"] = parameters | changes
            record["seconds"] = round(sum(r["seconds"] for r in trained), 1)
            save_fold(out / "joint" / task / f"fold-{fold}", table, fold, record)
        log_fold(tables, fold, record)


if __name__ == "__main__":
    snakemake = globals()["snakemake"]  # provided by Snakemake
    params = snakemake.params
    predict_ensemble(params["data"], list(snakemake.input), Path(params["run"]))
