"""Crop the head; boxes are (n, 3) float32: left, top and side in pixels."""

import numpy as np
from scipy.ndimage import affine_transform

BLOCKS = 64  # blocks per side in which brightness is measured
BRIGHT = 0.08  # mean of a block that belongs to the head


def head_box(images):
    """Find the square around the head in slices (n, side, side) in [0, 1].

    Rows and columns belong to the head if at least two of their blocks are bright; a
    margin of 1/32 of the slice is added.
    """
    size = images.shape[1]
    block = size // BLOCKS
    means = images.reshape(-1, BLOCKS, block, BLOCKS, block).mean(axis=(2, 4))
    bright = means > BRIGHT
    # (n, blocks, 2): columns and rows
    is_head = np.stack([bright.sum(axis=1), bright.sum(axis=2)], axis=2) >= 2
    start = is_head.argmax(axis=1) * block
    end = size - is_head[:, ::-1].argmax(axis=1) * block
    side = np.minimum((end - start).max(axis=1, keepdims=True) + size // 32, size)
    corner = np.clip((start + end - side) / 2, 0, size - side)
    return np.hstack([corner, side]).astype(np.float32)


def full_box(images):
    """Make boxes that hold the whole of each slice (n, side, side)."""
    return np.float32([[0, 0, images.shape[1]]] * len(images))


def scale_box(box, factor):
    """Scale the side of boxes around their center; they may leave the slice."""
    left, top, side = box.T
    margin = side * (1 - factor) / 2
    return np.stack([left + margin, top + margin, side * factor], axis=1)


def crop_and_resize(images, box, crop_size):
    """Crop boxes from slices (n, side, side) linearly; outside is 0."""
    scale = box[:, 2] / crop_size
    first = box[:, :2] + (scale[:, None] - 1) / 2
    return _resample(images, first, scale, crop_size)


def paste_back(crops, box, image_size):
    """Invert `crop_and_resize`: paste crops into slices that are 0 elsewhere."""
    scale = crops.shape[1] / box[:, 2]
    first = (0.5 - box[:, :2]) * scale[:, None] - 0.5
    return _resample(crops, first, scale, image_size)


def _resample(images, first, scale, size):
    """Resample to (n, size, size); `first` is where the first pixel lies, (n, 2)."""
    options = {"output_shape": (size, size), "order": 1, "mode": "grid-constant"}
    resampled = [
        affine_transform(image, (step, step), (y, x), output=np.float32, **options)
        for image, (x, y), step in zip(images, first, scale, strict=True)
    ]
    return np.stack(resampled)


def crop_head(images, masks, crop_size):
    """Crop prepared slices and masks to the head.

    `images` and `masks` are uint8 (n, side, side), and so are the crops, with a side
    of `crop_size` pixels.
    """
    image_size = images.shape[1]
    if crop_size % 16 or not 0 < crop_size <= image_size:
        rule = f"a multiple of 16 from 16 to {image_size}, the size of the slices"
        raise ValueError(f"crop_size: got {crop_size}, expected {rule}.")
    crops = np.empty((2, len(images), crop_size, crop_size), np.uint8)
    for n in range(0, len(images), 64):  # at once they would need gigabytes
        rows = slice(n, n + 64)
        box = head_box(images[rows] / np.float32(255))
        crops[0, rows] = np.rint(crop_and_resize(images[rows], box, crop_size))
        crops[1, rows] = crop_and_resize(masks[rows], box, crop_size) >= 0.5
    return crops[0], crops[1]
