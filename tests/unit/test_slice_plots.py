"""Figures of slices and masks."""

import numpy as np
import pytest

from braintumor.plots import slices
from braintumor.plots.style import FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE


@pytest.fixture
def masks():
    """A true and a predicted mask: 2 pixels in both, 1 added, 2 missed."""
    y_true, y_pred = np.zeros((2, 8, 8), bool)
    y_true[2, 2:6] = True
    y_pred[2, 4:7] = True
    return y_true, y_pred


@pytest.mark.parametrize("columns", [2, 4, 5])
def test_grid_stays_within_the_page(columns):
    figure = slices.plot_slice_grid(np.zeros((7, 8, 8)), ["a"] * 7, columns=columns)
    assert figure.figure.get_figwidth() <= 9
    assert sum(bool(ax.images) for ax in figure.figure.axes) == 7


def test_grid_outlines_masks_and_borders(masks):
    images, titles = np.zeros((2, 8, 8)), ["first", "second"]
    outlined = slices.plot_slice_grid(
        images, titles, masks=[masks[0], masks[0] & False]
    )
    assert [len(ax.collections) for ax in outlined.figure.axes[:2]] == [1, 0]
    border = np.array([[1, 1], [5, 1], [5, 5.0]])
    bordered = slices.plot_slice_grid(images, titles, borders=[border] * 2)
    assert [len(ax.patches) for ax in bordered.figure.axes[:2]] == [1, 1]
    assert "outlined" in bordered.caption and "first; second" in bordered.alt


def test_texts_can_be_replaced():
    images = np.zeros((1, 8, 8))
    figure = slices.plot_slice_grid(images, [""], caption="Mine.", alt="Black.")
    assert (figure.caption, figure.alt) == ("Mine.", "Black.")


def painted_pixels(ax):
    """Number of opaque pixels of each overlay."""
    return [int((image.get_array()[..., 3] > 0).sum()) for image in ax.images[1:]]


def test_differences_show_overlap_and_errors(masks):
    y_true, y_pred = masks
    figure = slices.plot_mask_differences(
        [y_true * 9], [y_true.astype("uint8")], [y_pred], ["a"]
    )
    assert painted_pixels(figure.figure.axes[0]) == [2, 1, 2]
    colors = [patch.get_facecolor() for patch in figure.figure.legends[0].get_patches()]
    expected = [TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE]
    assert colors == [slices.to_rgb(color) + (1,) for color in expected]
    assert "0.57" in figure.caption


def test_mask_panels_count_pixels(masks):
    caption = slices.plot_mask_panels(*masks, "disc").caption
    assert "The Dice is 0.571" in caption
    assert "2 true positive, 1 false positive, 2 false negative" in caption


def test_prediction_shows_the_mask_over_the_slice(masks):
    figure = slices.plot_prediction(np.ones((8, 8)), masks[1], "glioma")
    assert painted_pixels(figure.figure.axes[2]) == [3]
    assert "3 pixels, 4.7%" in figure.caption and "glioma" in figure.alt
