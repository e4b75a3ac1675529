"""Learning curves of one training and of several folds."""

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from braintumor.plots.style import (
    KEPT,
    MAX_WIDTH,
    TRAINING,
    VALIDATION,
    CaptionedFigure,
    format_values,
)


def plot_learning_curves(history, titles, monitor="val_loss", caption=None, alt=None):
    """Plot training and validation metrics by epoch, with the kept epoch marked.

    Parameters
    ----------
    history : pandas.DataFrame
        Columns epoch, each metric, and val_ with each metric, as in history.csv.
    titles : dict of str to str
        Title of each metric to plot.
    monitor : str
        Column that selects the kept epoch: the highest accuracy or the lowest loss.
    """
    figure, axes = _subplots(titles)
    best = _kept_epoch(history, monitor)
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        ax.plot(history["epoch"], history[metric], color=TRAINING, label="training")
        column = f"val_{metric}"
        ax.plot(history["epoch"], history[column], color=VALIDATION, label="validation")
        ax.axvline(best["epoch"], color=KEPT, linestyle=":", label="kept epoch")
        ax.set(xlabel="epoch", title=title)
    _add_legend(figure, axes)
    at_best = [
        f"{title} {best[metric]:.3f} and {best[f'val_{metric}']:.3f}"
        for metric, title in titles.items()
    ]
    epoch = f"{best['epoch']:.0f} of {len(history)}"
    return CaptionedFigure(
        figure,
        caption
        or f"The weights of epoch {epoch} are kept: it has the {_best_of(monitor)}. "
        f"There, in training and in validation: {'; '.join(at_best)}.",
        alt
        or f"Line plots of {', '.join(titles.values())} by epoch: training in gray, "
        f"validation in blue, a dotted line at epoch {epoch}.",
    )


def plot_fold_curves(history, titles, monitor="val_loss", caption=None, alt=None):
    """Plot `plot_learning_curves` of several folds (column fold) in one figure.

    A thin line per fold, a dot at its kept epoch; losses on a logarithmic axis, where
    the first epochs do not flatten the later ones.
    """
    figure, axes = _subplots(titles)
    folds = list(history.groupby("fold"))
    best = {fold: _kept_epoch(rows, monitor) for fold, rows in folds}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        column = f"val_{metric}"
        for fold, rows in folds:
            epochs, kept = rows["epoch"], best[fold]
            ax.plot(epochs, rows[metric], TRAINING, lw=1, label="training")
            ax.plot(epochs, rows[column], VALIDATION, lw=1, label="validation")
            ax.plot(kept["epoch"], kept[column], "o", color=KEPT, label="kept epoch")
        ax.set(xlabel="epoch", title=title)
        if "loss" in metric:
            _set_log_axis(ax)
    _add_legend(figure, axes)
    epochs = format_values({f: int(row["epoch"]) for f, row in best.items()}, "{}")
    ranges = []
    for metric, title in titles.items():
        values = [row[f"val_{metric}"] for row in best.values()]
        ranges.append(f"{title} {min(values):.3f}–{max(values):.3f}")
    return CaptionedFigure(
        figure,
        caption
        or f"At the kept epochs the folds reach, in validation: {'; '.join(ranges)}. A "
        f"thin line per fold; a dot marks the epoch with the {_best_of(monitor)}, of "
        f"{history['epoch'].max()}, by fold: {epochs}.",
        alt
        or f"Line plots of {', '.join(titles.values())} by epoch for {len(folds)} "
        "folds: training in gray, validation in blue, a red dot at each kept epoch.",
    )


def _subplots(titles):
    """One row of axes within the page's width."""
    width = min(4.5 * len(titles), MAX_WIDTH)
    figure, axes = plt.subplots(1, len(titles), figsize=(width, 3.5), squeeze=False)
    return figure, axes[0]


def _add_legend(figure, axes):
    """Put one legend below the axes, where it hides no line."""
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique, loc="outside lower center", ncols=3, frameon=False
    )


def _set_log_axis(ax):
    """Logarithmic y axis with ticks in plain decimals."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _kept_epoch(history, monitor):
    """The row of a history whose weights are kept."""
    column = history[monitor]
    best = column.idxmax() if monitor.endswith("accuracy") else column.idxmin()
    return history.loc[best]


def _best_of(monitor):
    extreme = "highest" if monitor.endswith("accuracy") else "lowest"
    name = monitor.removeprefix("val_").replace("_", " ")
    return f"{extreme} validation {name}"
