"""Data banner and provenance of a page, as HTML."""

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

    Parameters
    ----------
    records : list of dict
        Contents of run.json files; both tasks of a joint network are one training.
    """
    runs = [group[0] for group in group_by_training(records)]
    rows = [_describe_run(record) for record in runs]
    shared = [f"{len(rows)} training{'' if len(rows) == 1 else 's'}"]
    for name in ("protocol", "seed", "commit"):
        values = _distinct(row[name] for row in rows)
        shared += [f"{name} {values}"] if values else []
    varying = [
        name
        for name in rows[0]
        if len(rows) == 1 or name == "notebook" or len({row[name] for row in rows}) > 1
    ]
    columns = [name for name in varying if any(row[name] for row in rows)]
    notes = dict.fromkeys(record["note"] for record in runs if "note" in record)
    html = render(
        "provenance.html.j2",
        summary=", ".join(shared),
        columns=columns,
        rows=[[row[name] for name in columns] for row in rows],
        lines=[_distinct(map(_describe_environment, runs)), *notes],
    )
    return HTML(html)


def _describe_run(record):
    """What tells a training from others, by column, as text."""
    parameters = record["parameters"]
    part = parameters.get("part", parameters.get("fold", ""))
    return {
        "notebook": record["notebook"],
        "fold": str(part),
        "protocol": parameters.get("protocol", ""),
        "seed": str(parameters.get("seed", "")),
        "description": parameters.get("description", parameters.get("change", "")),
        "epochs": str(record.get("epochs", "")),
        "minutes": f"{record['seconds'] / 60:.1f}",
        "memory (MB)": f"{record['peak_memory_mb']:,}",
        "commit": short_commit(record),
        "finished": record["finished"],
    }


def _describe_environment(record):
    threads = f"{record['threads']} thread{'' if record['threads'] == 1 else 's'}"
    return (
        f"{record['processor']}, {threads}, Python {record['python']}, "
        f"Keras {record['packages']['keras']}; pixel digest "
        f"{record['data']['digest'][:12]}"
    )


def _distinct(values):
    return "; ".join(dict.fromkeys(value for value in values if value))
