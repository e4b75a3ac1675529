"""The original study's networks, and the compact classifier."""

import numpy as np
import pytest
from keras import layers

from braintumor.models.compact import build_compact
from braintumor.models.joint import build_joint
from braintumor.models.original import bce_dice_loss, build_cnn, build_unet

pytestmark = pytest.mark.usefixtures("deterministic")


def test_cnn_has_the_described_blocks_and_penalties():
    network = build_cnn(64, channels=3, last_block="relu")
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Conv2D") == 3 and kinds.count("BatchNormalization") == 4
    assert kinds.count("ReLU") == 1
    rates = [x.rate for x in network.layers if isinstance(x, layers.Dropout)]
    assert rates == [0.1, 0.2, 0.3, 0.3]
    assert float(sum(network.losses)) > 0.1
    images = np.random.default_rng(0).random((4, 64, 64, 3))
    probabilities = network.predict(images, verbose=0)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)


def test_parameter_counts_are_the_published_ones():
    cnn = build_cnn(512)
    assert cnn.count_params() == 5_275_875
    assert cnn.get_layer(index=-5).count_params() == 5_269_536
    assert build_cnn(512, channels=3).count_params() == 5_276_019
    assert build_unet(64, filters=16).count_params() == 1_940_817
    assert build_unet(64, filters=64).count_params() == 31_030_593


def test_unet_has_skip_connections():
    images = np.random.default_rng(0).random((2, 80, 80, 1))
    model = build_unet(80, filters=4)
    maps = model.predict(images, verbose=0)
    assert maps.shape == images.shape
    assert 0 < maps.min() < maps.max() < 1
    joined = [x for x in model.layers if isinstance(x, layers.Concatenate)]
    shapes = [layer.output.shape[1:] for layer in joined]
    assert shapes == [(10, 10, 64), (20, 20, 32), (40, 40, 16), (80, 80, 8)]


def test_bce_dice_loss_pools_the_batch():
    y_true = np.zeros((2, 2, 2, 1), "float32")
    y_true[0, 0] = 1  # two of eight pixels, both in the first slice
    y_pred = np.full_like(y_true, 0.2)
    y_pred[0, 0] = 0.9
    cross_entropy = -(2 * np.log(0.9) + 6 * np.log(0.8)) / 8
    dice = 2 * (2 * 0.9) / (2 + 2 * 0.9 + 6 * 0.2)
    loss = float(bce_dice_loss(y_true, y_pred))
    assert loss == pytest.approx(cross_entropy + 1 - dice, abs=1e-5)


def test_networks_accept_their_sizes_only():
    networks = [build_compact(image_size) for image_size in (64, 80)]
    assert [network.count_params() for network in networks] == [292_691] * 2
    images = np.random.default_rng(0).random((4, 80, 80, 1))
    probabilities = networks[1].predict(images, verbose=0)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    for build in (build_unet, build_joint):
        for image_size in (0, 72):
            with pytest.raises(ValueError, match="image_size: got .*multiple of 16"):
                build(image_size)
