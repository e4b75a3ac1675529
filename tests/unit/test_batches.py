from itertools import islice

import keras
import numpy as np
import pytest

from braintumor.training.batches import (
    format_targets,
    steps_per_epoch,
    training_batches,
)

pytestmark = pytest.mark.usefixtures("deterministic")

N, SIDE, STEPS = 11, 16, 3
LABELS = np.arange(N) % 3


@pytest.fixture(scope="module")
def images():
    """Images that are identified by their first pixel."""
    images = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE), np.uint8)
    images[:, 0, 0] = np.arange(N)
    return images


@pytest.fixture(scope="module")
def masks():
    masks = np.zeros((N, SIDE, SIDE), np.uint8)
    for n in range(N):
        masks[n, 4 : 6 + n // 2, 5:9] = 1
    return masks


def take(images, targets, n_epochs=2, seed=0, augmentation=None, **settings):
    batches = training_batches(images, targets, 4, seed, augmentation, **settings)
    return list(islice(batches, STEPS * n_epochs))


def is_equal(batches, repeated):
    pairs = zip(keras.tree.flatten(batches), keras.tree.flatten(repeated), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


def find_rows(batches):
    """Rows of the images in batches without augmentation."""
    return [round(float(p) * 255) for x, _ in batches for p in x[:, 0, 0, 0]]


@pytest.mark.parametrize("augmentation", [None, {}])
def test_later_epochs_are_those_of_an_undisturbed_run(images, masks, augmentation):
    batches = take(images, masks, 4, augmentation=augmentation)
    assert not is_equal(batches, take(images, masks, 4, 1, augmentation))
    for epoch in range(4):
        settings = {"augmentation": augmentation, "first_epoch": epoch}
        rest = take(images, masks, 4 - epoch, **settings)
        assert is_equal(rest, batches[STEPS * epoch :])


def test_every_row_comes_once_per_epoch(images):
    batches = take(images, LABELS, 3)
    epochs = [find_rows(batches[k : k + STEPS]) for k in (0, STEPS, 2 * STEPS)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(N))] * 3
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(N))}) == 4


def test_augmentation_differs_within_a_batch_and_between_epochs(images):
    same_image = np.broadcast_to(images[0], (4, SIDE, SIDE))
    batches = islice(training_batches(same_image, LABELS[:4], 4, 0, {}), 3)
    assert len({image.tobytes() for x, _ in batches for image in x}) == 12


def test_targets_stay_with_their_images_in_the_types_of_a_network(images, masks):
    for x, y in take(images, {"classify": LABELS, "segment": masks}):
        rows = find_rows([(x, y)])
        assert np.array_equal(y["classify"], LABELS[rows])
        assert np.array_equal(y["segment"][..., 0], masks[rows])
    targets = {"classify": LABELS, "segment": masks}
    batches = take(images, targets, 1, augmentation={})
    assert [x.shape for x, _ in batches] == [(n, SIDE, SIDE, 1) for n in (4, 4, 3)]
    for x, y in batches:
        assert x.dtype == y["segment"].dtype == np.float32
        assert y["classify"].dtype == np.int64
        assert y["segment"].shape == (len(x), SIDE, SIDE, 1)
        assert 0 <= x.min() < 0.2 and 0.8 < x.max() <= 1
    formatted = format_targets(targets)  # of validation slices
    assert (formatted["classify"].dtype, formatted["segment"].dtype) == ("i8", "f4")
    assert np.array_equal(formatted["segment"][..., 0], masks)
    assert [steps_per_epoch(n, 4) for n in (1, 8, 9)] == [1, 2, 3]
    for task, target in targets.items():
        single = take(images, target, 1, augmentation={})
        assert is_equal([(x, y[task]) for x, y in batches], single)
