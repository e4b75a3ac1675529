"""Figures of slices and masks."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from braintumor.data.labels import LABELS, MASK_COLOR
from braintumor.evaluation.masks import compute_dice
from braintumor.plots.style import MAX_WIDTH, TEXT_WIDTH, captioned

YELLOW = "#F0E442"
DIFFERENCE_COLORS = {
    "true positive": MASK_COLOR,
    "false positive": YELLOW,
    "false negative": "#D55E00",
}


@captioned
def plot_slice_grid(images, titles, masks=None, columns=4, borders=None):
    """Plot slices side by side, with outlined tumors.

    Parameters
    ----------
    images, masks : sequences of arrays (side, side); masks may be None
    borders : sequence of arrays (points, 2), x and y in pixels, or None
    """
    figure, axes = _plot_images(images, titles, columns)
    message = f"Slices: {len(images)}."
    if masks is not None or borders is not None:
        message = f"Slices: {len(images)}, tumors outlined in yellow."
    for n, ax in enumerate(axes):
        if masks is not None and np.any(masks[n]):
            ax.contour(masks[n], [0.5], colors=YELLOW, linewidths=0.8)
        if borders is not None:
            ax.fill(*borders[n].T, fill=False, ec=YELLOW, lw=0.8)
    return figure, message, f"{message} {'; '.join(filter(None, titles))}"


@captioned
def plot_mask_differences(images, y_true, y_pred, titles, columns=4):
    """Plot predicted over true masks; overlap and errors have different colors.

    `images`, `y_true` and `y_pred` are sequences of arrays (side, side).
    """
    figure, axes = _plot_images(images, titles, columns)
    pairs = [np.array(pair, bool) for pair in zip(y_true, y_pred, strict=True)]
    for ax, (true, pred) in zip(axes, pairs, strict=True):
        parts = true & pred, ~true & pred, true & ~pred
        for color, part in zip(DIFFERENCE_COLORS.values(), parts, strict=True):
            layer = part[..., np.newaxis] * to_rgba(color, alpha=0.65)
            ax.imshow(layer, interpolation="nearest")
    handles = [Patch(color=c, label=name) for name, c in DIFFERENCE_COLORS.items()]
    place = {"loc": "outside lower center", "ncols": 3 if len(axes) > 1 else 1}
    figure.legend(handles=handles, fontsize="small", frameon=False, **place)
    dice = ", ".join(f"{compute_dice(*pair):.2f}" for pair in pairs)
    caption = f"Dice: {dice}. Blue is in both masks, yellow predicted only, red missed."
    return figure, caption, f"Slices in gray, masks in color: {'; '.join(titles)}."


@captioned
def plot_outlines(outlines, images=None, columns=4):
    """Plot the borders of slices in `outlines.json` near the tumor, over any images."""
    if images is None:  # white
        images = [np.full((o["side"], o["side"], 3), 255, np.uint8) for o in outlines]
    titles = [
        f"{LABELS[o['y_true']]}\nDice {o['dice']:.2f}, slice {o['file']}"
        for o in outlines
    ]
    figure, axes = _plot_images(images, titles, columns, TEXT_WIDTH)
    lines = {"head": "0.6", "true": "#0072B2", "predicted": "#D55E00"}
    for ax, image, outline in zip(axes, images, outlines, strict=True):
        scale = len(image) / outline["side"]
        for name, color in lines.items():
            borders = [outline["head"]] if name == "head" else outline[name]
            for border in borders:
                x, y = scale * np.array(border).T
                ax.plot(x, y, color, lw=1.5, ls="--" if name == "predicted" else "-")
        points = scale * np.concatenate(outline["true"] + outline["predicted"])
        center, half = (points.max(0) + points.min(0)) / 2, np.ptp(points, axis=0).max()
        half = max(0.7 * half, 0.16 * len(image))
        ax.set(xlim=center[0] + [-half, half], ylim=center[1] + [half, -half])
    handles = [Patch(color=c, label=f"{name} border") for name, c in lines.items()]
    place = {"loc": "outside lower center", "ncols": 2, "frameon": False}
    figure.legend(handles=handles[1:], fontsize="small", **place)
    dice = [o["dice"] for o in outlines]
    caption = f"Dice from {min(dice):.2f} to {max(dice):.2f}. Blue: the dataset's "
    caption += "border; dashed red: the predicted one; gray: the head."
    return figure, caption, f"Borders of tumors: {'; '.join(titles)}."


def _plot_images(images, titles, columns, width=MAX_WIDTH):
    """Plot a grid of at most `width` inches; returns the figure and the axes in use."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    panel = min(3, width / columns)  # inches
    size = (panel * columns, (panel + 0.25) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    used = axes.flat[: len(images)]
    for ax, image, title in zip(used, images, titles, strict=True):
        ax.imshow(image, cmap="gray")
        lines = [textwrap.fill(line, int(13 * panel)) for line in title.split("\n")]
        ax.set_title("\n".join(lines), fontsize=10.5, parse_math=False)
    return figure, used
