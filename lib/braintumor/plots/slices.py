"""Figures of slices and masks."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from braintumor.evaluation.metrics import compute_dice
from braintumor.plots.style import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    MAX_WIDTH,
    TRUE_POSITIVE,
    CaptionedFigure,
)

DIFFERENCE_COLORS = {
    "true positive": TRUE_POSITIVE,
    "false positive": FALSE_POSITIVE,
    "false negative": FALSE_NEGATIVE,
}
HOW_TO_READ = (
    "Blue is tumor in both masks, yellow in the predicted mask only (false positive), "
    "red in the true mask only (false negative)."
)


def plot_slice_grid(
    images, titles, masks=None, columns=4, borders=None, caption=None, alt=None
):
    """Plot slices side by side.

    Parameters
    ----------
    images : sequence of ndarray, (side, side)
    titles : sequence of str
    masks : sequence of ndarray, (side, side), optional
        Outlined in yellow.
    columns : int
    borders : sequence of ndarray, (points, 2), optional
        Tumor borders to outline instead, as x and y in pixels of the image.
    """
    figure, axes = _plot_images(images, titles, columns)
    for n, ax in enumerate(axes):
        if masks is not None and np.any(masks[n]):
            ax.contour(masks[n], [0.5], colors=[FALSE_POSITIVE], linewidths=0.8)
        if borders is not None:
            ax.fill(*borders[n].T, fill=False, color=FALSE_POSITIVE, linewidth=0.8)
    outlined = masks is not None or borders is not None
    outline = ", the tumor outlined in yellow" if outlined else ""
    return CaptionedFigure(
        figure,
        caption or f"{_count_slices(images)}{outline}.",
        alt or f"{_count_slices(images)} in gray{outline}: {_join_titles(titles)}.",
    )


def plot_mask_differences(
    images, y_true, y_pred, titles, columns=4, caption=None, alt=None
):
    """Plot true against predicted masks over slices, overlap and errors in color."""
    figure, axes = _plot_images(images, titles, columns)
    pairs = list(zip(y_true, y_pred, strict=True))
    for ax, pair in zip(axes, pairs, strict=True):
        _overlay_difference(ax, *pair, alpha=0.65)
    _add_difference_legend(figure)
    dice = [compute_dice(*pair) for pair in pairs]
    return CaptionedFigure(
        figure,
        caption
        or f"Dice of these {len(dice)} slices: {min(dice):.2f}–{max(dice):.2f}. "
        f"{HOW_TO_READ}",
        alt
        or f"{_count_slices(images)} in gray with the masks' overlap in blue, false "
        f"positives in yellow, false negatives in red: {_join_titles(titles)}.",
    )


def plot_mask_panels(y_true, y_pred, title, caption=None, alt=None):
    """Plot a true mask, a predicted mask and their difference with its pixel counts.

    Masks are (side, side) bool; `title` names the slice.
    """
    panels = [y_true, y_pred, np.zeros_like(y_true)]
    names = ["true mask", "predicted mask", "difference"]
    figure, axes = _plot_images(panels, names, columns=3)
    _overlay_difference(axes[2], y_true, y_pred, alpha=1)
    _add_difference_legend(figure)
    figure.suptitle(title)
    tp, fp, fn = (int(part.sum()) for part in _split_difference(y_true, y_pred))
    counts = f"{tp:,} true positive, {fp:,} false positive, {fn:,} false negative"
    return CaptionedFigure(
        figure,
        caption
        or f"The Dice of the two masks is {compute_dice(y_true, y_pred):.3f}: "
        f"{counts} pixels. {HOW_TO_READ}",
        alt or f"True mask, predicted mask, and both in color: {counts} pixels.",
    )


def plot_prediction(image, mask, title, caption=None, alt=None):
    """Plot a slice, its predicted mask (bool), and the mask over the slice."""
    names = ["image", "predicted mask", "overlay"]
    figure, axes = _plot_images([image, mask, image], names, columns=3)
    _overlay(axes[2], mask, TRUE_POSITIVE, alpha=0.6)
    figure.suptitle(title)
    return CaptionedFigure(
        figure,
        caption
        or f"The predicted mask covers {mask.sum():,} pixels, {mask.mean():.1%} of the "
        "slice. On the right it is blue.",
        alt or f"The slice, its predicted mask, and the mask in blue over it: {title}.",
    )


def _plot_images(images, titles, columns):
    """A grid of gray images within the page's width; returns the axes in use."""
    rows = -(-len(images) // columns)
    panel = min(2.3, MAX_WIDTH / columns)  # inches
    size = (panel * columns, (panel + 0.25) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    used = axes.flat[: len(images)]
    for ax, image, title in zip(used, images, titles, strict=True):
        limits = {"vmin": 0, "vmax": 1} if np.asarray(image).dtype == bool else {}
        ax.imshow(image, cmap="gray", **limits)
        lines = [textwrap.fill(line, int(13 * panel)) for line in title.split("\n")]
        ax.set_title("\n".join(lines), fontsize="small")
    return figure, used


def _split_difference(y_true, y_pred):
    """True positive, false positive and false negative pixels of two bool masks."""
    return y_true & y_pred, ~y_true & y_pred, y_true & ~y_pred


def _overlay_difference(ax, y_true, y_pred, alpha):
    parts = _split_difference(np.asarray(y_true, bool), np.asarray(y_pred, bool))
    for color, part in zip(DIFFERENCE_COLORS.values(), parts, strict=True):
        _overlay(ax, part, color, alpha)


def _overlay(ax, mask, color, alpha):
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = (*to_rgb(color), alpha)
    ax.imshow(layer, interpolation="nearest")


def _add_difference_legend(figure):
    handles = [Patch(color=c, label=name) for name, c in DIFFERENCE_COLORS.items()]
    style = {"fontsize": "small", "frameon": False, "columnspacing": 1.2}
    figure.legend(handles=handles, ncols=3, loc="outside lower center", **style)


def _count_slices(images):
    return f"{len(images)} slice{'' if len(images) == 1 else 's'}"


def _join_titles(titles):
    return "; ".join(title for title in titles if title) or "untitled"
