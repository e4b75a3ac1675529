"""The networks are those of the original study."""

import keras
import numpy as np
import pytest
from keras import layers

from braintumor.models import cnn, unet

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def original():
    return cnn(512)


def test_parameter_counts_are_the_published_ones(original):
    assert original.count_params() == 5_275_875
    assert original.get_layer(index=-5).count_params() == 5_269_536  # the dense layer after the last pooling
    assert unet(512, filters=16).count_params() == 1_940_817
    assert unet(64, filters=64).count_params() == 31_030_593


def test_cnn_layers_are_in_the_original_order(original):
    block = [
        layers.Conv2D,
        layers.Dropout,
        layers.LeakyReLU,
        layers.BatchNormalization,
        layers.MaxPooling2D,
    ]
    head = [
        layers.Flatten,
        layers.Dense,
        layers.LeakyReLU,
        layers.BatchNormalization,
        layers.Dropout,
        layers.Dense,
    ]
    assert [type(layer) for layer in original.layers] == block * 3 + head


def test_cnn_layers_have_the_original_settings(original):
    def of(kind, *names):
        return [tuple(getattr(x, name) for name in names) for x in original.layers if isinstance(x, kind)]

    assert of(layers.Conv2D, "filters", "kernel_size", "padding") == [(n, (3, 3), "valid") for n in (8, 16, 32)]
    assert of(layers.MaxPooling2D, "pool_size") == [((1, 2),), ((3, 2),), ((2, 2),)]
    assert of(layers.Dropout, "rate") == [(0.1,), (0.2,), (0.3,), (0.3,)]
    assert of(layers.Dense, "units") == [(32,), (3,)]
    assert of(layers.LeakyReLU, "negative_slope") == [(pytest.approx(0.1),)] * 4


def test_cnn_penalties_are_the_original_ones(original):
    def l2(regularizer):
        return None if regularizer is None else pytest.approx(float(regularizer.l2))

    weighted = [layer for layer in original.layers if isinstance(layer, layers.Conv2D | layers.Dense)]
    assert [l2(layer.kernel_regularizer) for layer in weighted] == [None, 0.01, 0.01, 1e-4, None]
    assert [l2(layer.bias_regularizer) for layer in weighted] == [None, 0.01, 0.01, 0.01, None]


@pytest.mark.parametrize("size", [64, 65, 100])
def test_cnn_gives_a_distribution_over_three_classes(size):
    images = np.random.default_rng(0).random((4, size, size, 1), np.float32)
    probabilities = cnn(size)(images).numpy()
    assert probabilities.shape == (4, 3) and probabilities.min() >= 0
    assert probabilities.sum(1) == pytest.approx(np.ones(4), abs=1e-6)
    assert len(np.unique(probabilities[:, 0])) == 4


def test_cnn_takes_more_channels():
    assert cnn(64, channels=3)(np.zeros((1, 64, 64, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize("size", [64, 80])
def test_unet_gives_a_probability_for_each_pixel(size):
    images = np.random.default_rng(0).random((2, size, size, 1), np.float32)
    probabilities = unet(size, filters=4)(images).numpy()
    assert probabilities.shape == images.shape
    assert 0 < probabilities.min() < probabilities.max() < 1


def test_unet_convolutions_start_he_normal():
    keras.utils.set_random_seed(0)
    convolutions = [x for x in unet(64, filters=16).layers if type(x) is layers.Conv2D and x.kernel_size == (3, 3)]
    assert len(convolutions) == 18
    for layer in convolutions[1:]:  # the first has 144 weights only
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * kernel.shape[2])), rel=0.06)
        assert abs(kernel.mean()) < 0.1 * kernel.std()
        assert not layer.bias.numpy().any()


def test_unet_joins_each_step_up_with_its_step_down():
    """A step that lost its skip connection would have half the input channels."""
    model = unet(64, filters=4)
    joined = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, layers.Concatenate)]
    assert joined == [(8, 8, 64), (16, 16, 32), (32, 32, 16), (64, 64, 8)]


def test_unet_dropout_is_there_only_when_asked_for():
    def rates(**settings):
        return [x.rate for x in unet(64, filters=2, **settings).layers if isinstance(x, layers.Dropout)]

    assert rates() == [] and rates(dropout=0.3) == [0.3] * 8


@pytest.mark.parametrize("network", [cnn, unet])
@pytest.mark.parametrize("size", [0, 32, 63])
def test_size_under_64_is_refused(network, size):
    with pytest.raises(ValueError, match=f"image size {size}: expected 64 pixels or more"):
        network(size)


@pytest.mark.parametrize("size", [65, 72, 100])
def test_unet_size_that_is_no_multiple_of_16_is_refused(size):
    with pytest.raises(ValueError, match=f"image size {size}.*expected a multiple of 16"):
        unet(size)
