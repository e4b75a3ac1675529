"""Data banner and provenance of a page, as HTML."""

import pandas as pd
from IPython.display import HTML

from braintumor.core.templates import render
from braintumor.data.labels import DATA_KINDS
from braintumor.training.provenance import group_by_training, short_commit


def show_data(info):
    """Return a banner with the data of a page: info of prepared data or of a record."""
    return HTML(render("data_banner.html.j2", info=info, kinds=DATA_KINDS))


def show_provenance(records):
    """Return a folded table of the trainings of run.json `records`, a row for each."""
    runs = [group[0] for group in group_by_training(records)]
    table = pd.DataFrame(map(_describe_run, runs), dtype=object).fillna("")
    is_constant = table.nunique() == 1
    constants, varying = table.loc[0, is_constant], table.loc[:, ~is_constant]
    details = [f"{name} {value}" for name, value in constants.items() if value]
    notes = dict.fromkeys(run["note"] for run in runs if "note" in run)
    context = {"n_trainings": len(runs), "details": details, "notes": list(notes)}
    context |= {"columns": list(varying), "rows": varying.to_numpy().tolist()}
    return HTML(render("provenance.html.j2", **context))


def _describe_run(record):
    """Return a row of the table: {column: text}."""
    parameters = record["parameters"]
    return {
        "notebook": record["notebook"],
        "fold": parameters.get("part", parameters.get("fold")),
        **{name: parameters.get(name) for name in ("protocol", "seed")},
        "description": parameters.get("description", parameters.get("change")),
        "epochs": record.get("epochs"),
        "minutes": f"{record['seconds'] / 60:.1f}",
        "memory (MB)": f"{record['peak_memory_mb']:,}",
        "commit": short_commit(record),
        **{name: record[name] for name in ("finished", "processor", "threads")},
        "Python": record["python"],
        "Keras": record["packages"]["keras"],
        "pixel digest": record["data"]["digest"][:12],
    }
