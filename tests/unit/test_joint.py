import keras
import numpy as np
import pytest

from braintumor.core.files import ROOT
from braintumor.models.joint import (
    build_joint,
    build_tta_model,
    per_slice_loss,
    to_float16_weights,
)

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build_joint(64, filters=16)


@pytest.fixture(scope="module")
def slices():
    """Two slices with a bright square head on black."""
    slices = np.zeros((2, 128, 128, 1), np.float32)
    rng = np.random.default_rng(0)
    slices[0, 30:90, 40:110] = rng.uniform(0.3, 1, (60, 70, 1))
    slices[1, 10:110, 5:90] = rng.uniform(0.3, 1, (100, 85, 1))
    return slices


def test_outputs_are_a_class_and_a_mask(network):
    outputs = network.predict(np.ones((2, 64, 64, 1)), verbose=0)
    assert outputs["classify"].shape == (2, 3)
    assert outputs["classify"].sum(axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    assert outputs["segment"].shape == (2, 64, 64, 1)
    assert 0 < outputs["segment"].min() < outputs["segment"].max() < 1


def test_class_depends_on_maxima_and_means_of_the_coarsest_map(network):
    coarse = network.get_layer("coarse_features").output
    pooled = network.get_layer("pooled_features").output
    features = keras.Model(network.inputs, [coarse, pooled])
    maps, vector = features.predict(np.ones((1, 64, 64, 1)), verbose=0)
    assert maps.shape == (1, 4, 4, 64)
    expected = np.concatenate([maps.max(axis=(1, 2)), maps.mean(axis=(1, 2))], axis=1)
    assert np.allclose(vector, expected, atol=1e-5)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_network_of_one_task_has_one_output(network, task):
    single = build_joint(64, 16, [task])
    assert list(single.output) == [task]
    assert single.count_params() < network.count_params()


def test_wrong_size_is_an_error():
    with pytest.raises(ValueError, match="image_size"):
        build_joint(72)


def test_per_slice_loss_counts_each_slice_alike():
    y_true = np.zeros((2, 8, 8, 1), "float32")
    y_true[0, :4], y_true[1, 0, 0] = 1, 1  # a large and a small tumor
    large_missed, small_missed = y_true.copy(), y_true.copy()
    large_missed[0], small_missed[1] = 0, 0
    cross_entropy = keras.losses.BinaryCrossentropy()
    dice = [
        float(per_slice_loss(y_true, y_pred)) - float(cross_entropy(y_true, y_pred))
        for y_pred in (large_missed, small_missed)
    ]
    assert dice == pytest.approx([0.5, 0.5], abs=1e-3)


def test_tta_averages_the_crop_and_its_mirror_image(network, slices):
    model = build_tta_model(network, 64, crop=False, zooms=(1.0,))
    small = np.ascontiguousarray(slices[:, ::2, ::2])
    outputs = model.predict(small, verbose=0)
    original = network.predict(small, verbose=0)
    mirrored = network.predict(small[:, :, ::-1], verbose=0)
    mean = (original["classify"] + mirrored["classify"]) / 2
    assert np.allclose(outputs["classify"], mean, atol=1e-5)
    mean = (original["segment"] + mirrored["segment"][:, :, ::-1]) / 2
    assert np.allclose(outputs["segment"], mean, atol=1e-5)


def test_tta_masks_the_head_of_whole_slices_and_loads_again(network, slices, tmp_path):
    model = build_tta_model(network, 128)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    outputs = loaded.predict(slices, verbose=0)
    assert outputs["segment"].shape == (2, 128, 128, 1)
    assert outputs["segment"][0, 120:, 120:].max() == 0  # outside of the head
    assert outputs["segment"][0, 40:80, 50:100].min() > 0.1
    expected = model.predict(slices, verbose=0)
    assert np.allclose(outputs["segment"], expected["segment"], atol=1e-6)


def test_float16_weights_are_computed_in_float32(slices):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trained = build_joint(64, filters=16)
    finally:
        keras.config.set_dtype_policy("float32")
    network = to_float16_weights(trained)
    pairs = list(zip(network.get_weights(), trained.get_weights(), strict=True))
    assert all(np.array_equal(new, old.astype("float16")) for new, old in pairs)
    assert any(not np.array_equal(new, old) for new, old in pairs)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert list(network.output) == ["classify", "segment"]


def test_float16_weights_of_nested_networks():
    image = keras.layers.Input((64, 64, 1))
    inner = build_joint(64, filters=16)
    nested = keras.Model(image, inner(image))
    copy = to_float16_weights(nested)
    assert copy.get_layer("joint") is not inner
    assert list(copy.output) == ["classify", "segment"]


@pytest.mark.parametrize("fold", range(1, 6))
def test_published_network_is_the_joint_network(fold):
    path = ROOT / f"models/fold-{fold}.keras"
    published = keras.models.load_model(path, compile=False)
    shapes = [weight.shape for weight in build_joint(128, 32).get_weights()]
    weights = published.get_weights()
    assert [weight.shape for weight in weights] == shapes
    assert all(np.array_equal(w, w.astype("float16")) for w in weights)
