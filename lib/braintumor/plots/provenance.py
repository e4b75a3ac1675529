"""Data banner and provenance of a page, as HTML."""

import pandas as pd
from IPython.display import HTML

from braintumor.core.templates import render
from braintumor.data.labels import DATA_KINDS
from braintumor.training.provenance import group_by_training, short_commit

FOLD_SOURCES = {
    "cvind": "from cvind.mat",
    "given": "as given in slices.csv",
    "made": "made with patients grouped, since the data name none",
}


def show_data(info):
    """Return a banner with the data of a page: info of prepared data or of a record."""
    color = "#E69F00" if info["kind"] == "phantom" else "#0072B2"
    kind, folds = DATA_KINDS[info["kind"]], FOLD_SOURCES[info["folds"]]
    return HTML(
        render("data_banner.html.j2", color=color, kind=kind, folds=folds, info=info)
    )


def show_provenance(records):
    """Return a folded table of the trainings behind a page, a row per training.

    `records` are contents of run.json; both tasks of a joint network are one training.
    """
    runs = [group[0] for group in group_by_training(records)]
    table = pd.DataFrame([_describe_run(record) for record in runs])
    constant = [name for name in table if table[name].nunique() == 1]
    columns = [name for name in table if name not in constant] or ["notebook"]
    details = [
        f"{name} {table[name].iloc[0]}" for name in constant if table[name].iloc[0]
    ]
    notes = [record["note"] for record in runs if "note" in record]
    html = render(
        "provenance.html.j2",
        n_trainings=len(runs),
        details=details,
        columns=columns,
        rows=table[columns].to_numpy().tolist(),
        notes=list(dict.fromkeys(notes)),
    )
    return HTML(html)


def _describe_run(record):
    """Columns of the table, as text."""
    parameters, digest = record["parameters"], record["data"]["digest"]
    return {
        "notebook": record["notebook"],
        "fold": parameters.get("part", parameters.get("fold", "")),
        "protocol": parameters.get("protocol", ""),
        "seed": parameters.get("seed", ""),
        "description": parameters.get("description", parameters.get("change", "")),
        "epochs": record.get("epochs", ""),
        "minutes": f"{record['seconds'] / 60:.1f}",
        "memory (MB)": f"{record['peak_memory_mb']:,}",
        "commit": short_commit(record),
        "finished": record["finished"],
        "processor": record["processor"],
        "threads": record["threads"],
        "Python": record["python"],
        "Keras": record["packages"]["keras"],
        "pixel digest": digest[:12],
    }
