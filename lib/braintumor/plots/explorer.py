"""Slice explorer: a plot and a table of a run's slices to filter and sort."""

from pathlib import Path

from IPython.display import HTML

from braintumor.core.templates import render
from braintumor.data.labels import LABELS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, predict_classes
from braintumor.plots.style import CLASS_COLORS

COLUMNS = ["file", "pid", "fold", "y_true", "y_pred", "plane", "area_true", "dice"]


def slice_explorer(table):
    """Return the slice explorer (HTML) of predictions of both tasks, with plane."""
    probabilities = table[PROBABILITY_COLUMNS].to_numpy()
    rows = table.assign(
        y_pred=predict_classes(table),
        prob_true=probabilities[range(len(table)), table["y_true"] - 1],
        confidence=probabilities.max(axis=1),
    )[[*COLUMNS, "prob_true", "confidence"]].round(4)
    data = {"names": list(LABELS.values()), "colors": list(CLASS_COLORS.values())}
    data |= {"columns": list(rows), "rows": rows.astype(object).to_numpy().tolist()}
    script = Path(__file__).with_name("explorer.js").read_text(encoding="utf-8")
    return HTML(render("slice_explorer.html.j2", data=data, script=script))
