"""Batches of prepared slices for Keras' fit: seeded, augmented, NumPy arrays."""

import itertools
import math

import keras
import numpy as np

from braintumor.data.preprocessing import to_network_input
from braintumor.training.augmentation import random_affine, random_intensity


def training_batches(
    images, targets, batch_size, seed, augmentation=None, first_epoch=0, intensity=False
):
    """Yield batches (x, y) without end.

    Order and augmentation depend on (seed, epoch, step) alone, so a stopped and
    continued training sees the same batches as an undisturbed one.

    Parameters
    ----------
    images : uint8 array (n, side, side)
    targets : labels (n,) from 0, masks (n, side, side), or a dict of both
    augmentation : dict of settings of `random_affine`, or None
    first_epoch : int, the number of finished epochs
    intensity : bool, whether to change contrast, resolution and noise at random

    Yields
    ------
    x : float32 array (batch, side, side, 1) in [0, 1]
    y : as from `format_targets`
    """
    n = len(images)
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng([seed, epoch]).permutation(n)
        for step in range(steps_per_epoch(n, batch_size)):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x, y = to_network_input(images[rows]), format_targets(targets, rows)
            if augmentation is not None:
                x, y = random_affine(x, y, seed, epoch, step, **augmentation)
            if intensity:
                x = random_intensity(x, seed, epoch, step)
            yield x, y


def format_targets(targets, rows=slice(None)):
    """Format labels as (n,) int64 and masks as (n, side, side, 1) float32."""

    def format_array(target):
        if target.ndim == 1:
            return target[rows].astype("int64")
        return target[rows, ..., None].astype("float32")

    return keras.tree.map_structure(format_array, targets)


def steps_per_epoch(n, batch_size):
    """Count the batches of an epoch of n slices."""
    return math.ceil(n / batch_size)
