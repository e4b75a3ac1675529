"""Random intensity augmentation."""

import numpy as np

from braintumor.training.intensity import random_intensity


def make_slices(n=32, side=48):
    """Slices with air around a bright disk that holds a brighter tumor."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    image = 0.5 * (x**2 + y**2 < 0.7) + 0.3 * ((x - 0.3) ** 2 + y**2 < 0.04)
    return np.repeat(image[None, ..., None], n, axis=0).astype("float32")


def test_seed_epoch_and_step_decide_the_changes():
    images = make_slices()
    first = random_intensity(images, 1, 2, 3)
    assert first.dtype == np.float32 and first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, random_intensity(images, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not np.array_equal(first, random_intensity(images, *other))
    assert images.max() == np.float32(0.8)  # the input is not changed


def test_anatomy_stays_and_air_gets_noise():
    images = make_slices()
    changed = random_intensity(images, 0, 0, 0)
    pairs = zip(images.reshape(32, -1), changed.reshape(32, -1), strict=True)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in pairs) > 0.7
    noise = changed[:, :4, :4].std(axis=(1, 2, 3))
    assert 4 < (noise > 0.01).sum() < 32
