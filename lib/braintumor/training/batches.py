"""Batches of prepared slices for Keras' fit: seeded, augmented, NumPy arrays."""

import itertools
import math

import keras
import numpy as np

from braintumor.data.preprocessing import to_network_input
from braintumor.training.augmentation import random_affine


def training_batches(
    images, targets, batch_size, seed, augmentation=None, first_epoch=0, channels=1
):
    """Yield training batches without end, each epoch in a new order.

    Order and augmentation depend on (seed, epoch, step) alone, so a stopped and
    continued training sees the same batches as an undisturbed one.

    Parameters
    ----------
    images : (n, side, side) uint8
    targets : array or dict of arrays
        Labels (n,) int from 0, masks (n, side, side) uint8, or {task: array}.
    batch_size : int
        Slices per batch; the last batch of an epoch may be smaller.
    augmentation : dict, optional
        Settings of `random_affine`; {} for its defaults, None for no augmentation.

    Yields
    ------
    (x, y)
        (batch, side, side, channels) float32 in [0, 1], and targets as formatted by
        `format_targets`.
    """
    for epoch in itertools.count(first_epoch):
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        for step in range(steps_per_epoch(len(images), batch_size)):
            rows = order[step * batch_size : (step + 1) * batch_size]
            x, y = to_network_input(images[rows]), format_targets(targets, rows)
            if augmentation is not None:
                x, y = random_affine(x, y, seed, epoch, step, **augmentation)
            yield np.repeat(x, channels, axis=-1), y


def format_targets(targets, rows=slice(None)):
    """Format labels as (n,) int64 and masks as (n, side, side, 1) float32.

    `targets` is an array or a dict of arrays, as in `training_batches`.
    """

    def format_array(target):
        if target.ndim == 1:
            return target[rows].astype("int64")
        return target[rows, ..., None].astype("float32")

    return keras.tree.map_structure(format_array, targets)


def steps_per_epoch(n, batch_size):
    """Count the batches of an epoch of n slices."""
    return math.ceil(n / batch_size)


def equal_batch_size(n, largest=64):
    """Choose the batch size that divides n slices most evenly.

    Keras averages the losses of a dict's tasks over batches, whatever their size.
    """
    return math.ceil(n / math.ceil(n / largest))
