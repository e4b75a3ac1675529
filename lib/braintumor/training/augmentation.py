"""Random affine augmentation, the same for an image and its mask."""

import keras
import numpy as np
from keras import ops


def sample_affine(
    n, image_size, seed, epoch, step, zoom=(0.8, 1.2), flip=0.5, shear=0.2
):
    """Sample affine maps from output to input pixels, around the center of the slice.

    Parameters
    ----------
    n, image_size : int
        Number of maps, and pixels per side of the slices.
    seed, epoch, step : int
        The maps depend on these alone.
    zoom : (float, float)
        Range of the zoom factor, sampled for each axis; above 1 enlarges.
    flip : float
        Probability of a left-right flip.
    shear : float
        Largest tangent of the shear angle, to either side.

    Returns
    -------
    (n, 8) float32
        Rows (a, b, c, d, e, f, 0, 0) with x' = ax + by + c and y' = dx + ey + f.
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


def apply_affine(images, transforms, interpolation="bilinear", fill_mode="constant"):
    """Apply `sample_affine`'s maps to images (n, side, side, channels): float32."""
    warped = ops.image.affine_transform(
        images, transforms, interpolation=interpolation, fill_mode=fill_mode
    )
    return ops.convert_to_numpy(warped)


def random_affine(images, targets, seed, epoch, step, fill_mode="constant", **settings):
    """Warp images and their masks by the same random affine maps.

    Parameters
    ----------
    images : (n, side, side, 1) float32
        Slices, interpolated linearly.
    targets : array or dict of arrays
        Masks (n, side, side, 1), interpolated by the nearest pixel so that they stay
        binary, or class labels (n,), which stay.
    fill_mode : {"constant", "nearest"}
        Pixels from outside the slice: 0, or the nearest pixel.
    seed, epoch, step, **settings
        As in `sample_affine`.
    """
    n, image_size = images.shape[:2]
    transforms = sample_affine(n, image_size, seed, epoch, step, **settings)

    def warp_mask(target):
        if target.ndim == 1:
            return target
        return apply_affine(target, transforms, "nearest", fill_mode)

    warped = apply_affine(images, transforms, fill_mode=fill_mode)
    return warped, keras.tree.map_structure(warp_mask, targets)
