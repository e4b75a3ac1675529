"""Dot plots of scores with their intervals."""

import matplotlib.pyplot as plt

from braintumor.plots.style import TEXT_WIDTH, captioned

SERIES_COLORS = ("#0072B2", "#D55E00", "#009E73", "#56B4E9", "#E69F00", "#CC79A7")


@captioned
def plot_intervals(table, reference=None):
    """Plot scores with intervals: a panel per score, a row per group, colors by series.

    The columns of `table` are score, group, series, value, low and high; `reference` is
    the place of a vertical line.
    """
    number = table.groupby(["score", "group"]).cumcount()
    step = 0.6 / (number.max() + 1)
    scores, groups, series = (table[c].unique() for c in ("score", "group", "series"))
    rows = table["group"].map({group: n for n, group in enumerate(groups)})
    table = table.assign(y=rows + step * (number - number.max() / 2))
    size = (TEXT_WIDTH, 1.1 + len(groups) * max(0.32, 0.13 * (number.max() + 2)))
    shared = {"sharey": True, "squeeze": False}
    figure, axes = plt.subplots(1, len(scores), figsize=size, **shared)
    for ax, score in zip(axes[0], scores, strict=True):
        if reference is not None:
            ax.axvline(reference, color="0.6", lw=1)
        for color, name in zip(SERIES_COLORS, series, strict=False):
            part = table.query("score == @score and series == @name")
            errors = [part["value"] - part["low"], part["high"] - part["value"]]
            style = {"fmt": "o", "ms": 5, "color": color, "label": name}
            ax.errorbar(part["value"], part["y"], xerr=errors, **style)
        ax.set(title=score, yticks=range(len(groups)), yticklabels=groups)
        ax.set_ylim(len(groups) - 0.5, -0.5)
    if len(series) > 1:
        lines = axes[0, 0].get_legend_handles_labels()
        place = {"loc": "outside lower center", "frameon": False}
        figure.legend(*lines, ncols=min(len(series), 3), fontsize="small", **place)
    texts = [f"{r.group} {r.series}: {r.value:.3f}" for r in table.itertuples()]
    caption = "Dots are values, lines their 95% intervals."
    return figure, caption, f"Dot plot of {', '.join(scores)}. {'; '.join(texts)}."
