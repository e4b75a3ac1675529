"""Experiment log: a row for each evaluation of a trained network."""

import pandas as pd

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.evaluation.scores import SUMMARY_METRICS, summary_metrics


def log_experiment(path, description, eval_split, tables, record):
    """Append a row to a CSV file: scores of {task: predictions}, run.json `record`."""
    parameters, path = record["parameters"], ROOT / path
    scores = dict.fromkeys(SUMMARY_METRICS) | summary_metrics(tables)
    row = {
        "finished": record["finished"],
        "commit": (record["git"]["commit"] or "")[:10],
        "description": description,
        "eval_split": eval_split,
        **{name: parameters[name] for name in ("protocol", "fold", "seed", "epochs")},
        "input_size": parameters.get("head_size") or parameters["image_size"],
        "n_slices": len(next(iter(tables.values()))),
        **{name: score and round(score, 4) for name, score in scores.items()},
        "minutes": round(record["seconds"] / 60, 1),
        "digest": record["data"]["digest"][:12],
    }
    if path.exists() and list(pd.read_csv(path, nrows=0)) != list(row):
        raise DatasetError(
            f"{path}: got other columns, expected {', '.join(row)}. "
            "Move the file away, or choose another experiment_log."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # appended, not rewritten: two folds may end at the same time
    pd.DataFrame([row]).to_csv(path, mode="a", index=False, header=not path.exists())
