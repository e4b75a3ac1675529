"""Intensities between percentiles become 0 to 255; masks keep half-covered pixels."""

import numpy as np
import pytest

from braintumor.data.preprocessing import (
    find_intensity_problem,
    pad_to_square,
    preprocess_slice,
    resize_mask,
    to_network_input,
)

RAMP = np.arange(10_000, dtype=np.int16).reshape(100, 100)


def test_percentiles_become_black_and_white():
    scaled = preprocess_slice(RAMP, 100)
    assert scaled.dtype == np.uint8
    assert (scaled == 0).mean() == pytest.approx(0.01, abs=0.003)
    assert (scaled == 255).mean() == pytest.approx(0.005, abs=0.003)
    exact = np.clip((RAMP - 99.99) / (9949.005 - 99.99) * 255, 0, 255)
    assert np.abs(scaled - exact).max() <= 0.51
    outlier = np.where(RAMP == 9999, 30_000, RAMP) - 700
    assert preprocess_slice(outlier, 100, (0, 100))[-1, -2] == round(9998 / 30e3 * 255)
    assert preprocess_slice(outlier, 100)[-1, -2] == 255
    few = np.eye(1, 4096, 3).reshape(64, 64)  # bright pixels
    assert preprocess_slice(few, 64).sum() == 255


def test_smaller_slices_are_averages_and_smaller_masks_majorities():
    image = np.zeros((4, 4))
    image[:2, :2] = [[0, 4], [4, 8]]
    image[2:, 2:] = 8
    assert preprocess_slice(image, 2).tolist() == [[128, 0], [0, 255]]
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = mask[2, 2] = True
    resized = resize_mask(mask, 2)
    assert resized.tolist() == [[1, 0], [0, 0]] and resized.dtype == np.uint8


def test_images_are_padded_below_and_scaled_with_equal_channels():
    padded = pad_to_square(np.array([[3, 2, 5]]))
    assert padded.tolist() == [[3, 2, 5], [2, 2, 2], [2, 2, 2]]
    batch = to_network_input(np.full((2, 4, 4), 51, np.uint8), channels=3)
    assert batch.shape == (2, 4, 4, 3) and batch.dtype == np.float32
    assert np.allclose(batch, 0.2)


@pytest.mark.parametrize(
    "low, high", [(7, 7), (-1e300, 1e300), (0, np.inf), (0, np.nan), (0, 1e-20)]
)
def test_intensities_that_cannot_be_scaled_are_described(low, high):
    assert find_intensity_problem(np.array([low, high], float))
    assert find_intensity_problem(np.array([0, 2000])) is None
