"""The networks are those of the original study."""

import keras
import numpy as np
import pytest
from keras import layers

from braintumor.evaluation import metrics
from braintumor.models import original as models
from braintumor.models.original import bce_dice, cnn, ensemble, unet

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


def test_three_channels_cost_the_first_convolution_two_more_planes():
    assert cnn(512, channels=3).count_params() == 5_276_019 == 5_275_875 + 8 * 3 * 3 * 2


def test_relu_stands_in_the_last_block_only():
    leaky, relu = cnn(64, channels=3), cnn(64, channels=3, last_block="relu")
    expected = [type(layer) for layer in leaky.layers]
    expected[12] = layers.ReLU  # five layers a block; the activation is the third
    assert [type(layer) for layer in relu.layers] == expected
    assert [w.shape for w in relu.weights] == [w.shape for w in leaky.weights]
    assert relu.count_params() == leaky.count_params()


@pytest.mark.parametrize("other", ["elu", "ReLU", "", None])
def test_another_last_block_is_refused_with_those_there_are(other):
    with pytest.raises(ValueError, match=f"last_block {other!r}: expected 'leaky_relu' or 'relu'"):
        cnn(64, last_block=other)


def described(channels, relu):
    """The classifier for 64 px built from its written description, line by line; it shares no code with `cnn`."""
    l2 = keras.regularizers.L2
    x = inputs = layers.Input((64, 64, channels))
    x = layers.Conv2D(8, (3, 3), padding="valid")(x)
    x = layers.Dropout(0.1)(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((1, 2))(x)
    x = layers.Conv2D(16, (3, 3), padding="valid", kernel_regularizer=l2(0.01), bias_regularizer=l2(0.01))(x)
    x = layers.Dropout(0.2)(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((3, 2))(x)
    x = layers.Conv2D(32, (3, 3), padding="valid", kernel_regularizer=l2(0.01), bias_regularizer=l2(0.01))(x)
    x = layers.Dropout(0.3)(x)
    x = layers.ReLU()(x) if relu else layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, kernel_regularizer=l2(1e-4), bias_regularizer=l2(0.01))(x)
    x = layers.LeakyReLU(negative_slope=0.1)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))


@pytest.fixture(params=[(1, "leaky_relu"), (3, "leaky_relu"), (3, "relu")], ids=str)
def twins(request):
    """`cnn` and the network built from its description, with the same seed."""
    channels, last_block = request.param
    keras.utils.set_random_seed(5)
    ours = cnn(64, channels, last_block)
    keras.utils.set_random_seed(5)
    return ours, described(channels, relu=last_block == "relu")


def test_cnn_has_the_layers_and_first_weights_of_its_description(twins):
    ours, other = twins
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in other.layers[1:]]  # 0: the input
    assert [w.shape for w in ours.weights] == [w.shape for w in other.weights]
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), other.get_weights(), strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_cnn_gives_the_output_of_its_description(twins, training):
    images = np.random.default_rng(0).random((4, *twins[0].input_shape[1:]), np.float32)
    ours, other = (model(images, training=training).numpy() for model in twins)
    assert np.ptp(ours, axis=0).min() > 1e-3  # or else equal outputs would say nothing
    assert np.allclose(ours, other, atol=1e-6)
    left = zip(*(model.get_weights() for model in twins), strict=True)  # batch normalisation's means have moved
    assert all(np.allclose(a, b, atol=1e-6) for a, b in left)


def test_cnn_has_the_penalties_of_its_description(twins):
    for model in twins:
        model.set_weights([w + 0.1 for w in model.get_weights()])  # biases start at zero, where none is felt
    ours, other = (float(sum(model.losses)) for model in twins)
    assert ours == pytest.approx(other, rel=1e-6) and ours > 0.5


def test_cnn_weights_start_glorot_uniform():
    keras.utils.set_random_seed(0)
    weighted = [x for x in cnn(64, channels=3).layers if isinstance(x, layers.Conv2D | layers.Dense)]
    assert not any(layer.bias.numpy().any() for layer in weighted)
    kernels = [layer.kernel.numpy() for layer in weighted if layer.kernel.numpy().size > 1000]
    assert [kernel.shape for kernel in kernels] == [(3, 3, 8, 16), (3, 3, 16, 32), (1728, 32)]
    for kernel in kernels:
        fans = np.prod(kernel.shape[:-2]) * sum(kernel.shape[-2:])
        assert kernel.std() == pytest.approx(np.sqrt(2 / fans), rel=0.06)
        assert abs(kernel.mean()) < 0.1 * kernel.std()
        assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / fans), rel=0.02)  # a uniform draw has an edge


# The ensemble.


@pytest.fixture(scope="module")
def members():
    made = []
    for number, last_block in enumerate(("leaky_relu", "leaky_relu", "relu"), 1):
        keras.utils.set_random_seed(number)
        made.append(cnn(64, channels=3, last_block=last_block))
        made[-1].name = f"member-{number}"
    return made


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((5, 64, 64, 3), np.float32)


def test_ensemble_gives_the_mean_of_its_members(members, images):
    each = np.stack([member(images).numpy() for member in members])
    assert np.ptp(each, axis=0).min() > 1e-4  # they differ
    got = ensemble(members)(images).numpy()
    assert np.allclose(got, each.mean(0), atol=1e-6)
    assert got.sum(1) == pytest.approx(np.ones(5), abs=1e-5)


