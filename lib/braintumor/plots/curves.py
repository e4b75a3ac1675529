"""Learning curves of one training and of several folds."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from braintumor.plots.style import MAX_WIDTH, captioned, format_values


@captioned
def plot_learning_curves(history, titles, monitor="val_loss"):
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
    figure, kept, reason = _plot_curves(history.assign(fold=1), titles, monitor)
    row, epoch = kept.iloc[0], f"{kept['epoch'].iloc[0]} of {len(history)}"
    values = "; ".join(
        f"{title} {row[metric]:.3f} and {row[f'val_{metric}']:.3f}"
        for metric, title in titles.items()
    )
    caption = (
        f"Epoch {epoch} is kept: it has {reason}. There, in training and validation: "
        f"{values}. A dot marks the kept epoch; losses are on a log axis."
    )
    alt = (
        f"Line plots by epoch: training gray, validation blue, a dot at epoch {epoch}."
    )
    return figure, caption, alt


@captioned
def plot_fold_curves(history, titles, monitor="val_loss"):
    """Plot `plot_learning_curves` of several folds (column fold) in one figure."""
    figure, kept, reason = _plot_curves(history, titles, monitor)
    scores = {title: kept[f"val_{metric}"] for metric, title in titles.items()}
    ranges = "; ".join(f"{t} {s.min():.3f}–{s.max():.3f}" for t, s in scores.items())
    caption = (
        f"At the kept epochs the folds reach, in validation: {ranges}. A thin line "
        f"per fold; a dot marks the epoch with {reason}. Losses are on a log axis."
    )
    epochs = format_values(kept.set_index("fold")["epoch"], "{}")
    alt = (
        f"Line plots by epoch for {len(kept)} folds: training gray, validation blue, a "
        f"red dot at the kept epoch of each fold: {epochs}."
    )
    return figure, caption, alt


def _plot_curves(history, titles, monitor):
    """The figure, the kept row of each fold, and why it is kept."""
    history = history.reset_index(drop=True)
    by_fold, maximize = history.groupby("fold"), monitor.endswith("accuracy")
    monitored = by_fold[monitor]
    kept = history.loc[monitored.idxmax() if maximize else monitored.idxmin()]
    size = (min(4.5 * len(titles), MAX_WIDTH), 3.5)
    figure, axes = plt.subplots(1, len(titles), figsize=size, squeeze=False)
    for ax, (metric, title) in zip(axes[0], titles.items(), strict=True):
        validation = f"val_{metric}"
        for _, rows in by_fold:
            ax.plot(rows["epoch"], rows[metric], "0.55", lw=1, label="training")
            ax.plot(
                rows["epoch"], rows[validation], "#0072B2", lw=1, label="validation"
            )
        ax.plot(kept["epoch"], kept[validation], "o", c="#D55E00", label="kept epoch")
        ax.set(xlabel="epoch", title=title)
        if "loss" in metric:
            _set_log_axis(ax)
    handles = [axes[0, 0].lines[n] for n in (0, 1, -1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    name = monitor.removeprefix("val_").replace("_", " ")
    return figure, kept, f"the {'highest' if maximize else 'lowest'} validation {name}"


def _set_log_axis(ax):
    """Make the y axis logarithmic, with ticks in plain decimals."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks = (1, 1.5, 2, 3, 5, 7) if np.log10(high / low) < 2 else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=ticks))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
