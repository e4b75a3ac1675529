"""Figures of slices and masks."""

import numpy as np
import pytest

from braintumor.plots import slices


@pytest.fixture
def masks():
    """A true and a predicted mask: 2 pixels in both, 1 added, 2 missed."""
    y_true, y_pred = np.zeros((2, 8, 8), bool)
    y_true[2, 2:6] = True
    y_pred[2, 4:7] = True
    return y_true, y_pred


def test_grid_stays_within_the_page():
    figure = slices.plot_slice_grid(np.zeros((7, 8, 8)), ["a"] * 7, columns=5)
    assert figure.figure.get_figwidth() <= 9
    assert sum(bool(ax.images) for ax in figure.figure.axes) == 7


def test_grid_outlines_masks_and_borders(masks):
    images, titles = np.zeros((2, 8, 8)), ["first", "second"]
    outlined = slices.plot_slice_grid(images, titles, masks=[masks[0], None])
    assert [len(ax.collections) for ax in outlined.figure.axes[:2]] == [1, 0]
    border = np.array([[1, 1], [5, 1], [5, 5.0]])
    bordered = slices.plot_slice_grid(images, titles, borders=[border] * 2)
    assert [len(ax.patches) for ax in bordered.figure.axes[:2]] == [1, 1]
    assert "outlined" in bordered.caption and "first; second" in bordered.alt


def test_differences_show_overlap_and_errors(masks):
    y_true, y_pred = masks
    figure = slices.plot_mask_differences([y_true], [y_true * 1], [y_pred], ["a"])
    layers = [image.get_array() for image in figure.figure.axes[0].images[1:]]
    assert [int((layer[..., 3] > 0).sum()) for layer in layers] == [2, 1, 2]
    for layer, color in zip(layers, slices.DIFFERENCE_COLORS.values(), strict=True):
        assert tuple(layer.max(axis=(0, 1))) == slices.to_rgba(color, 0.65)
    assert "0.57" in figure.caption
