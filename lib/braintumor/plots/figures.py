"""Every plot that two notebooks share, in one style that color-blind readers can read (Okabe and Ito 2008)."""

import io
from base64 import b64encode
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from matplotlib.patches import Patch
from matplotlib_inline.backend_inline import set_matplotlib_formats
from sklearn.metrics import auc, confusion_matrix, roc_curve

from braintumor.data.prepared import LABELS
from braintumor.evaluation.metrics import PROBABILITIES, calibration_bins, dice, predicted_label

CLASS_COLORS = {"meningioma": "#0072B2", "glioma": "#E69F00", "pituitary tumor": "#CC79A7"}
PROTOCOL_COLORS = {"slice": "#D55E00", "official": "#0072B2", "family": "#009E73"}
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#56B4E9", "#F0E442", "#D55E00"


def style():
    """Set the book's style: plots become vector graphics, and no cell of a table is cut off."""
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
        }
    )
    pd.set_option("display.max_colwidth", None)


def show(figure, caption, alt):
    """Display `figure` with its `caption`, which states what is found, and close it.

    `alt` tells those who do not see the figure what is drawn. One HTML output that needs no other file: a plot is SVG,
    what shows pictures is PNG. The same figure gives the same bytes. Raises ValueError if one of the texts is empty.
    """
    if not (caption.strip() and alt.strip()):
        raise ValueError("a figure needs a caption and an alternative text")
    picture, buffer = any(ax.images for ax in figure.axes), io.BytesIO()
    with plt.rc_context({"svg.hashsalt": "braintumor"}):  # names in an SVG are the same each time
        if picture:
            figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
        else:
            figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})  # dpi of what is rasterized in it
    plt.close(figure)
    address = f"data:image/{'png' if picture else 'svg+xml'};base64,{b64encode(buffer.getvalue()).decode()}"
    alt = " ".join(alt.split())  # titles in it may have several lines
    width = round(96 * figure.get_size_inches()[0])  # CSS has 96 pixels to the inch
    page = (
        f'<figure class="result"><img alt="{escape(alt)}" style="--full: {width}px" src="{address}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
    display({"text/html": page, "text/plain": caption}, raw=True)


def listed(values, form="{:.2f}"):
    """Names and numbers (a mapping or Series) as words for a caption: "glioma (0.71), meningioma (0.93)"."""
    return ", ".join(f"{name} ({form.format(value)})" for name, value in dict(values).items())


def learning_curves(history, scores, monitor="val_loss"):
    """Training and validation curves by epoch; `scores` maps a column of history.csv to its title.

    The kept epoch is marked: that of the least `monitor`, or of the greatest if that is an accuracy.
    """
    figure, axes = plt.subplots(1, len(scores), figsize=(4.5 * len(scores), 3.2), squeeze=False)
    for ax, (column, title) in zip(axes[0], scores.items(), strict=True):
        ax.plot(history["epoch"], history[column], label="training", color="0.55")
        ax.plot(history["epoch"], history[f"val_{column}"], label="validation", color="#0072B2")
        ax.set(xlabel="epoch", title=title)
    best = int(_kept(history, monitor)["epoch"])
    for ax in axes[0]:
        ax.axvline(best, color="#D55E00", linestyle=":", label=f"kept: epoch {best}")
    axes[0, 0].legend(frameon=False)
    return figure


def learned(history, scores, monitor="val_loss"):
    """Caption and alternative text of `learning_curves`, for `show`."""
    best, first = _kept(history, monitor), history.iloc[0]
    there = [f"{title}: {best[name]:.3f}, {best[f'val_{name}']:.3f}" for name, title in scores.items()]
    way = [f"{title}: {first[f'val_{name}']:.3f}, {best[f'val_{name}']:.3f}" for name, title in scores.items()]
    return (
        f"Of {len(history)} epochs number {best['epoch']:.0f} was kept. There, in training and in validation: "
        f"{'; '.join(there)}.",
        "Line plots by epoch, training gray and validation blue, the kept epoch dotted. Validation, in the first and "
        f"in the kept epoch: {'; '.join(way)}.",
    )


def fold_curves(history, scores, monitor="val_loss"):
    """`learning_curves` of several folds in one figure: a thin line a fold (column fold), a dot at its kept epoch.

    A loss has a logarithmic axis: else the first epochs press all that follow, and the dots, flat on the ground.
    """
    figure, axes = plt.subplots(1, len(scores), figsize=(4.5 * len(scores), 3.2), squeeze=False)
    for ax, (column, title) in zip(axes[0], scores.items(), strict=True):
        for n, (_, own) in enumerate(history.groupby("fold")):
            names = (None, None, None) if n else ("training", "validation", "kept")
            best = _kept(own, monitor)
            ax.plot(own["epoch"], own[column], color="0.55", linewidth=1, label=names[0])
            ax.plot(own["epoch"], own[f"val_{column}"], color="#0072B2", linewidth=1, label=names[1])
            ax.plot(best["epoch"], best[f"val_{column}"], "o", color="#D55E00", markersize=5, label=names[2])
        ax.set(xlabel="epoch", title=title, yscale="log" if "loss" in column else "linear")
    axes[0, 0].legend(frameon=False)
    return figure


def learned_by_fold(history, scores, monitor="val_loss"):
    """Caption and alternative text of `fold_curves`, for `show`."""
    best = history.groupby("fold").apply(_kept, monitor, include_groups=False)
    spread = [f"{title}: {best[f'val_{n}'].min():.3f} to {best[f'val_{n}'].max():.3f}" for n, title in scores.items()]
    return (
        f"Kept epochs by fold: {listed(best['epoch'].astype(int), '{}')}, of {history['epoch'].max()}. In validation, "
        f"at those epochs, from the lowest to the highest fold: {'; '.join(spread)}.",
        f"Line plots by epoch, a thin line for each of {len(best)} folds, training gray and validation blue, with a "
        "red-orange dot at each kept epoch; losses on a logarithmic axis.",
    )


def _kept(history, monitor):
    """The row of history.csv whose weights were kept."""
    column = history[monitor]
    return history.loc[column.idxmax() if monitor.endswith("accuracy") else column.idxmin()]


def confusion(table):
    """Confusion matrix of a predictions table: counts, with each true class's shares as shades."""
    counts, shares = _confused(table)
    figure, ax = plt.subplots(figsize=(4.8, 3.8))
    notes = np.array(
        [[f"{n}\n{share:.0%}" for n, share in zip(*rows, strict=True)] for rows in zip(counts, shares, strict=True)]
    )
    _matrix(ax, shares, notes)
    return figure


def confusions(table):
    """Confusion matrix of a predictions table twice: counts, and normalised to shares of each true class."""
    counts, shares = _confused(table)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    _matrix(left, shares, counts.astype(str))
    left.set_title("slices")
    _matrix(right, shares, np.vectorize("{:.1%}".format)(shares))
    right.set(title="share of the true class", ylabel="")
    return figure


def confused(table):
    """Caption and alternative text of `confusion` and `confusions`, for `show`."""
    counts, names = _confused(table)[0], list(LABELS.values())
    errors = counts - np.diag(np.diag(counts))
    caption = f"{np.trace(counts)} of {counts.sum()} slices are called right"
    if errors.any():
        true, called = np.unravel_index(errors.argmax(), errors.shape)
        caption += (
            f"; the most frequent error, {errors.max()} of {errors.sum()}, is a {names[true]} called {names[called]}"
        )
    rows = [f"{name}: {listed(zip(names, row, strict=True), '{}')}" for name, row in zip(names, counts, strict=True)]
    return f"{caption}.", f"Confusion matrix. Slices of each true class, by what they are called. {'; '.join(rows)}."


def _confused(table):
    counts = confusion_matrix(table["label"], predicted_label(table), labels=list(LABELS))
    return counts, counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _matrix(ax, shares, notes):
    sns.heatmap(shares, annot=notes, fmt="", cmap="Blues", vmin=0, vmax=1, square=True, cbar=False, ax=ax)
    names = list(LABELS.values())
    ax.set_xticks(np.arange(3) + 0.5, names, rotation=20, ha="right")
    ax.set_yticks(np.arange(3) + 0.5, names, rotation=0)
    ax.set(xlabel="predicted", ylabel="true")


def reliability(tables):
    """Reliability diagram: share right against mean confidence in bins, for predictions tables by name.

    A dot's area is its number of slices; the dotted line is a probability that can be believed.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.8), sharey=True, squeeze=False)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        bins = calibration_bins(table)
        ax.plot([1 / 3, 1], [1 / 3, 1], color="0.6", linestyle=":")
        ax.scatter(bins["confidence"], bins["right"], s=10 + 200 * bins["count"] / len(table), color="#0072B2")
        ax.set(xlabel="mean probability of the called class", title=name)
    axes[0, 0].set(ylabel="share right")
    return figure


def strip(table, score, title):
    """A dot for each row of `table` at its `score` (a column, 0 to 1), a row of dots for each class (column tumor)."""
    figure, ax = plt.subplots(figsize=(6.5, 3))
    order = {"order": list(CLASS_COLORS), "hue_order": list(CLASS_COLORS), "palette": CLASS_COLORS}
    sns.stripplot(table, x=score, y="tumor", hue="tumor", **order, size=3, alpha=0.6, legend=False, ax=ax)
    ax.set(xlim=(-0.02, 1.02), xlabel=title, ylabel="")
    return figure


def roc(table):
    """ROC curves of a predictions table, each class against the rest, with the areas under them.

    A class of which there is no slice, or nothing else, has no curve.
    """
    figure, ax = plt.subplots(figsize=(4.6, 4))
    ax.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    for name, (rate_false, rate_true) in _rates(table).items():
        area = auc(rate_false, rate_true)
        ax.plot(rate_false, rate_true, color=CLASS_COLORS[name], label=f"{name}: area {area:.3f}")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    ax.legend(frameon=False, loc="lower right")
    return figure


def ranked(table):
    """Caption and alternative text of `roc`, for `show`."""
    areas = listed({name: auc(*rates) for name, rates in _rates(table).items()}, "{:.3f}")
    return (
        f"How often a slice of the class gets more of its probability than one of another class: {areas}.",
        "ROC curves, true positive rate against false positive rate, one for each class against the rest, and a dotted "
        f"diagonal. Areas under the curves: {areas}.",
    )


def _rates(table):
    """False and true positive rates of each class that has both: name to two arrays."""
    classes = zip(LABELS.items(), PROBABILITIES, strict=True)
    answers = {name: (table["label"] == label, table[column]) for (label, name), column in classes}
    return {name: roc_curve(true, p)[:2] for name, (true, p) in answers.items() if true.nunique() == 2}


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
    for ax, one, other in zip(figure.axes, true, predicted, strict=False):
        _paint_difference(ax, one, other, alpha=0.65)
    return figure


def mask_panels(true, predicted, title):
    """True mask, predicted mask and their difference, with the counts of pixels and the Dice in the caption.

    `true` and `predicted` (side, side) bool; `title` says which slice it is.
    """
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.8))
    figure.suptitle(title)
    for ax, mask, name in zip(axes, (true, predicted), ("true mask", "predicted mask"), strict=False):
        ax.imshow(mask, cmap="gray", interpolation="nearest")
        ax.set_title(name)
    axes[2].imshow(np.zeros_like(true), cmap="gray", vmin=0, vmax=1)
    both, added, missed = _paint_difference(axes[2], true, predicted, alpha=1)
    axes[2].set_title("difference")
    for ax in axes:
        ax.set_axis_off()
    axes[1].text(
        0.5,
        -0.06,
        f"TP {both:,}, FP {added:,}, FN {missed:,} pixels; Dice {dice(true, predicted):.3f}",
        transform=axes[1].transAxes,
        ha="center",
        va="top",
    )
    return figure


def result(image, mask, title):
    """One slice, its predicted mask, and both together.

    `image` (side, side) of any range, `mask` (side, side) bool; `title` says what the slice is called.
    """
    figure = slice_grid([image, mask, image], ["image", "predicted mask", "overlay"], columns=3)
    overlay = np.zeros((*mask.shape, 4))
    overlay[mask] = (*plt.matplotlib.colors.to_rgb(TRUE_POSITIVE), 0.6)
    figure.axes[2].imshow(overlay, interpolation="nearest")
    figure.suptitle(title)
    return figure


def _paint_difference(ax, true, predicted, alpha):
    """Paint what both masks have, and what only one has, each in its color, with a legend; returns their pixels."""
    parts = {
        "true positive": (TRUE_POSITIVE, true & predicted),
        "false positive": (FALSE_POSITIVE, ~true & predicted),
        "false negative": (FALSE_NEGATIVE, true & ~predicted),
    }
    for color, part in parts.values():
        overlay = np.zeros((*part.shape, 4))
        overlay[part] = (*plt.matplotlib.colors.to_rgb(color), alpha)
        ax.imshow(overlay, interpolation="nearest")
    if not ax.figure.legends:
        handles = [Patch(color=color, label=name) for name, (color, _) in parts.items()]
        place = {"loc": "outside lower center", "fontsize": "small", "columnspacing": 1.2}  # fits under two slices
        ax.figure.legend(handles=handles, ncols=3, frameon=False, **place)
    return [int(part.sum()) for _, part in parts.values()]


def fields(image, maps, titles):
    """How far units of a network see, over a slice: `image` (side, side), `maps` (side, side) from 0 to 1 each."""
    figure, axes = plt.subplots(1, len(maps), figsize=(3 * len(maps), 3.3), squeeze=False)
    for ax, field, title in zip(axes[0], maps, titles, strict=True):
        ax.imshow(image, cmap="gray")
        ax.imshow(field, cmap="autumn", alpha=np.sqrt(field) * 0.8)
        ax.set_title(title)
        ax.set_axis_off()
    return figure


def probabilities(values):
    """Class probabilities of one slice as bars; `values` (3,)."""
    figure, ax = plt.subplots(figsize=(4.5, 1.8))
    bars = ax.barh(list(LABELS.values()), values, color=list(CLASS_COLORS.values()))
    ax.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=4)
    ax.set(xlim=(0, 1.15), xlabel="probability")
    ax.invert_yaxis()
    return figure
