"""Images out of the distribution of the training slices, and inpainted slices."""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import binary_dilation
from skimage.filters import threshold_otsu

from braintumor.inference.formats import InputImage, read_image

NATURAL_IMAGES = {  # of scikit-image
    "photos": "astronaut camera chelsea coffee coins grass gravel motorcycle_left "
    "rocket",
    "texts": "page text",
    "other science": "cell ihc microaneurysms moon phantom retina",
}


def resize_map(values, side):
    """Average a map over the cells of a grid (side, side)."""
    image = Image.fromarray(values.astype("float32"))
    return np.asarray(image.resize((side, side), Image.BOX))


def shuffle_tiles(pixels, rng):
    """Cut a slice into 4 x 4 tiles and shuffle them."""
    side = len(pixels) // 4
    tiles = pixels.reshape(4, side, 4, side).swapaxes(1, 2).reshape(16, side, side)
    tiles = tiles[rng.permutation(16)].reshape(4, 4, side, side)
    return tiles.swapaxes(1, 2).reshape(pixels.shape)


def inpaint(pixels, mask):
    """Interpolate the mask, and three pixels around it, from its surroundings."""
    inside = binary_dilation(mask, iterations=3)
    around = binary_dilation(inside, iterations=2) & ~inside
    values = pixels[around].astype(float)
    interpolate = RBFInterpolator(np.argwhere(around), values, kernel="linear")
    inpainted = pixels.astype(float)
    inpainted[inside] = interpolate(np.argwhere(inside))
    return inpainted


def make_ood_images(pixels, mask, rng):
    """Make out-of-distribution images from one slice: {kind: pixels}."""
    side = len(pixels)
    quarter = slice(side // 4, -side // 4)
    is_black = np.arange(side) < side // 2
    return {
        "inverted": pixels.max() - pixels,
        "upside down": pixels[::-1],
        "rotated by 90°": np.rot90(pixels),
        "half black": np.where(is_black, pixels.min(), pixels),
        "center only": pixels[quarter, quarter],
        "shuffled tiles": shuffle_tiles(pixels, rng),
        "blurred": np.kron(resize_map(pixels, 32), np.ones((8, 8))),
        "tumor inpainted": inpaint(pixels, mask),
        "noise": rng.normal(size=(256, 256)),
    }


def load_natural_images():
    """List (kind, InputImage) of scikit-image's pictures, in gray."""
    folder = Path(skimage.__file__).parent / "data"
    images = []
    for kind, names in NATURAL_IMAGES.items():
        for name in names.split():
            pixels = read_image(next(folder.glob(f"{name}.*"))).pixels
            images.append((kind, InputImage(name, pixels)))
    return images


def sample_control_region(pixels, mask, rng):
    """Move the mask to a random place in the head without tumor; None if there is none.

    The head is what is brighter than half of Otsu's threshold.
    """
    head = pixels > threshold_otsu(pixels) / 2
    tumor = binary_dilation(mask, iterations=6)
    for shift in rng.integers(-len(mask), len(mask), (2000, 2)):
        region = np.roll(mask, shift, (0, 1))
        if head[region].mean() > 0.9 and not (region & tumor).any():
            return region
    return None
