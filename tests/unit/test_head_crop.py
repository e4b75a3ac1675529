import numpy as np
import pytest

from braintumor.evaluation.masks import compute_dice
from braintumor.models.head_crop import (
    crop_and_resize,
    crop_head,
    full_box,
    head_box,
    paste_back,
    scale_box,
)


def make_disc(size, x, y, radius):
    """A bright disc on black, (size, size) float32 in [0, 1]."""
    rows, columns = np.mgrid[:size, :size]
    return (np.hypot(columns - x, rows - y) < radius).astype("float32")


@pytest.mark.parametrize(
    "x, y, radius", [(64, 64, 40), (40, 70, 30), (100, 64, 26), (64, 64, 90)]
)
def test_box_holds_the_head_with_a_small_margin(x, y, radius):
    image = make_disc(128, x, y, radius)[None]
    left, top, side = head_box(image)[0]
    assert 0 <= left <= max(x - radius, 0) and 0 <= top <= max(y - radius, 0)
    assert left + side >= min(x + radius, 127) and top + side >= min(y + radius, 127)
    assert max(left, top) + side <= 128 and side <= min(2 * radius + 12, 128)


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.2])  # the last leaves the slice
def test_mask_is_pasted_back_to_its_place(zoom):
    slices = np.stack([make_disc(128, 50, 70, 40), make_disc(128, 64, 64, 62)])
    masks = np.stack([make_disc(128, 60, 80, 10), make_disc(128, 30, 64, 20)])
    boxes = scale_box(head_box(slices), zoom)
    crops = crop_and_resize(masks, boxes, 64)
    assert crops.shape == (2, 64, 64)
    pasted = paste_back(crops, boxes, 128)
    for mask, back in zip(masks, pasted, strict=True):
        assert compute_dice(mask > 0.5, back > 0.5) > 0.95


def test_slices_are_cropped_with_their_masks():
    image = np.random.default_rng(0).random((1, 64, 64)).astype("float32")
    box = full_box(image)
    assert box.tolist() == head_box(image * 0).tolist() == [[0, 0, 64]]
    assert np.allclose(scale_box(box, 1.25), [[-8, -8, 80]])
    assert np.allclose(crop_and_resize(image, box, 64), image, atol=1e-6)
    assert np.allclose(paste_back(image, box, 64), image, atol=1e-6)
    head, tumor = (make_disc(128, 50, 70, radius) for radius in (40, 10))
    slices, masks = (255 * head[None]).astype("uint8"), tumor[None].astype("uint8")
    image, mask = crop_head(slices, masks, 64)
    assert image.dtype == mask.dtype == np.uint8
    assert image.shape == mask.shape == (1, 64, 64)
    assert image.max() == 255 and set(np.unique(mask)) == {0, 1}
    side = head_box(head[None])[0, 2]
    assert mask.sum() == pytest.approx(tumor.sum() * (64 / side) ** 2, rel=0.05)
    for crop_size in (0, 72, 144):
        with pytest.raises(ValueError, match="crop_size"):
            crop_head(*np.zeros((2, 1, 128, 128), np.uint8), crop_size)
