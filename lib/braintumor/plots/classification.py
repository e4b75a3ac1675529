"""Figures of class probabilities: confusion matrix, ROC curves, calibration, scores."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from sklearn.metrics import auc, confusion_matrix, roc_curve

from braintumor.data.labels import LABELS
from braintumor.evaluation.bootstrap import mean_interval
from braintumor.evaluation.metrics import (
    PROBABILITY_COLUMNS,
    bin_by_confidence,
    calibration_error,
    predict_classes,
)
from braintumor.plots.style import (
    CLASS_COLORS,
    MAX_WIDTH,
    CaptionedFigure,
    format_values,
)

NAMES = list(LABELS.values())


def plot_confusion_matrix(table, caption=None, alt=None):
    """Plot the confusion matrix of a predictions table: counts and shares per cell."""
    counts, recall = _count_confusions(table)
    figure, ax = plt.subplots(figsize=(4.8, 3.8))
    cells = zip(counts.flat, recall.flat, strict=True)
    texts = [f"{count}\n{share:.0%}" for count, share in cells]
    _plot_matrix(ax, recall, np.reshape(texts, counts.shape))
    caption = caption or _describe_confusions(counts) + (
        " Rows are true classes; shade and percentage are the share of the row."
    )
    return CaptionedFigure(figure, caption, alt or _list_confusions(counts))


def plot_confusion_matrices(table, caption=None, alt=None):
    """Plot the confusion matrix of a predictions table as counts and as shares."""
    counts, recall = _count_confusions(table)
    figure, (left, right) = plt.subplots(1, 2, figsize=(MAX_WIDTH, 3.8))
    _plot_matrix(left, recall, counts.astype(str))
    left.set_title("slices")
    _plot_matrix(right, recall, np.vectorize("{:.1%}".format)(recall))
    right.set(title="share of the true class", ylabel="")
    caption = caption or _describe_confusions(counts) + (
        " Rows are true classes: counts on the left, shares of the row on the right."
    )
    return CaptionedFigure(figure, caption, alt or _list_confusions(counts))


def _count_confusions(table):
    """Counts (3, 3) and their share of each row."""
    counts = confusion_matrix(table["y_true"], predict_classes(table), labels=[*LABELS])
    return counts, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _plot_matrix(ax, shares, texts):
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "square": True, "cbar": False}
    sns.heatmap(shares, annot=texts, fmt="", ax=ax, **style)
    ax.set_xticks(np.arange(3) + 0.5, NAMES, rotation=20, ha="right")
    ax.set_yticks(np.arange(3) + 0.5, NAMES, rotation=0)
    ax.set(xlabel="predicted class", ylabel="true class")


def _describe_confusions(counts):
    """Accuracy, and the class with the lowest recall."""
    total, correct = counts.sum(), np.trace(counts)
    if correct == total:
        return f"All {total:,} slices are classified correctly."
    n_true = counts.sum(axis=1)
    errors = n_true - np.diag(counts)
    shares = np.where(n_true > 0, errors / np.maximum(n_true, 1), 0)
    worst = shares.argmax()
    return (
        f"Recall is lowest for {NAMES[worst]}, {1 - shares[worst]:.1%}: "
        f"{errors[worst]} of {n_true[worst]:,} slices are misclassified. "
        f"Accuracy is {correct / total:.1%} ({correct:,} of {total:,} slices)."
    )


def _list_confusions(counts):
    rows = [
        f"{name}: {format_values(zip(NAMES, row, strict=True), '{}')}"
        for name, row in zip(NAMES, counts, strict=True)
    ]
    return f"Confusion matrix. Predictions per true class. {'; '.join(rows)}."


def plot_roc_curves(table, caption=None, alt=None):
    """Plot the ROC curve of each class against the rest.

    A class without positive or without negative slices has no curve.
    """
    figure, ax = plt.subplots(figsize=(6.8, 4))
    ax.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    areas = {}
    for (label, name), column in zip(LABELS.items(), PROBABILITY_COLUMNS, strict=True):
        y_true = table["y_true"] == label
        if y_true.nunique() < 2:
            continue
        fpr, tpr, _ = roc_curve(y_true, table[column])
        areas[name] = auc(fpr, tpr)
        label = f"{name}: {areas[name]:.3f}"
        ax.plot(fpr, tpr, color=CLASS_COLORS[name], label=label)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    if areas:
        figure.legend(loc="outside right center", frameon=False, title="area under ROC")
    listed = format_values(areas, "{:.3f}") or "no class has positives and negatives"
    return CaptionedFigure(
        figure,
        caption
        or f"Area under the ROC curve, each class against the rest: {listed}. "
        "It is the probability that a slice of the class ranks above another slice.",
        alt or f"ROC curves, one per class, and a dotted diagonal. Areas: {listed}.",
    )


def plot_reliability(tables, caption=None, alt=None):
    """Plot accuracy and number of slices by confidence, per named predictions table.

    Intervals are 95% of a bootstrap over patients within the bin.
    """
    width = min(4.2 * len(tables), MAX_WIDTH)
    figure, axes = plt.subplots(
        2, len(tables), figsize=(width, 4.6), height_ratios=(3, 1), squeeze=False,
        sharex=True, sharey="row",
    )  # fmt: skip
    for (ax, counts), (name, table) in zip(axes.T, tables.items(), strict=True):
        bins = bin_by_confidence(table)
        accuracy, interval = bins["accuracy"], _bin_intervals(table, bins)
        error = np.abs(interval.T - accuracy.to_numpy())
        ax.plot([1 / 3, 1], [1 / 3, 1], color="0.6", linestyle=":")
        style = {"fmt": "o", "color": "#0072B2", "markersize": 4, "linewidth": 1}
        ax.errorbar(bins["confidence"], accuracy, yerr=error, **style)
        ax.set(title=name)
        counts.bar(bins["confidence"], bins["count"], width=0.035, color="0.6")
        counts.set(xlabel="confidence")
    axes[0, 0].set(ylabel="accuracy")
    axes[1, 0].set(ylabel="slices")
    errors = {name: calibration_error(table) for name, table in tables.items()}
    return CaptionedFigure(
        figure,
        caption
        or f"Expected calibration error: {format_values(errors, '{:.3f}')}. Dots below "
        "the dotted diagonal are overconfident; bars are 95% intervals over patients, "
        "and the lower panels count slices.",
        alt
        or "Reliability diagrams of accuracy against confidence with the diagonal, and "
        f"bar plots of the number of slices: {', '.join(tables)}.",
    )


def _bin_intervals(table, bins, n_bins=15):
    """95% intervals (n, 2) of the accuracy in each row of `bins`."""
    confidence = table[PROBABILITY_COLUMNS].to_numpy().max(axis=1)
    numbers = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    correct = (predict_classes(table) == table["y_true"].to_numpy()).astype(float)
    pid = table["pid"].to_numpy()
    parts = [numbers == number for number in np.unique(numbers)]
    return np.array([mean_interval(correct[part], pid[part]) for part in parts])


def plot_class_probabilities(values, caption=None, alt=None):
    """Plot the class probabilities (3,) of one slice as bars."""
    figure, ax = plt.subplots(figsize=(4.5, 1.8))
    bars = ax.barh(NAMES, values, color=list(CLASS_COLORS.values()))
    ax.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=4)
    ax.set(xlim=(0, 1.15), xlabel="probability")
    ax.invert_yaxis()
    best = int(np.argmax(values))
    listed = format_values(zip(NAMES, values, strict=True), "{:.1%}")
    return CaptionedFigure(
        figure,
        caption or f"The predicted class is {NAMES[best]} ({values[best]:.1%}).",
        alt or f"Bar plot of the class probabilities: {listed}.",
    )


def plot_score_strip(table, column, title, caption=None, alt=None):
    """Plot a dot per row at its score (`column`, 0 to 1), a line of dots per tumor."""
    figure, ax = plt.subplots(figsize=(6.5, 3))
    colors = {"hue": "tumor", "hue_order": NAMES, "palette": CLASS_COLORS}
    style = {"size": 3, "alpha": 0.6, "legend": False}
    sns.stripplot(table, x=column, y="tumor", order=NAMES, ax=ax, **colors, **style)
    ax.set(xlim=(-0.02, 1.02), xlabel=title, ylabel="")
    scores = table.groupby("tumor")[column]
    means, lowest = scores.mean(), scores.mean().idxmin()
    return CaptionedFigure(
        figure,
        caption
        or f"The mean is lowest for {lowest}: {title}, {format_values(means)}. "
        f"Each of the {len(table):,} dots is a row of its tumor.",
        alt
        or f"Strip plot of {title}, a row per tumor. Medians: "
        f"{format_values(scores.median())}.",
    )
