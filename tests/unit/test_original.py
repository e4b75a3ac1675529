import keras
import numpy as np
import pytest
from keras import layers

from braintumor.models.original import (
    bce_dice_loss,
    build_cnn,
    build_ensemble,
    build_unet,
)

pytestmark = pytest.mark.usefixtures("deterministic")


def build_by_hand(channels, activation):
    """The classifier at 64 pixels, line by line from its written description."""
    l2 = keras.regularizers.L2
    strong = {"kernel_regularizer": l2(0.01), "bias_regularizer": l2(0.01)}
    x = image = layers.Input((64, 64, channels))
    x = layers.Conv2D(8, (3, 3), padding="valid")(x)
    x = layers.Dropout(0.1)(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((1, 2))(x)
    x = layers.Conv2D(16, (3, 3), padding="valid", **strong)(x)
    x = layers.Dropout(0.2)(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((3, 2))(x)
    x = layers.Conv2D(32, (3, 3), padding="valid", **strong)(x)
    x = layers.Dropout(0.3)(x)
    x = activation(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, kernel_regularizer=l2(1e-4), bias_regularizer=l2(0.01))(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(image, layers.Dense(3, activation="softmax")(x))


@pytest.fixture(params=[(1, "leaky_relu"), (3, "leaky_relu"), (3, "relu")], ids=str)
def cnn_pair(request):
    """`build_cnn` and the network made by hand, from one seed."""
    channels, last_block = request.param
    leaky = layers.LeakyReLU(negative_slope=0.1)
    keras.utils.set_random_seed(5)
    network = build_cnn(64, channels, last_block)
    keras.utils.set_random_seed(5)
    activation = layers.ReLU() if last_block == "relu" else leaky
    return network, build_by_hand(channels, activation)


def test_cnn_has_the_described_layers_and_initial_weights(cnn_pair):
    network, by_hand = cnn_pair
    kinds = [[type(layer) for layer in model.layers] for model in cnn_pair]
    assert kinds[0] == kinds[1][1:]  # the first is the input
    pairs = zip(network.get_weights(), by_hand.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)
    penalties = [float(sum(model.losses)) for model in cnn_pair]
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-6) and penalties[0] > 0.1


@pytest.mark.parametrize("training", [False, True])
def test_cnn_has_the_described_output(cnn_pair, training):
    images = np.random.default_rng(0).random((4, *cnn_pair[0].input_shape[1:]))
    outputs = [
        keras.ops.convert_to_numpy(model(images, training=training))
        for model in cnn_pair
    ]
    assert np.ptp(outputs[0], axis=0).min() > 1e-3
    assert np.allclose(*outputs, atol=1e-6)
    assert outputs[0].sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)


def test_parameter_counts_are_the_published_ones():
    cnn = build_cnn(512)
    assert cnn.count_params() == 5_275_875
    assert cnn.get_layer(index=-5).count_params() == 5_269_536
    assert build_cnn(512, channels=3).count_params() == 5_276_019
    assert build_unet(512, filters=16).count_params() == 1_940_817
    assert build_unet(64, filters=64).count_params() == 31_030_593


def test_unknown_activation_is_an_error():
    with pytest.raises(ValueError, match="last_block"):
        build_cnn(64, last_block="elu")


@pytest.fixture(scope="module")
def members():
    networks = []
    for number, last_block in enumerate(("leaky_relu", "leaky_relu", "relu"), 1):
        keras.utils.set_random_seed(number)
        networks.append(build_cnn(64, channels=3, last_block=last_block))
        networks[-1].name = f"member-{number}"
    return networks


def test_ensemble_averages_its_members_also_after_saving(members, tmp_path):
    images = np.random.default_rng(0).random((5, 64, 64, 3), np.float32)
    outputs = np.stack([member.predict(images, verbose=0) for member in members])
    assert np.ptp(outputs, axis=0).min() > 1e-4
    ensemble = build_ensemble(members)
    ensemble.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    for model in (ensemble, loaded):
        prediction = model.predict(images, verbose=0)
        assert np.allclose(prediction, outputs.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("image_size", [64, 80])
def test_unet_predicts_a_probability_per_pixel(image_size):
    images = np.random.default_rng(0).random((2, image_size, image_size, 1))
    maps = build_unet(image_size, filters=4).predict(images, verbose=0)
    assert maps.shape == images.shape
    assert 0 < maps.min() < maps.max() < 1


def test_unet_has_skip_connections_and_dropout_on_request():
    model = build_unet(64, filters=4, dropout=0.3)
    joined = [x for x in model.layers if isinstance(x, layers.Concatenate)]
    shapes = [layer.output.shape[1:] for layer in joined]
    assert shapes == [(8, 8, 64), (16, 16, 32), (32, 32, 16), (64, 64, 8)]
    assert sum(isinstance(x, layers.Dropout) for x in model.layers) == 8
    without = build_unet(64, filters=4)
    assert not any(isinstance(x, layers.Dropout) for x in without.layers)


@pytest.mark.parametrize("build", [build_cnn, build_unet])
def test_small_slices_are_an_error(build):
    with pytest.raises(ValueError, match="image_size"):
        build(63)


def test_unet_needs_a_multiple_of_16():
    with pytest.raises(ValueError, match="image_size"):
        build_unet(72)


def test_bce_dice_loss_pools_the_batch():
    y_true = np.zeros((2, 2, 2, 1), "float32")
    y_true[0, 0] = 1  # two of eight pixels, both in the first slice
    y_pred = np.full_like(y_true, 0.2)
    y_pred[0, 0] = 0.9
    cross_entropy = -(2 * np.log(0.9) + 6 * np.log(0.8)) / 8
    dice = 2 * (2 * 0.9) / (2 + 2 * 0.9 + 6 * 0.2)
    loss = float(bce_dice_loss(y_true, y_pred))
    assert loss == pytest.approx(cross_entropy + 1 - dice, abs=1e-5)
