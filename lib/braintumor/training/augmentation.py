"""Cached arrays to batches: seeded, augmented by one affine warp, the same for an image and its mask."""

import math

import tensorflow as tf


def training_batches(images, targets, batch_size, epochs, seed, augmentation=None, first_epoch=0, channels=1):
    """All batches of epochs `first_epoch` to `epochs` - 1, for Keras' fit with steps_per_epoch.

    `images` (n, side, side) uint8; `targets` (n,) int labels from 0, or (n, side, side) uint8 masks. Yields
    (batch, side, side, 1) float32 in [0, 1] with (batch,) int64 or (batch, side, side, 1) float32. Order and
    augmentation depend on (seed, epoch, step) only: a run that is stopped and continued sees the same batches as one
    that was not. `augmentation` is a dict for `warp`, or None. With `channels` 3 the last axis holds the slice three
    times.
    """
    images, targets = tf.constant(images), tf.constant(targets)
    count = len(images)

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=(seed, epoch))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(lambda rows: (epoch, rows))

    def load(epoch_and_rows):
        epoch, rows = epoch_and_rows
        image, target = as_input(tf.gather(images, rows), channels), tf.gather(targets, rows)
        target = tf.cast(target, tf.int64) if target.shape.rank == 1 else _as_mask(target)
        if augmentation is None:
            return image, target
        # each batch holds other rows, so its first row tells it apart within the epoch
        seeds = (seed, epoch * count + rows[0])
        if target.shape.rank == 1:
            return warp(image, None, seeds, **augmentation)[0], target
        return warp(image, target, seeds, **augmentation)

    stream = tf.data.Dataset.range(first_epoch, epochs, output_type=tf.int32).flat_map(one_epoch)
    return stream.map(lambda *pair: load(pair), num_parallel_calls=2, deterministic=True).prefetch(2)


def steps(count, batch_size):
    """Batches in an epoch."""
    return math.ceil(count / batch_size)


def plain_batches(images, targets, batch_size=64, channels=1):
    """The slices in their order, without augmentation: for validation. As `training_batches` otherwise."""
    data = tf.data.Dataset.from_tensor_slices((tf.constant(images), tf.constant(targets))).batch(batch_size)

    def load(image, target):
        return as_input(image, channels), tf.cast(target, tf.int64) if target.shape.rank == 1 else _as_mask(target)

    return data.map(load).prefetch(2)


def joined(streams):
    """Datasets of (image, target) with the same images, {task: dataset}, as one of (image, {task: target}).

    Such as two of `training_batches` with one seed: they draw the same order and the same warps.
    """
    first = next(iter(streams))
    pairs = tf.data.Dataset.zip(streams)
    return pairs.map(lambda pair: (pair[first][0], {task: pair[task][1] for task in streams}))


def as_input(images, channels=1):
    """(n, side, side) uint8 to a network's input: (n, side, side, channels) float32 in [0, 1], channels alike."""
    gray = tf.cast(images, tf.float32)[..., None] / 255
    return gray if channels == 1 else tf.repeat(gray, channels, axis=-1)


def _as_mask(masks):
    return tf.cast(masks, tf.float32)[..., None]


def warp(images, masks, seed, zoom=(0.8, 1.2), flip=0.5, shear=0.2, fill="constant"):
    """One random affine warp a slice: zoom, horizontal flip and shear together, sampled once.

    `images` and `masks` (batch, side, side, 1) float32, masks of 0 and 1 (or None); `seed` two integers.
    `zoom` is the range of the factor, drawn for each direction by itself; over 1 enlarges. `flip` is the
    probability of a left-right flip; `shear` the greatest tangent of the shear's angle, to either side. What comes
    from outside the slice is black (`fill` "constant") or the nearest pixel ("nearest"). Both go through the same map;
    the image is interpolated linearly, the mask takes the nearest pixel and so stays binary. Returns (images, masks).
    """
    batch, side = tf.shape(images)[0], images.shape[1]
    draws = tf.random.stateless_uniform((4, batch), seed=seed)
    zoom_x = zoom[0] + (zoom[1] - zoom[0]) * draws[0]
    zoom_y = zoom[0] + (zoom[1] - zoom[0]) * draws[1]
    slant = shear * (2 * draws[2] - 1)
    mirror = tf.where(draws[3] < flip, -1.0, 1.0)
    # The op wants the map from output to input pixels, x' = a x + b y + c and y' = d x + e y + f, and the slice's
    # centre to stay where it is.
    centre = (side - 1) / 2
    a, b, e = mirror / zoom_x, slant / zoom_y, 1 / zoom_y
    zero = tf.zeros_like(a)
    transforms = tf.stack([a, b, centre * (1 - a - b), zero, e, centre * (1 - e), zero, zero], axis=1)

    def warped(slices, interpolation):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=slices,
            transforms=transforms,
            output_shape=(side, side),
            fill_value=0.0,
            interpolation=interpolation,
            fill_mode=fill.upper(),
        )

    return warped(images, "BILINEAR"), None if masks is None else warped(masks, "NEAREST")
