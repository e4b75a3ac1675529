"""Random affine augmentation, the same for an image and its mask."""

import keras
import numpy as np
from keras import ops
from keras.ops import image


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
