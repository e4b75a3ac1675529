"""Every plot that two notebooks share, in one style that color-blind readers can read (Okabe and Ito 2008)."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import Patch
from matplotlib_inline.backend_inline import set_matplotlib_formats
from sklearn.metrics import confusion_matrix

from braintumor.dataset import LABELS
from braintumor.metrics import predicted_label

CLASS_COLORS = {"meningioma": "#0072B2", "glioma": "#E69F00", "pituitary tumor": "#CC79A7"}
PROTOCOL_COLORS = {"slice": "#D55E00", "official": "#0072B2", "family": "#009E73"}
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#56B4E9", "#F0E442", "#D55E00"


def style():
    """Set the book's figure style; plots become vector graphics."""
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
            "svg.hashsalt": "braintumor",
        }
    )


def learning_curves(history, scores, monitor="val_loss"):
    """Training and validation curves by epoch; `scores` maps a column of history.csv to its title.

    The kept epoch is marked: that of the least `monitor`, or of the greatest if that is an accuracy.
    """
    figure, axes = plt.subplots(1, len(scores), figsize=(4.5 * len(scores), 3.2), squeeze=False)
    for ax, (column, title) in zip(axes[0], scores.items(), strict=True):
        ax.plot(history["epoch"], history[column], label="training", color="0.55")
        ax.plot(history["epoch"], history[f"val_{column}"], label="validation", color="#0072B2")
        ax.set(xlabel="epoch", title=title)
    kept = history[monitor].idxmax() if monitor.endswith("accuracy") else history[monitor].idxmin()
    best = history["epoch"][kept]
    for ax in axes[0]:
        ax.axvline(best, color="#D55E00", linestyle=":", label=f"kept: epoch {best}")
    axes[0, 0].legend(frameon=False)
    return figure


def confusion(table):
    """Confusion matrix of a predictions table: counts, with each true class's shares as shades."""
    counts = confusion_matrix(table["label"], predicted_label(table), labels=list(LABELS))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, ax = plt.subplots(figsize=(4.8, 3.8))
    notes = np.array(
        [[f"{n}\n{share:.0%}" for n, share in zip(*rows, strict=True)] for rows in zip(counts, shares, strict=True)]
    )
    names = list(LABELS.values())
    sns.heatmap(shares, annot=notes, fmt="", cmap="Blues", vmin=0, vmax=1, square=True, cbar=False, ax=ax)
    ax.set_xticks(np.arange(3) + 0.5, names, rotation=20, ha="right")
    ax.set_yticks(np.arange(3) + 0.5, names, rotation=0)
    ax.set(xlabel="predicted", ylabel="true")
    return figure


def slice_grid(images, titles, masks=None, columns=4, borders=None):
    """Slices side by side; with `masks`, the tumor's outline on each, or `borders`, lists of (x, y) in their pixels."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.3 * columns, 2.5 * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for n, (ax, image, title) in enumerate(zip(axes.flat, images, titles, strict=False)):
        ax.imshow(image, cmap="gray", interpolation="antialiased")
        ax.set_title(title, fontsize="small")
        if masks is not None and masks[n].any():
            ax.contour(masks[n], [0.5], colors=[FALSE_POSITIVE], linewidths=1)
        if borders is not None:
            ax.fill(*borders[n].T, fill=False, color=FALSE_POSITIVE, linewidth=1)
    return figure


def differences(images, true, predicted, titles, columns=4):
    """True against predicted masks over slices: what both have, what only one has, each in its color."""
    figure = slice_grid(images, titles, columns=columns)
    parts = (
        (TRUE_POSITIVE, true & predicted),
        (FALSE_POSITIVE, ~true & predicted),
        (FALSE_NEGATIVE, true & ~predicted),
    )
    for n, ax in enumerate(figure.axes[: len(images)]):
        for color, part in parts:
            overlay = np.zeros((*part[n].shape, 4))
            overlay[part[n]] = (*plt.matplotlib.colors.to_rgb(color), 0.65)
            ax.imshow(overlay, interpolation="nearest")
    names = ("true positive", "false positive", "false negative")
    handles = [Patch(color=color, label=name) for (color, _), name in zip(parts, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def probabilities(values):
    """Class probabilities of one slice as bars; `values` (3,)."""
    figure, ax = plt.subplots(figsize=(4.5, 1.8))
    bars = ax.barh(list(LABELS.values()), values, color=list(CLASS_COLORS.values()))
    ax.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=4)
    ax.set(xlim=(0, 1.15), xlabel="probability")
    ax.invert_yaxis()
    return figure
