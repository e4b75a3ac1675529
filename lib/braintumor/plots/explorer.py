"""The slices of a run in a reader's hands: a plot and a table to filter and sort, in one piece of HTML."""

import json
from pathlib import Path

from IPython.display import HTML

from braintumor.data.prepared import LABELS
from braintumor.evaluation.metrics import PROBABILITIES, predicted_label
from braintumor.plots.figures import CLASS_COLORS

COLUMNS = ["file", "pid", "fold", "label", "called", "plane", "area_true", "dice", "true", "surety"]


def explorer(table):
    """The slice explorer of a page: HTML that asks for no other file and holds no picture of a slice.

    `table` has a row a slice: columns of both tasks' predictions.csv (file, pid, fold, label, p1, p2, p3, area_true in
    native pixels, dice) and plane. One a page: it is found by its id.
    """
    given = table[PROBABILITIES].to_numpy()
    rows = table.assign(
        called=predicted_label(table),
        true=given[range(len(table)), table["label"] - 1].round(4),
        surety=given.max(axis=1).round(4),
        dice=table["dice"].round(4),
    )
    data = {"names": list(LABELS.values()), "colors": list(CLASS_COLORS.values()), "columns": COLUMNS}
    data["rows"] = [list(row) for row in rows[COLUMNS].astype(object).itertuples(index=False)]
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # nothing in it ends the element
    script = Path(__file__).with_name("explorer.js").read_text(encoding="utf-8")
    return HTML(
        '<div id="slice-explorer"><noscript>Here, scripts allowed, slices are plotted and sorted.</noscript></div>'
        f'<script type="application/json" id="slice-explorer-data">{text}</script><script>{script}</script>'
    )
