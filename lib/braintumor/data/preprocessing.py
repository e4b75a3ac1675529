"""Intensity scaling and resizing of slices."""

import numpy as np
from PIL import Image

PERCENTILES = (1, 99.5)  # of a slice's intensities; scaled to 0 and 255
MAX_SIDE = 4096  # pixels; larger declared sizes come from broken or hostile files
MIN_RANGE, MAX_INTENSITY = 1e-15, 1e15  # that can be scaled in float32


def preprocess_slice(image, image_size, percentiles=PERCENTILES):
    """Scale `percentiles` of a slice to 0 and 255, and resize it.

    Parameters
    ----------
    image : array (side, side) of any number type
    image_size : int, pixels per side of the result
    percentiles : tuple of two floats, 0 to 100

    Returns
    -------
    uint8 array (image_size, image_size)
    """
    ordered = np.sort(image, axis=None)  # np.percentile is slower
    ranks = [round(percent / 100 * (image.size - 1)) for percent in percentiles]
    low, high = (float(ordered[rank]) for rank in ranks)
    if high - low < MIN_RANGE:  # a small bright object on a constant background
        low, high = float(ordered[0]), float(ordered[-1])
    gray = (image.astype(np.float32) - low) * (255 / (high - low)) + 0.5
    return _resize(np.clip(gray, 0, 255).astype(np.uint8), image_size)


def resize_mask(mask, image_size):
    """Resize a square mask to uint8; a pixel is 1 if the tumor covers half of it."""
    return (_resize(np.uint8(255) * mask, image_size) >= 128).astype(np.uint8)


def _resize(image, image_size):
    if image.flags.f_contiguous:  # from MATLAB files; transposing avoids a copy
        return _resize(image.T, image_size).T
    method = Image.BOX if image_size < len(image) else Image.BILINEAR  # BOX averages
    return np.asarray(Image.fromarray(image).resize((image_size, image_size), method))


def pad_to_square(image):
    """Pad (rows, columns) at the right and the bottom with the minimum."""
    side = max(image.shape)
    padding = [(0, side - length) for length in image.shape]
    return np.pad(image, padding, constant_values=image.min())


def find_intensity_problem(image):
    """Describe why intensities cannot be scaled, or return None."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        return f"every pixel is {image.min()}, expected an MR slice"
    if high - low >= MIN_RANGE and max(-low, high) <= MAX_INTENSITY:
        return None
    expected = f"a range of {MIN_RANGE:g} or more, up to {MAX_INTENSITY:g}"
    return f"got intensities {low:g} to {high:g}, expected {expected}"


def to_network_input(images, channels=1):
    """Convert uint8 (n, side, side) to float32 (n, side, side, channels) in 0-1."""
    gray = np.asarray(images, np.float32)[..., None] / np.float32(255)
    return np.repeat(gray, channels, axis=-1)
