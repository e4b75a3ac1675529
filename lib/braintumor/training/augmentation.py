"""Random augmentation: affine maps, shared with the mask, and intensities."""

import keras
import numpy as np
from keras import ops
from keras.ops import image

AIR = 0.05  # intensities below this share of the maximum are air


def sample_affine(
    n, image_size, seed, epoch, step, zoom=(0.8, 1.2), flip=0.5, shear=0.2
):
    """Sample (n, 8) float32 affine maps from output to input pixels.

    Rows are (a, b, c, d, e, f, 0, 0) with x' = ax + by + c and y' = dx + ey + f, around
    the center of the slice. Zoom, above 1 for larger, is sampled for each axis; `flip`
    is the probability of a mirror image, `shear` the largest tangent of the angle.
    """
    # the last number tells this stream from that of the order of slices
    rng = np.random.default_rng([seed, epoch, step, 1])
    zoom_x, zoom_y = rng.uniform(*zoom, (2, n))
    tangent = rng.uniform(-shear, shear, n)
    mirror = np.where(rng.random(n) < flip, -1, 1)
    a, b, e = mirror / zoom_x, tangent / zoom_y, 1 / zoom_y
    center, zero = (image_size - 1) / 2, np.zeros(n)
    c, f = center * (1 - a - b), center * (1 - e)
    return np.stack([a, b, c, zero, e, f, zero, zero], axis=1).astype("float32")


def random_affine(images, targets, seed, epoch, step, fill_mode="constant", **settings):
    """Warp images and their masks by the same maps of `sample_affine`.

    Parameters
    ----------
    images : (n, side, side, 1) float32
    targets : masks like images, which stay binary, labels (n,), or a dict of both
    fill_mode : pixels from outside are 0 ("constant") or the nearest ("nearest")
    **settings : zoom, flip and shear of `sample_affine`
    """
    transforms = sample_affine(*images.shape[:2], seed, epoch, step, **settings)

    def warp(target, interpolation="nearest"):
        if target.ndim == 1:
            return target
        warped = image.affine_transform(target, transforms, interpolation, fill_mode)
        return ops.convert_to_numpy(warped)

    return warp(images, "bilinear"), keras.tree.map_structure(warp, targets)


def random_intensity(images, seed, epoch, step):
    """Change the intensities of slices, as another scanner would show the anatomy.

    Each change happens to a slice at random: lower resolution,
    sharpening, gamma, contrast, a bias field, noise, and noise in the air. `images` are
    (n, side, side, 1) float32 in [0, 1]; (seed, epoch, step) decide the changes.
    """
    # the last number tells this stream from those of order and affine maps
    rng = np.random.default_rng([seed, epoch, step, 2])
    x = _lower_resolution(images, rng)
    smooth = ops.convert_to_numpy(ops.average_pool(x, 3, 1, "same"))
    x = x + _sample(rng, x, 0.3, 0.2, 1.5) * (x - smooth)
    x = np.clip(x, 0, 1) ** np.exp(_sample(rng, x, 0.7, -0.6, 0.6))
    x = x * np.exp(_sample(rng, x, 0.5, -0.4, 0.4)) + _sample(rng, x, 0.3, -0.05, 0.05)
    x = x * np.exp(_sample(rng, x, 0.5, 0.1, 0.6) * _bias_field(x, rng))
    x = x + _sample(rng, x, 0.5, 0.0, 0.06) * rng.normal(size=x.shape)
    air = _sample(rng, x, 0.5, 0.0, 0.12) * np.abs(rng.normal(size=x.shape))
    x = np.where(images < AIR, np.abs(x) + air, x)
    return np.clip(x, 0, 1).astype("float32")


def _sample(rng, images, probability, low, high):
    """Sample (n, 1, 1, 1) numbers from low to high, 0 where nothing changes."""
    shape = len(images), 1, 1, 1
    return rng.uniform(low, high, shape) * (rng.random(shape) < probability)


def _lower_resolution(images, rng):
    """Average over 2 x 2 or 3 x 3 pixels in a part of the slices, and resize back."""
    x, side = images.copy(), images.shape[1]
    factors = rng.choice([1, 2, 3], len(x), p=[0.6, 0.25, 0.15])
    for factor in (2, 3):
        rows = factors == factor
        if rows.any():
            small = ops.image.resize(x[rows], (side // factor,) * 2, antialias=True)
            x[rows] = ops.convert_to_numpy(ops.image.resize(small, (side, side)))
    return x


def _bias_field(images, rng):
    """Sample fields (n, side, side, 1) of second order, up to 1 in size."""
    grid = np.linspace(-1, 1, images.shape[1])
    x, y = np.meshgrid(grid, grid)
    terms = np.stack([x, y, x * y, x**2 - 0.5, y**2 - 0.5])
    weights = rng.uniform(-1, 1, (len(images), len(terms)))
    fields = np.tensordot(weights, terms, 1)
    return (fields / np.abs(fields).max(axis=(1, 2), keepdims=True))[..., None]
