from functools import partial

import numpy as np
import pytest

from braintumor.training.augmentation import (
    random_affine,
    random_intensity,
    sample_affine,
)

pytestmark = pytest.mark.usefixtures("deterministic")

IDENTITY = {"zoom": (1.0, 1.0), "flip": 0.0, "shear": 0.0}
STRONG = {"zoom": (0.7, 1.4), "flip": 0.5, "shear": 0.3}


def make_rectangles(n=1, side=64, height=16, width=12):
    """A rectangle above and left of the center: (n, side, side, 1) float32."""
    images = np.zeros((n, side, side, 1), np.float32)
    images[:, 20 : 20 + height, 22 : 22 + width] = 1
    return images


def warp(images, masks=None, step=0, **settings):
    masks = np.zeros(len(images)) if masks is None else masks
    return random_affine(images, masks, 0, 0, step, **(IDENTITY | settings))


def test_changes_depend_on_seed_epoch_and_step_alone():
    images = make_slices()
    for sample in (partial(sample_affine, 4, 64), partial(random_intensity, images)):
        first = sample(1, 2, 3)
        assert first.dtype == np.float32
        assert np.array_equal(first, sample(1, 2, 3))
        for numbers in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
            assert not np.array_equal(first, sample(*numbers))
    assert first.shape == images.shape and images.max() == np.float32(0.8)
    assert first.min() >= 0 and first.max() <= 1


def test_mask_stays_binary_and_aligned_with_its_image():
    images, masks = warp(make_rectangles(32), make_rectangles(32), **STRONG)
    assert images.dtype == masks.dtype == np.float32
    assert set(np.unique(masks)) == {0, 1}
    # linear at one half and nearest may differ along the outline
    assert (masks[images >= 0.99] == 1).all() and (masks[images <= 0.01] == 0).all()
    assert len({mask.tobytes() for mask in masks}) == 32


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_the_mirror_image(side, flip):
    images = np.random.default_rng(0).random((3, side, side, 1), np.float32)
    masks = (images > 0.5).astype(np.float32)
    expected = images[:, :, ::-1] if flip else images
    warped, warped_masks = warp(images, masks, flip=flip)
    assert np.allclose(warped, expected, atol=1e-5)
    assert np.array_equal(warped_masks, expected > 0.5)


def test_zoom_is_sampled_per_axis_and_enlarges_above_1():
    masks = warp(make_rectangles(64), make_rectangles(64), zoom=(0.8, 1.5))[1][..., 0]
    heights, widths = masks.any(2).sum(1) / 16, masks.any(1).sum(1) / 12
    for factors in (heights, widths):
        assert 0.7 < factors.min() < factors.max() < 1.65 and np.ptp(factors) > 0.4
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.4
    assert masks.sum((1, 2)) == pytest.approx(heights * widths * 16 * 12, rel=0.03)


def test_shear_shifts_rows_in_proportion_to_their_distance_from_the_center():
    images = np.zeros((64, 65, 65, 1), np.float32)
    images[:, :, 32] = 1  # an upright line through the center
    lines = warp(images, shear=0.3)[0][..., 0]
    columns = (lines * np.arange(65)).sum(2) / lines.sum(2)
    tangents = (columns[:, 42] - columns[:, 22]) / 20
    expected = 32 + tangents[:, None] * (np.arange(65) - 32)
    assert np.abs(columns - expected).max() < 0.05
    assert -0.3 <= tangents.min() < -0.2 and 0.2 < tangents.max() <= 0.3


def test_images_are_linear_and_black_or_nearest_outside():
    images = np.zeros((1, 32, 32, 1), np.float32)
    images[:, :, :16] = 1
    black = warp(images, zoom=(0.5, 0.5))[0][0, ..., 0]
    assert black.sum() == pytest.approx(8 * 16, rel=0.1) and black[0, 0] == 0
    nearest = warp(images, zoom=(0.5, 0.5), fill_mode="nearest")[0][0, ..., 0]
    assert np.allclose(nearest[:, :15], 1) and np.allclose(nearest[:, 17:], 0)
    slope = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (1, 64, 64))
    zoomed = warp(slope[..., None], zoom=(2.0, 2.0))[0][0, 32, :, 0]
    assert np.allclose(np.diff(zoomed), 1 / 126, atol=1e-5)
    assert zoomed.mean() == pytest.approx(0.5, abs=1e-5)  # the center stays


# Intensities


def make_slices(n=32, side=48):
    """Slices with air around a bright disk that holds a brighter tumor."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    image = 0.5 * (x**2 + y**2 < 0.7) + 0.3 * ((x - 0.3) ** 2 + y**2 < 0.04)
    return np.repeat(image[None, ..., None], n, axis=0).astype("float32")


def test_anatomy_stays_and_air_gets_noise():
    images = make_slices()
    changed = random_intensity(images, 0, 0, 0)
    pairs = zip(images.reshape(32, -1), changed.reshape(32, -1), strict=True)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in pairs) > 0.7
    noise = changed[:, :4, :4].std(axis=(1, 2, 3))
    assert 4 < (noise > 0.01).sum() < 32
