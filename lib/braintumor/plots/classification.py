"""Figures of class probabilities: confusion matrix, ROC curves, calibration, scores."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from sklearn.metrics import auc, confusion_matrix, roc_curve

from braintumor.data.labels import LABELS
from braintumor.evaluation import metrics
from braintumor.evaluation.bootstrap import mean_interval
from braintumor.plots.style import CLASS_COLORS, MAX_WIDTH, captioned, format_values

NAMES = list(LABELS.values())


@captioned
def plot_confusion_matrix(table):
    """Plot the confusion matrix of a predictions table: count and share per cell."""
    counts, shares, caption, alt = _summarize_confusions(table)
    figure, ax = plt.subplots(figsize=(4.8, 3.8))
    cells = zip(counts.flat, shares.flat, strict=True)
    texts = [f"{count}\n{share:.0%}" for count, share in cells]
    _plot_matrix(ax, shares, np.reshape(texts, counts.shape))
    return figure, caption, alt


@captioned
def plot_confusion_matrices(table):
    """Plot the confusion matrix of a predictions table as counts and as shares."""
    counts, shares, caption, alt = _summarize_confusions(table)
    figure, (left, right) = plt.subplots(1, 2, figsize=(MAX_WIDTH, 3.8))
    _plot_matrix(left, shares, counts.astype(str))
    left.set_title("slices")
    _plot_matrix(right, shares, np.vectorize("{:.1%}".format)(shares))
    right.set(title="share of the true class", ylabel="")
    return figure, caption, alt


def _summarize_confusions(table):
    """Counts (3, 3), their shares of each true class, caption and alternative text."""
    y_pred = metrics.predict_classes(table)
    counts = confusion_matrix(table["y_true"], y_pred, labels=list(LABELS))
    n_true, correct = counts.sum(axis=1), np.diag(counts)
    shares = counts / np.maximum(n_true, 1)[:, None]
    recall = np.where(n_true > 0, np.diag(shares), 1)
    worst, accuracy = recall.argmin(), correct.sum() / len(table)
    message = f"All {len(table):,} slices are classified correctly."
    if accuracy < 1:
        errors = f"{n_true[worst] - correct[worst]} of {n_true[worst]:,} slices"
        message = (
            f"Recall is lowest for {NAMES[worst]}, {recall[worst]:.1%}: {errors} are "
            f"misclassified. Accuracy is {accuracy:.1%} of {len(table):,} slices."
        )
    rows = [format_values(zip(NAMES, row, strict=True), "{}") for row in counts]
    listed = "; ".join(f"{n}: {row}" for n, row in zip(NAMES, rows, strict=True))
    caption = f"{message} Rows are true classes; shade is the share of the row."
    return (
        counts,
        shares,
        caption,
        f"Confusion matrix, true class: predicted. {listed}.",
    )


def _plot_matrix(ax, shares, texts):
    style = {"cmap": "Blues", "vmin": 0, "vmax": 1, "square": True, "cbar": False}
    sns.heatmap(shares, annot=texts, fmt="", ax=ax, **style)
    ax.set_xticks(np.arange(3) + 0.5, NAMES, rotation=20, ha="right")
    ax.set_yticks(np.arange(3) + 0.5, NAMES, rotation=0)
    ax.set(xlabel="predicted class", ylabel="true class")


@captioned
def plot_roc_curves(table):
    """Plot the ROC curve of each class against the rest, if the table has both."""
    figure, ax = plt.subplots(figsize=(6.8, 4))
    ax.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    areas = {}
    columns = zip(LABELS.items(), metrics.PROBABILITY_COLUMNS, strict=True)
    for (label, name), column in columns:
        y_true = table["y_true"] == label
        if y_true.nunique() == 2:
            fpr, tpr, _ = roc_curve(y_true, table[column])
            areas[name] = auc(fpr, tpr)
            text = f"{name}: {areas[name]:.3f}"
            ax.plot(fpr, tpr, color=CLASS_COLORS[name], label=text)
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    figure.legend(loc="outside right center", frameon=False, title="area under ROC")
    lowest = format_values(
        sorted(areas.items(), key=lambda item: item[1])[:1], "{:.3f}"
    )
    caption = (
        f"The area under the ROC curve is lowest for {lowest}. It is the probability "
        "that a slice of the class ranks above a slice of another class."
    )
    return (
        figure,
        caption,
        f"ROC curves. Areas: {format_values(areas, '{:.3f}')}.",
    )


@captioned
def plot_reliability(tables):
    """Plot accuracy and number of slices by confidence, per named predictions table."""
    size = (min(4.2 * len(tables), MAX_WIDTH), 4.6)
    layout = {
        "squeeze": False,
        "sharex": True,
        "sharey": "row",
        "height_ratios": (3, 1),
    }
    figure, axes = plt.subplots(2, len(tables), figsize=size, **layout)
    for (ax, ax_counts), (name, table) in zip(axes.T, tables.items(), strict=True):
        bins = metrics.bin_by_confidence(table)
        errors = np.abs(_bin_intervals(table) - bins[["accuracy"]].to_numpy()).T
        ax.plot([1 / 3, 1], [1 / 3, 1], color="0.6", linestyle=":")
        style = {"fmt": "o", "color": "#0072B2", "markersize": 4, "linewidth": 1}
        ax.errorbar(bins["confidence"], bins["accuracy"], yerr=errors, **style)
        ax.set_title(name)
        ax_counts.bar(bins["confidence"], bins["count"], width=0.035, color="0.6")
        ax_counts.set(xlabel="confidence", yscale="log", ylim=(0.5, None))
        ax_counts.yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set(ylabel="accuracy")
    axes[1, 0].set(ylabel="slices")
    ece = {name: metrics.calibration_error(table) for name, table in tables.items()}
    caption = (
        f"Expected calibration error: {format_values(ece, '{:.3f}')}. Dots below the "
        "diagonal are overconfident; bars are 95% intervals by bootstrap over patients."
    )
    alt = "Accuracy against confidence with the diagonal; below, slices per bin: "
    return figure, caption, f"{alt}{', '.join(tables)}."


def _bin_intervals(table, n_bins=15):
    """95% intervals (n, 2) of the accuracy in each bin of `bin_by_confidence`."""
    confidence = table[metrics.PROBABILITY_COLUMNS].to_numpy().max(axis=1)
    numbers = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    correct = metrics.predict_classes(table) == table["y_true"].to_numpy()
    parts = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    pid = table["pid"].to_numpy()
    return np.array([mean_interval(correct[part], pid[part]) for part in parts])


@captioned
def plot_class_probabilities(values):
    """Plot the class probabilities (3,) of one slice as bars."""
    figure, ax = plt.subplots(figsize=(4.5, 1.8))
    bars = ax.barh(NAMES, values, color=list(CLASS_COLORS.values()))
    ax.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=4)
    ax.set(xlim=(0, 1.15), xlabel="probability")
    ax.invert_yaxis()
    listed = format_values(zip(NAMES, values, strict=True), "{:.1%}")
    caption = (
        f"The predicted class is {NAMES[np.argmax(values)]} ({np.max(values):.1%})."
    )
    return figure, caption, f"Bar plot of the class probabilities: {listed}."


@captioned
def plot_score_strip(table, column, title):
    """Plot a dot per row at its score (`column`, 0 to 1), a line of dots per tumor."""
    figure, ax = plt.subplots(figsize=(6.5, 3))
    colors = {"hue": "tumor", "hue_order": NAMES, "palette": CLASS_COLORS}
    style = {"size": 3, "alpha": 0.6, "legend": False}
    sns.stripplot(table, x=column, y="tumor", order=NAMES, ax=ax, **colors, **style)
    ax.set(xlim=(-0.02, 1.02), xlabel=title, ylabel="")
    scores = table.groupby("tumor")[column]
    means, medians = scores.mean(), format_values(scores.median())
    caption = (
        f"{title}: the mean is lowest for {means.idxmin()}. Means: "
        f"{format_values(means)}. A dot per row of the table, a line of dots per tumor."
    )
    return (
        figure,
        caption,
        f"Strip plot of {title}, a line per tumor. Medians: {medians}.",
    )
