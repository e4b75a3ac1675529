"""Figures of slices and masks."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from braintumor.evaluation.metrics import compute_dice
from braintumor.plots import style
from braintumor.plots.style import captioned

DIFFERENCE_COLORS = {
    "true positive": style.TRUE_POSITIVE,
    "false positive": style.FALSE_POSITIVE,
    "false negative": style.FALSE_NEGATIVE,
}
HOW_TO_READ = (
    "Blue is tumor in both masks, yellow in the predicted mask only (false positive), "
    "red in the true mask only (false negative)."
)


@captioned
def plot_slice_grid(images, titles, masks=None, columns=4, borders=None):
    """Plot slices (side, side) side by side, with their tumors outlined.

    `masks` (side, side) or `borders` (points, 2), x and y in pixels, are optional.
    """
    figure, axes = _plot_images(images, titles, columns)
    outline = {"color": style.FALSE_POSITIVE, "linewidth": 0.8}
    for n, ax in enumerate(axes):
        if masks is not None and np.any(masks[n]):
            ax.contour(masks[n], [0.5], colors=outline["color"], linewidths=0.8)
        if borders is not None:
            ax.fill(*borders[n].T, fill=False, **outline)
    outlined = masks is not None or borders is not None
    message = (
        f"Slices: {len(images)}{', tumors outlined in yellow' if outlined else ''}"
    )
    return figure, f"{message}.", f"{message}. {'; '.join(filter(None, titles))}"


@captioned
def plot_mask_differences(images, y_true, y_pred, titles, columns=4):
    """Plot true against predicted masks over slices, overlap and errors in color."""
    figure, axes = _plot_images(images, titles, columns)
    pairs = list(zip(y_true, y_pred, strict=True))
    for ax, pair in zip(axes, pairs, strict=True):
        _overlay_difference(ax, *pair, alpha=0.65)
    dice = [compute_dice(*pair) for pair in pairs]
    caption = (
        f"The Dice of these slices is {min(dice):.2f}–{max(dice):.2f}. {HOW_TO_READ}"
    )
    return figure, caption, f"Slices in gray, masks in color: {'; '.join(titles)}."


@captioned
def plot_mask_panels(y_true, y_pred, title):
    """Plot a true mask, a predicted mask (side, side; bool) and their difference."""
    panels = [y_true, y_pred, np.zeros_like(y_true)]
    names = ["true mask", "predicted mask", "difference"]
    figure, axes = _plot_images(panels, names, columns=3)
    tp, fp, fn = _overlay_difference(axes[2], y_true, y_pred, alpha=1)
    figure.suptitle(title)
    counts = (
        f"{tp:,} true positive, {fp:,} false positive, {fn:,} false negative pixels"
    )
    caption = f"The Dice is {compute_dice(y_true, y_pred):.3f}: {counts}. {HOW_TO_READ}"
    return figure, caption, f"True mask, predicted mask, and both in color: {counts}."


@captioned
def plot_prediction(image, mask, title):
    """Plot a slice, its predicted mask (side, side; bool), and the mask over it."""
    names = ["image", "predicted mask", "overlay"]
    figure, axes = _plot_images([image, mask, image], names, columns=3)
    _overlay(axes[2], mask, style.TRUE_POSITIVE, alpha=0.6)
    figure.suptitle(title)
    size = f"{mask.sum():,} pixels, {mask.mean():.1%} of the slice"
    caption = f"The predicted mask covers {size}. On the right it is blue."
    return (
        figure,
        caption,
        f"Slice, predicted mask, and both: {title}. The mask: {size}.",
    )


def _plot_images(images, titles, columns):
    """Plot a grid within the page's width; returns the figure and the axes in use."""
    rows = -(-len(images) // columns)
    panel = min(2.3, style.MAX_WIDTH / columns)  # inches
    size = (panel * columns, (panel + 0.25) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    used = axes.flat[: len(images)]
    for ax, image, title in zip(used, images, titles, strict=True):
        ax.imshow(image, cmap="gray")
        lines = [textwrap.fill(line, int(13 * panel)) for line in title.split("\n")]
        ax.set_title("\n".join(lines), fontsize="small")
    return figure, used


def _overlay_difference(ax, y_true, y_pred, alpha):
    """Overlay both masks in DIFFERENCE_COLORS; returns the pixels of each color."""
    y_true, y_pred = np.asarray(y_true, bool), np.asarray(y_pred, bool)
    parts = y_true & y_pred, ~y_true & y_pred, y_true & ~y_pred
    for color, part in zip(DIFFERENCE_COLORS.values(), parts, strict=True):
        _overlay(ax, part, color, alpha)
    if not ax.figure.legends:
        handles = [Patch(color=c, label=name) for name, c in DIFFERENCE_COLORS.items()]
        place = {"loc": "outside lower center", "fontsize": "small", "ncols": 3}
        ax.figure.legend(handles=handles, columnspacing=1.2, frameon=False, **place)
    return [int(part.sum()) for part in parts]


def _overlay(ax, mask, color, alpha):
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = (*to_rgb(color), alpha)
    ax.imshow(layer, interpolation="nearest")
