"""Figures of class probabilities: confusion matrix, calibration, scores."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from sklearn.metrics import confusion_matrix

from braintumor.data.labels import CLASS_COLORS, LABELS
from braintumor.evaluation import metrics
from braintumor.evaluation.bootstrap import mean_interval
from braintumor.plots.style import MAX_WIDTH, captioned, format_values

NAMES = list(LABELS.values())


@captioned
def plot_confusion_matrix(table):
    """Plot the confusion matrix of a predictions table: count and share per cell."""
    y_true, y_pred = table["y_true"], metrics.predict_classes(table)
    counts = confusion_matrix(y_true, y_pred, labels=list(LABELS))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = np.vectorize("{}\n{:.1%}".format)(counts, shares)
    figure, ax = plt.subplots(figsize=(5.2, 3.6))
    cells = pd.DataFrame(shares, NAMES, NAMES)
    sns.heatmap(cells, annot=texts, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False)
    ax.tick_params("y", rotation=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    recall = {name: shares[k, k] for k, name in enumerate(NAMES) if any(counts[k])}
    caption = f"Accuracy is {np.mean(y_true == y_pred):.1%} of {len(table):,} slices. "
    caption += f"Recall (shade): {format_values(recall, '{:.1%}')}."
    rows = format_values(zip(NAMES, counts.tolist(), strict=True), "{}")
    return figure, caption, f"Confusion matrix, true class (slices predicted): {rows}."


@captioned
def plot_reliability(tables):
    """Plot accuracy and number of slices by confidence, per named predictions table."""
    size = (min(4.2 * len(tables), MAX_WIDTH), 4.6)
    layout = {"sharex": True, "sharey": "row", "height_ratios": (3, 1)}
    figure, axes = plt.subplots(2, len(tables), figsize=size, squeeze=False, **layout)
    for (ax, ax_counts), (name, table) in zip(axes.T, tables.items(), strict=True):
        ax.axline((1, 1), slope=1, color="0.6", linestyle=":")
        for _, rows in table.groupby(metrics.bin_confidence(table)):
            confidence = rows[metrics.PROBABILITY_COLUMNS].max(axis=1).mean()
            is_correct = metrics.predict_classes(rows) == rows["y_true"]
            ax.plot(confidence, is_correct.mean(), "o", c="#0072B2", ms=4)
            ax.vlines(confidence, *mean_interval(is_correct, rows["pid"]), "#0072B2")
            ax_counts.bar(confidence, len(rows), width=0.035, color="0.6")
        ax.set_title(name)
        ax_counts.set(xlabel="confidence", yscale="log", ylim=(0.5, None))
        ax_counts.yaxis.set_major_formatter("{x:g}")
        ax_counts.yaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("slices")
    ece = {name: metrics.calibration_error(table) for name, table in tables.items()}
    caption = f"Expected calibration error: {format_values(ece, '{:.3f}')}. Dots below "
    caption += "the diagonal are overconfident; bars are 95% intervals over patients."
    return figure, caption, f"Accuracy, slices by confidence: {', '.join(tables)}."


@captioned
def plot_score_strip(table, column, title):
    """Plot a dot per row at its score (`column`, 0 to 1), a line of dots per tumor."""
    figure, ax = plt.subplots(figsize=(6.5, 3))
    style = {"palette": CLASS_COLORS, "size": 3, "alpha": 0.6, "legend": False}
    sns.stripplot(table, x=column, y="tumor", hue="tumor", order=NAMES, **style)
    ax.set(xlim=(-0.02, 1.02), xlabel=title, ylabel="")
    scores = table.groupby("tumor")[column]
    alt = f"Strip plot of {title}. Medians: {format_values(scores.median())}."
    return figure, f"Means: {format_values(scores.mean())}. Dots: {title}.", alt
