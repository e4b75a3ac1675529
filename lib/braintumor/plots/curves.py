"""Learning curves of one training or of several folds."""

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from braintumor.plots.style import MAX_WIDTH, captioned, format_values


@captioned
def plot_learning_curves(history, titles, monitor="val_loss"):
    """Plot metrics by epoch, per fold, and mark the best epoch.

    Parameters
    ----------
    history : DataFrame with epoch, each metric and its val_ column, and maybe fold
    titles : dict of metric: title, a panel each
    monitor : str, the column that selects the epoch: largest accuracy, smallest loss
    """
    history = history.assign(fold=history.get("fold", 1)).reset_index(drop=True)
    folds = history.groupby("fold")
    best = "idxmax" if monitor.endswith("accuracy") else "idxmin"
    kept = history.loc[folds[monitor].agg(best)]
    size = (min(4.5 * len(titles), MAX_WIDTH), 3.5)
    figure, axes = plt.subplots(1, len(titles), figsize=size, squeeze=False)
    for ax, (metric, title) in zip(axes[0], titles.items(), strict=True):
        for _, rows in folds:
            ax.plot(rows["epoch"], rows[metric], "0.55", lw=1)
            ax.plot(rows["epoch"], rows[f"val_{metric}"], "#0072B2", lw=1)
        ax.plot(kept["epoch"], kept[f"val_{metric}"], "o", c="#D55E00")
        ax.set(xlabel="epoch", title=title)
        if "loss" in metric:
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ticks = (1, 1.5, 2, 3, 5, 7) if high < 100 * low else (1,)
            ax.yaxis.set_major_locator(LogLocator(subs=ticks))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
    lines = [axes[0, 0].lines[n] for n in (0, 1, -1)]
    names = ["training", "validation", "kept epoch"]
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    means = {title: kept[f"val_{metric}"].mean() for metric, title in titles.items()}
    epochs = ", ".join(map(str, kept["epoch"]))
    caption = f"Epochs kept by {monitor}: {epochs} of {len(rows)}. Mean validation "
    caption += f"there: {format_values(means, '{:.3f}')}. Losses are on a log axis."
    return figure, caption, f"Curves: training gray, validation blue, dots at {epochs}."