def test_ensemble_is_saved_and_loaded_as_one_network(members, images, tmp_path):
    one = ensemble(members)
    one.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert np.array_equal(loaded.predict(images, verbose=0), one.predict(images, verbose=0))
    assert (loaded.input_shape, loaded.count_params()) == (one.input_shape, one.count_params())
    for member in members:
        assert np.allclose(loaded.get_layer(member.name)(images), member(images), atol=1e-6)


def test_ensemble_keeps_its_members_names_and_weights(members):
    one = ensemble(members)
    assert one.count_params() == sum(member.count_params() for member in members)
    for number, member in enumerate(members, 1):
        assert member.name == f"member-{number}" and one.get_layer(member.name) is member


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


def test_bce_dice_is_cross_entropy_plus_one_minus_dice_of_the_whole_batch():
    true = np.zeros((2, 2, 2, 1), "float32")
    true[0, 0] = 1  # two of eight pixels, both in the first slice
    predicted = np.full_like(true, 0.2)
    predicted[0, 0] = 0.9
    cross_entropy = -(2 * np.log(0.9) + 6 * np.log(0.8)) / 8
    dice = 2 * (2 * 0.9) / (2 + 2 * 0.9 + 6 * 0.2)
    assert float(bce_dice(true, predicted)) == pytest.approx(cross_entropy + 1 - dice, abs=1e-5)


def disc(size, x, y, radius):
    """A bright disc on black, (size, size) float32 in [0, 1]."""
    rows, columns = np.mgrid[:size, :size]
    return (np.hypot(columns - x, rows - y) < radius).astype("float32")


@pytest.mark.parametrize("x, y, radius", [(64, 64, 40), (40, 70, 30), (100, 64, 26), (64, 64, 90)])
def test_head_is_found_with_a_small_margin(x, y, radius):
    left, top, side = np.array(models.head_box(disc(128, x, y, radius)[None, ..., None]))[0]
    assert left <= max(x - radius, 0) and top <= max(y - radius, 0)
    assert left + side >= min(x + radius, 127) and top + side >= min(y + radius, 127)
    assert left >= 0 and top >= 0 and max(left, top) + side <= 128
    assert side <= min(2 * radius + 12, 128)


def test_slice_without_a_head_is_taken_whole():
    boxes = np.array(models.head_box(np.zeros((2, 64, 64, 1), "float32")))
    assert boxes.tolist() == [[0, 0, 64]] * 2


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.2])  # the largest reaches out of the slice
def test_mask_comes_back_to_its_place(zoom):
    slices = np.stack([disc(128, 50, 70, 40), disc(128, 64, 64, 62)])[..., None]
    masks = np.stack([disc(128, 60, 80, 10), disc(128, 30, 64, 20)])[..., None]
    boxes = models.grown(models.head_box(slices), zoom)
    cut = models.cut_out(masks, boxes, 64)
    assert cut.shape == (2, 64, 64, 1)
    back = np.array(models.put_back(cut, boxes, 128))
    assert back.shape == masks.shape
    for one, other in zip(masks, back, strict=True):
        assert metrics.dice(one > 0.5, other > 0.5) > 0.95


def test_box_grows_around_its_centre():
    box = np.float32([[10, 20, 40], [0, 0, 128]])
    assert np.array(models.grown(box, 1.2)).tolist() == pytest.approx(np.float32([[6, 16, 48], [-12.8, -12.8, 153.6]]))
    assert np.array_equal(models.grown(box, 1.0), box)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_slice_is_moved_as_if_it_were_alone(count):
    """In a network, where Keras adds in a way of its own."""
    slices = np.stack([disc(128, 40 + 10 * n, 60, 30 + 5 * n) for n in range(count)])[..., None]
    image = keras.layers.Input((128, 128, 1))
    box = models.grown(models.head_box(image), 0.8)
    view = models.cut_out(image, box, 64)
    network = keras.Model(image, [box, view, models.put_back(view, box, 128)])
    for together, *alone in zip(network(slices), *(network(slices[n : n + 1]) for n in range(count)), strict=True):
        assert np.allclose(together, np.concatenate(alone), atol=1e-5)


def test_whole_slice_at_its_own_size_is_left_as_it_is():
    image = np.random.default_rng(0).random((1, 64, 64, 1)).astype("float32")
    whole = np.array(models.whole_box(image))
    assert whole.tolist() == [[0, 0, 64]]
    assert np.allclose(models.cut_out(image, whole, 64), image, atol=1e-6)
    assert np.allclose(models.put_back(image, whole, 64), image, atol=1e-6)


def test_heads_of_a_prepared_set_are_cut_out_as_bytes():
    slices, masks = (disc(128, 50, 70, radius).astype("uint8") for radius in (40, 10))
    image, mask = models.head_cutter(128, 64).predict([255 * slices[None], masks[None]], verbose=0)
    assert image.dtype == mask.dtype == np.uint8 and image.shape == mask.shape == (1, 64, 64)
    assert image.max() == 255 and set(np.unique(mask)) == {0, 1}
    side = np.array(models.head_box(slices[None, ..., None].astype("float32")))[0, 2]
    assert mask.sum() == pytest.approx(masks.sum() * (64 / side) ** 2, rel=0.05)  # larger than in the slice at 64


@pytest.mark.parametrize("cut", [0, 72, 144])
def test_head_that_cannot_be_cut_so_is_refused(cut):
    with pytest.raises(ValueError, match=f"head cut out at {cut} pixels: expected a multiple of 16, at most"):
        models.head_cutter(128, cut)
