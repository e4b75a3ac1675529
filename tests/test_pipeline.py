"""Batches depend on the seed alone, and an image and its mask are warped as one."""

import numpy as np
import pytest

from braintumor.training.augmentation import as_input, plain_batches, steps, training_batches, warp

pytestmark = pytest.mark.usefixtures("deterministic")

COUNT, SIDE = 11, 16
AUGMENTATION = {"zoom": (0.8, 1.2), "flip": 0.5, "shear": 0.2, "fill": "constant"}
STILL = {"zoom": (1.0, 1.0), "flip": 0.0, "shear": 0.0}


@pytest.fixture(scope="module")
def images():
    """Eleven images that can be told apart by their first pixel."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), np.uint8)
    images[:, 0, 0] = np.arange(COUNT)
    return images


@pytest.fixture(scope="module")
def masks():
    masks = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    for n in range(COUNT):
        masks[n, 4 : 6 + n // 2, 5:9] = 1
    return masks


LABELS = np.arange(COUNT) % 3


def batches(images, targets, epochs=2, seed=0, augmentation=AUGMENTATION, first_epoch=0, channels=1):
    stream = training_batches(images, targets, 4, epochs, seed, augmentation, first_epoch, channels)
    return [(image.numpy(), target.numpy()) for image, target in stream]


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


def rows(part):
    """Which image stands in each place of the batches, by its first pixel."""
    return [round(float(pixel) * 255) for image, _ in part for pixel in image[:, 0, 0, 0]]


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
def test_same_seed_same_batches(images, masks, augmentation):
    first = batches(images, masks, seed=3, augmentation=augmentation)
    assert same(first, batches(images, masks, seed=3, augmentation=augmentation))
    assert not same(first, batches(images, masks, seed=4, augmentation=augmentation))


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION])
def test_stream_from_a_later_epoch_is_the_tail_of_the_whole(images, augmentation):
    whole = batches(images, LABELS, epochs=4, augmentation=augmentation)
    for epoch in range(4):
        tail = batches(images, LABELS, epochs=4, augmentation=augmentation, first_epoch=epoch)
        assert same(tail, whole[3 * epoch :])


def test_every_row_comes_once_an_epoch_in_another_order_each(images):
    stream = batches(images, LABELS, epochs=3, augmentation=None)
    epochs = [rows(stream[start : start + 3]) for start in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(COUNT))] * 3
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(COUNT))}) == 4


def test_augmentation_differs_between_epochs_and_within_a_batch():
    same_images = np.broadcast_to(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8), (4, SIDE, SIDE))
    stream = batches(same_images, LABELS[:4], epochs=3)
    drawn = [image.tobytes() for batch, _ in stream for image in batch]
    assert len(set(drawn)) == 12


def test_labels_and_masks_stay_with_their_images(images, masks):
    for image, label in batches(images, LABELS, augmentation=None):
        assert label.dtype == np.int64
        assert label.tolist() == [LABELS[row] for row in rows([(image, label)])]
    for image, mask in batches(images, masks, augmentation=None):
        assert np.array_equal(mask[..., 0], masks[rows([(image, mask)])])


def test_batches_have_the_networks_types_and_ranges(images, masks):
    for image, mask in batches(images, masks):
        assert image.dtype == mask.dtype == np.float32
        assert image.shape == mask.shape and image.shape[1:] == (SIDE, SIDE, 1)
        assert 0 <= image.min() < 0.2 and 0.8 < image.max() <= 1
        assert set(np.unique(mask)) == {0, 1}
    assert [len(image) for image, _ in batches(images, masks, epochs=1)] == [4, 4, 3]


def test_steps_are_the_batches_of_an_epoch(images):
    assert steps(COUNT, 4) == len(batches(images, LABELS, epochs=1)) == 3
    assert (steps(8, 4), steps(1, 4)) == (2, 1)


def test_plain_batches_keep_order_and_pixels(images, masks):
    got = [(image.numpy(), mask.numpy()) for image, mask in plain_batches(images, masks, batch_size=4)]
    assert [len(image) for image, _ in got] == [4, 4, 3]
    assert np.array_equal(np.concatenate([image for image, _ in got])[..., 0], images.astype(np.float32) / 255)
    assert np.array_equal(np.concatenate([mask for _, mask in got])[..., 0], masks)
    labels = np.concatenate([label.numpy() for _, label in plain_batches(images, LABELS)])
    assert np.array_equal(labels, LABELS)


def test_input_is_scaled_from_zero_to_one():
    image = np.zeros((1, 2, 2), np.uint8)
    image[0, 0] = 0, 255
    assert as_input(image).numpy()[0, 0, :, 0].tolist() == [0, 1] and as_input(image).shape == (1, 2, 2, 1)


# Three channels: the slice three times.


def alike(three, one):
    return three.shape == (*one.shape[:-1], 3) and all(np.array_equal(three[..., n], one[..., 0]) for n in range(3))


@pytest.mark.parametrize("augmentation", [None, AUGMENTATION, AUGMENTATION | {"fill": "nearest"}])
@pytest.mark.parametrize("task", ["labels", "masks"])
def test_three_channels_are_the_one_channel_three_times(images, masks, augmentation, task):
    targets = LABELS if task == "labels" else masks
    one, three = (batches(images, targets, seed=3, augmentation=augmentation, channels=n) for n in (1, 3))
    assert len(one) == len(three) == 6
    for (image, target), (image_of_three, target_of_three) in zip(one, three, strict=True):
        assert alike(image_of_three, image) and image_of_three.dtype == np.float32
        assert np.array_equal(target_of_three, target)  # a mask keeps its one channel


def test_plain_batches_and_input_have_three_channels_too(images, masks):
    for targets in (LABELS, masks):
        one, three = (list(plain_batches(images, targets, 4, channels=n)) for n in (1, 3))
        for (image, target), (image_of_three, target_of_three) in zip(one, three, strict=True):
            assert alike(image_of_three.numpy(), image.numpy())
            assert np.array_equal(target_of_three, target)
    assert alike(as_input(images, 3).numpy(), as_input(images).numpy())


# Warp.


def blob(batch=1, side=64, height=16, width=12):
    """A rectangle left of and above the centre, as (batch, side, side, 1) float32."""
    image = np.zeros((batch, side, side, 1), np.float32)
    image[:, 20 : 20 + height, 22 : 22 + width] = 1
    return image


def warped(images, masks=None, seed=(0, 0), **settings):
    image, mask = warp(images, masks, seed, **(STILL | settings))
    return image.numpy(), None if mask is None else mask.numpy()


def test_mask_stays_binary_and_aligned_with_its_image():
    image, mask = warped(blob(32), blob(32), zoom=(0.7, 1.4), flip=0.5, shear=0.3)
    assert set(np.unique(mask)) == {0, 1}
    # linear at one half and nearest may differ by a pixel along the outline, never by more
    inner, outer = image >= 0.99, image > 0.01
    assert (mask[inner] == 1).all() and (mask[~outer] == 0).all()
    assert len({one.tobytes() for one in mask}) == 32  # each was moved in its own way


def test_image_is_warped_alike_with_and_without_a_mask():
    settings = {"zoom": (0.7, 1.4), "flip": 0.5, "shear": 0.3}
    assert np.array_equal(warped(blob(8), blob(8), **settings)[0], warped(blob(8), **settings)[0])


def test_no_zoom_flip_or_shear_changes_nothing(images):
    image = images[..., None].astype(np.float32) / 255
    got, mask = warped(image, (image > 0.5).astype(np.float32))
    assert np.allclose(got, image, atol=1e-6) and np.array_equal(mask, image > 0.5)


@pytest.mark.parametrize("side", [16, 17])
def test_flip_is_the_mirror_image(side):
    image = np.random.default_rng(0).random((3, side, side, 1), np.float32)
    got, mask = warped(image, (image > 0.5).astype(np.float32), flip=1.0)
    assert np.allclose(got, image[:, :, ::-1], atol=1e-5)
    assert np.array_equal(mask, image[:, :, ::-1] > 0.5)


def test_flip_of_one_half_mirrors_about_half_of_the_slices():
    mirrored = warped(blob(400), flip=0.5)[0][:, 28, 24, 0] < 0.5
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("factor", [0.75, 1.5])
def test_zoom_over_one_enlarges(factor):
    large = blob(side=128, height=64, width=48)
    mask = warped(large, large, zoom=(factor, factor))[1]
    assert mask.sum() == pytest.approx(64 * 48 * factor**2, rel=0.05)


def test_zoom_is_drawn_for_each_direction_by_itself_within_its_range():
    masks = warped(blob(64), blob(64), zoom=(0.8, 1.5))[1][..., 0]
    heights, widths = masks.any(2).sum(1) / 16, masks.any(1).sum(1) / 12
    assert heights.min() > 0.7 and heights.max() < 1.65 and np.ptp(heights) > 0.4
    assert widths.min() > 0.7 and widths.max() < 1.65 and np.ptp(widths) > 0.4
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.4
    assert masks.sum((1, 2)) == pytest.approx(heights * widths * 16 * 12, rel=0.03)


def test_zoom_keeps_the_centre_in_place():
    image = np.zeros((1, 33, 33, 1), np.float32)
    image[0, 16, 16] = 1
    got = warped(image, zoom=(1.4, 1.4))[0][0, ..., 0]
    assert np.unravel_index(got.argmax(), got.shape) == (16, 16) and got.max() == pytest.approx(1)


def test_shear_shifts_each_row_by_its_distance_from_the_centre_times_the_tangent():
    image = np.zeros((64, 65, 65, 1), np.float32)
    image[:, :, 32] = 1  # an upright line through the centre
    lines = warped(image, shear=0.3)[0][..., 0]
    columns = (lines * np.arange(65)).sum(2) / lines.sum(2)  # where the line crosses each row
    tangents = (columns[:, 42] - columns[:, 22]) / 20
    expected = 32 + tangents[:, None] * (np.arange(65) - 32)
    assert np.abs(columns - expected).max() < 0.05
    assert np.abs(tangents).max() <= 0.3 and tangents.min() < -0.2 and tangents.max() > 0.2


def test_outside_of_the_slice_is_black_or_the_nearest_pixel():
    image = np.ones((1, 32, 32, 1), np.float32)
    black, nearest = (warped(image, zoom=(0.5, 0.5), fill=fill)[0][0, ..., 0] for fill in ("constant", "nearest"))
    assert black.sum() == pytest.approx(16 * 16, rel=0.05) and black[0, 0] == 0
    assert np.allclose(nearest, 1)


def test_nearest_fill_repeats_the_edge():
    image = np.zeros((1, 32, 32, 1), np.float32)
    image[:, :, :16] = 1
    got = warped(image, zoom=(0.5, 0.5), fill="nearest")[0][0, ..., 0]
    assert np.allclose(got[:, :15], 1) and np.allclose(got[:, 17:], 0)


def test_same_seed_same_warp():
    settings = {"zoom": (0.7, 1.4), "flip": 0.5, "shear": 0.3}
    first = warped(blob(4), seed=(1, 2), **settings)[0]
    assert np.array_equal(first, warped(blob(4), seed=(1, 2), **settings)[0])
    for seed in ((1, 3), (2, 2)):
        assert not np.array_equal(first, warped(blob(4), seed=seed, **settings)[0])


def test_interpolation_is_smooth():
    """A halved slope stays a slope: nearest-neighbour sampling would make stairs."""
    slope = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[None, None, :, None], (1, 64, 64, 1))
    got = warped(slope, zoom=(2.0, 2.0))[0][0, 32, :, 0]
    assert np.allclose(np.diff(got), 1 / 126, atol=1e-5)
