"""Crop the head; boxes are (batch, 3) float32: left, top and side in pixels."""

import keras
from keras import layers, ops

BLOCKS = 64  # blocks per side in which brightness is measured
BRIGHT = 0.08  # mean of a block that belongs to the head


def head_box(images):
    """Find the square around the head in slices (batch, side, side, 1) in [0, 1].

    Rows and columns belong to the head if at least two of their blocks are bright; a
    margin of 1/32 of the slice is added.
    """
    size = images.shape[1]
    block = size // BLOCKS
    means = ops.average_pool(images, block, strides=block)[..., 0]
    bright = ops.cast(means > BRIGHT, "float32")
    left, right = _find_extent(ops.sum(bright, axis=1) >= 2, block)
    top, bottom = _find_extent(ops.sum(bright, axis=2) >= 2, block)
    side = ops.maximum(right - left, bottom - top) + size // 32
    side = ops.minimum(side, float(size))
    left = ops.minimum(ops.maximum((left + right - side) / 2, 0.0), size - side)
    top = ops.minimum(ops.maximum((top + bottom - side) / 2, 0.0), size - side)
    return ops.stack([left, top, side], axis=1)


def _find_extent(is_head, block):
    """Find the start and end of the true blocks per row (batch, blocks), in pixels."""
    blocks = ops.cast(is_head, "float32")
    first = ops.argmax(blocks, axis=1)
    last = blocks.shape[1] - ops.argmax(ops.flip(blocks, axis=1), axis=1)
    return ops.cast(first, "float32") * block, ops.cast(last, "float32") * block


def full_box(images):
    """Make boxes that hold the whole of each slice (batch, side, side, 1)."""
    zero = 0 * ops.mean(images, axis=(1, 2))
    return ops.concatenate([zero, zero, zero + images.shape[1]], axis=1)


def scale_box(box, factor):
    """Scale the side of boxes around their center; they may leave the slice."""
    # Column by column: Keras' add mistakes (2, 1) for the bias of the last axis of
    # (2, 2) and would mix up two slices.
    left, top, side = box[:, 0:1], box[:, 1:2], box[:, 2:3]
    margin = side * (1 - factor) / 2
    return ops.concatenate([left + margin, top + margin, side * factor], axis=1)


def crop_and_resize(images, box, crop_size):
    """Crop boxes from slices, which are not smaller than `crop_size`; outside is 0."""
    scale = box[:, 2] / crop_size
    shift = (scale - 1) / 2
    crops = _affine(images, scale, box[:, 0] + shift, box[:, 1] + shift)
    return crops[:, :crop_size, :crop_size]


def paste_back(crops, box, image_size):
    """Invert `crop_and_resize`: paste crops into slices that are 0 elsewhere."""
    scale = box[:, 2] / crops.shape[1]
    padding = (0, image_size - crops.shape[1])
    padded = ops.pad(crops, ((0, 0), padding, padding, (0, 0)))
    left, top = ((0.5 - box[:, axis]) / scale - 0.5 for axis in (0, 1))
    return _affine(padded, 1 / scale, left, top)


def _affine(images, scale, left, top):
    zero = ops.zeros_like(scale)
    transform = ops.stack([scale, zero, left, zero, scale, top, zero, zero], axis=1)
    return ops.image.affine_transform(images, transform)


def build_head_crop(image_size, crop_size):
    """Build a network that crops uint8 [images, masks] (n, side, side) to the head."""
    if crop_size % 16 or not 0 < crop_size <= image_size:
        rule = f"a multiple of 16 from 16 to {image_size}, the size of the slices"
        raise ValueError(f"crop_size: got {crop_size}, expected {rule}.")
    inputs = [layers.Input((image_size, image_size), dtype="uint8") for _ in range(2)]
    images, masks = (ops.cast(x, "float32")[..., None] for x in inputs)
    box = head_box(images / 255)
    images = crop_and_resize(images, box, crop_size)[..., 0]
    masks = crop_and_resize(masks, box, crop_size)[..., 0]
    outputs = [ops.cast(ops.round(images), "uint8"), ops.cast(masks >= 0.5, "uint8")]
    return keras.Model(inputs, outputs, name="head_crop")
