"""Figures of the prose pages, made from committed tables whenever the book is built."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Patch

from braintumor.core.files import ROOT
from braintumor.data.figshare import load_figshare_index
from braintumor.data.labels import CLASS_COLORS, LABELS, PLANES
from braintumor.data.splits import patient_family, patient_source
from braintumor.evaluation.metrics import accuracy
from braintumor.evaluation.scores import load_predictions, score_with_ci
from braintumor.models.joint import build_joint
from braintumor.plots.architecture import plot_architecture
from braintumor.plots.slices import plot_outlines
from braintumor.plots.style import (
    PROTOCOL_COLORS,
    CaptionedFigure,
    format_values,
    set_style,
)

PUBLISHED = ROOT / "results" / "published"
PROTOCOLS = {"slice": "by slice", "official": "by patient", "family": "by family"}
COLORS = {
    "training": "#56B4E9",
    "validation": "#F0E442",
    "test": "#D55E00",
    "not used": "0.85",
}
PATIENTS = {"A": 4, "B": 3, "C": 4, "D": 3, "E": 4, "MR1": 3, "MR1B": 3, "MR2": 4}
ABC = ["training"] * 3
PARTS = {  # by protocol: the part of each patient; None: of each slice, at random
    "slice": None,
    "official": [*ABC, "validation", "test", "test", "training", "training"],
    "family": [*ABC, "validation", "test", "test", "test", "training"],
    "source": [*ABC, "validation", "test", "test", "not used", "not used"],
}


def plot_splits():
    """Plot the part of each slice of eight patients under the four protocols."""
    figure, ax = plt.subplots(figsize=(7, 2.9))
    n_slices, left = sum(PATIENTS.values()), 0
    shares = [0.65, 0.15, 0.2, 0]
    parts_at_random = np.random.default_rng(2).choice(list(COLORS), n_slices, p=shares)
    for n, (patient, count) in enumerate(PATIENTS.items()):
        ax.text(left + count / 2, -0.2, patient, ha="center", va="bottom", size=9)
        for row, parts in enumerate(PARTS.values()):
            first = sum(list(PATIENTS.values())[:n])
            row_parts = [parts[n]] * count if parts else parts_at_random[first:][:count]
            for k, part in enumerate(row_parts):
                square = plt.Rectangle((left + k, row), 0.85, 0.7, fc=COLORS[part])
                ax.add_patch(square)
        left += count + 0.8
    ax.set(xlim=(-0.3, left), ylim=(len(PARTS) - 0.1, -0.8), xticks=[])
    ax.set(yticks=np.arange(len(PARTS)) + 0.35, yticklabels=PARTS)
    ax.tick_params("y", length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    handles = [Patch(color=color, label=part) for part, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return CaptionedFigure(
        figure,
        "Only the split by slice puts slices of one patient in training and test. A "
        "square is a slice, a group a patient, a row a protocol, in one of five folds. "
        "MR1 and MR1B are one family; MR is the source that holds gliomas alone.",
        "Diagram of training, validation and test slices of eight patients under the "
        "protocols slice, official, family and source.",
    )


def plot_slices():
    """Plot the number of slices by class, source and plane."""
    index = load_figshare_index()
    sources = index["pid"].map(patient_source)
    rows = {
        f"{tumor}, {source}": index[(index["label"] == label) & (sources == source)]
        for label, tumor in LABELS.items()
        for source in ("MR", "digits")
    }
    counts = {name: part["plane"].value_counts() for name, part in rows.items()}
    table = pd.DataFrame(counts).T.dropna(how="all")[list(PLANES[:3])].fillna(0)
    figure, ax = plt.subplots(figsize=(6.8, 2.6))
    colors = ["#0072B2", "#56B4E9", "0.7"]
    table.plot.barh(stacked=True, ax=ax, color=colors, width=0.7, legend=False)
    totals = table.sum(axis=1).astype(int)
    for y, (name, total) in enumerate(totals.items()):
        n_patients = rows[name]["pid"].nunique()
        ax.text(total, y, f" {total:,} of {n_patients} patients", va="center", size=9)
    ax.invert_yaxis()
    ax.set(xlabel="slices", xlim=(0, 1.3 * totals.max()))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return CaptionedFigure(
        figure,
        "The source MR holds gliomas alone; all classes come from the other source. A "
        "bar is a class and source, its colors are planes.",
        f"Bar chart of slices by class and source: {format_values(totals, '{:,}')}.",
    )


def score_protocols():
    """Score the networks by protocol, the published ones last within one source."""
    scores = {}
    for protocol, title in PROTOCOLS.items():
        table, _ = load_predictions(PUBLISHED / "leakage" / protocol, "classify")
        families = table["pid"].map(patient_family)
        scores[f"original CNN, {title}", protocol] = score_with_ci(
            table, accuracy, groups=families
        )
    for name, run, protocol, score in (
        ("one network, by patient", "heads-128", "official", "accuracy"),
        ("one network, by family", "full-family", "family", "accuracy"),
        ("ours, by patient", "full", "official", "accuracy"),
        ("ours, by patient*", "full", "official", "balanced accuracy"),
        ("ours, one source*", "full", "", "single-source balanced accuracy"),
    ):
        published = json.loads((PUBLISHED / run / "scores.json").read_text())
        scores[name, protocol] = published["classify"][f"{score} by slice"]
    return scores


def plot_protocols():
    """Plot the accuracy of networks by protocol, and within one source."""
    figure, ax = plt.subplots(figsize=(3.4, 3.6))
    scores = score_protocols()
    labels, values = [name for name, _ in scores], []
    for y, ((_, protocol), score) in enumerate(scores.items()):
        color = PROTOCOL_COLORS.get(protocol, "0.2")
        ax.plot([score["low"], score["high"]], [y, y], color=color)
        ax.plot(score["value"], y, "o", color=color)
        values.append(f"{score['value']:.1%}")
        ax.text(score["value"], y - 0.18, values[-1], ha="center", va="bottom", size=9)
    ax.set(yticks=range(len(labels)), yticklabels=labels)
    ax.set(ylim=(len(labels) - 0.5, -0.8))
    ax.set_xlabel("accuracy by slice", size=9)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.tick_params(labelsize=9)
    texts = map(" ".join, zip(labels, values, strict=True))
    return CaptionedFigure(
        figure,
        "The original CNN is less accurate when training and test share no patient. "
        "Ours is the mean of three networks. *Balanced accuracy falls within the one "
        "source that has all classes. Lines are 95% intervals.",
        f"Dot plot of accuracy with intervals: {'; '.join(texts)}.",
    )


def plot_dice():
    """Plot the distribution of Dice of the published run by class."""
    table, _ = load_predictions(PUBLISHED / "full", "segment")
    table = table.assign(tumor=table["y_true"].map(LABELS))
    names = list(LABELS.values())
    figure, ax = plt.subplots(figsize=(3.4, 3.1))
    style = {"palette": CLASS_COLORS, "cut": 0, "inner": "quart", "legend": False}
    style |= {"order": names, "density_norm": "width", "linewidth": 1}
    sns.violinplot(table, x="tumor", y="dice", hue="tumor", ax=ax, **style)
    means = table.groupby("tumor")["dice"].mean()
    labels = [f"{name.split()[0]}\nmean {means[name]:.2f}" for name in names]
    ax.set_xticks(range(len(names)), labels)
    ax.set(xlabel="", ylim=(-0.02, 1.02))
    ax.set_ylabel("Dice of a slice", size=9)
    ax.tick_params(labelsize=9)
    texts = ", ".join(f"{name} {means[name]:.2f}" for name in names)
    return CaptionedFigure(
        figure,
        "Segmentation is weakest on gliomas: some masks miss the tumor. A violin is "
        "the distribution over slices; lines in it are quartiles.",
        f"Violin plot of Dice by class. Means: {texts}.",
    )


def plot_masks():
    """Plot a good, a typical and a bad mask of the published run."""
    outlines = json.loads((PUBLISHED / "full" / "outlines.json").read_text())["slices"]
    groups = dict.fromkeys(outline["group"] for outline in outlines)
    for group in groups:  # the middle one of each
        members = [outline for outline in outlines if outline["group"] == group]
        groups[group] = members[len(members) // 2]
    return plot_outlines(
        list(groups.values()),
        columns=3,
        caption=f"Masks, from left to right: {', '.join(groups)}. Blue: the "
        "radiologists' border; dashed red: the predicted one; gray: the head.",
    )


def plot_published_network():
    """Plot the residual network of the published run."""
    return plot_architecture(build_joint(128, 32))


FIGURES = {
    "splits": plot_splits,
    "architecture": plot_published_network,
    "slices": plot_slices,
    "masks": plot_masks,
    "accuracy": plot_protocols,
    "dice": plot_dice,
}


def save_figures(folder):
    """Save each figure as HTML, which a page includes by the directive `raw`."""
    set_style()
    folder.mkdir(parents=True, exist_ok=True)
    for name, plot in FIGURES.items():
        (folder / f"{name}.html").write_text(plot()._repr_html_())
