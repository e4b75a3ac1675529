from functools import partial

import keras
import numpy as np
import pytest
from export_onnx import export_onnx
from onnxruntime import InferenceSession

from braintumor.core.files import ROOT
from braintumor.models.joint import (
    build_joint,
    load_onnx_weights,
    per_slice_loss,
    to_float16_weights,
)
from braintumor.models.tta import predict_views

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


def test_tasks_have_one_output_and_classes_depend_on_pooled_maps(network):
    names = ("coarse_features", "pooled_features")
    outputs = [network.get_layer(name).output for name in names]
    features = keras.Model(network.inputs, outputs)
    maps, pooled = features.predict(np.ones((1, 64, 64, 1)), verbose=0)
    expected = [*maps.max(axis=(0, 1, 2)), *maps.mean(axis=(0, 1, 2))]
    assert np.allclose(pooled[0], expected, atol=1e-5)
    for task in ("classify", "segment"):
        single = build_joint(64, 16, [task])
        assert list(single.output) == [task]
        assert single.count_params() < network.count_params()


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


def predict(network):
    return partial(network.predict, verbose=0)


def test_views_are_the_crop_and_its_mirror_image(network, slices):
    small = np.ascontiguousarray(slices[:, ::2, ::2, 0])
    outputs = predict_views(predict(network), small, 64, crop=False, zooms=(1.0,))
    views = [predict(network)(x[..., None]) for x in (small, small[:, :, ::-1])]
    expected = np.stack([view["classify"] for view in views], axis=1)
    assert np.allclose(outputs["classify"], expected, atol=1e-5)
    masks = views[0]["segment"][..., 0], views[1]["segment"][:, :, ::-1, 0]
    assert np.allclose(outputs["mask"], np.mean(masks, axis=0), atol=1e-5)


def test_class_and_mask_of_whole_slices_are_predicted_at_each_zoom(network, slices):
    outputs = predict_views(predict(network), slices[..., 0], 64)
    assert outputs["mask"].shape == (2, 128, 128)
    assert outputs["mask"][0, 120:, 120:].max() == 0  # outside of the head
    assert outputs["mask"][0, 40:80, 50:100].min() > 0.1
    smaller, larger = (
        predict_views(predict(network), slices[..., 0], 64, zooms=(1.0, zoom))
        for zoom in (0.8, 1.2)
    )
    assert not np.allclose(smaller["mask"], larger["mask"], atol=1e-3)
    assert outputs["classify"].shape == (2, 6, 3)
    assert np.array_equal(smaller["classify"][:, 2:], outputs["classify"][:, :2])
    assert np.array_equal(larger["classify"], outputs["classify"][:, 2:])


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
    image = keras.layers.Input((64, 64, 1))
    nested = to_float16_weights(keras.Model(image, network(image)))
    assert nested.get_layer("joint") is not network
    assert list(nested.output) == list(network.output) == ["classify", "segment"]


@pytest.mark.parametrize("encoder", ["residual", "efficientnet"])
def test_onnx_file_predicts_as_keras_and_gives_its_weights_back(tmp_path, encoder):
    settings = {"filters": 8, "air_threshold": 0.05, "encoder": encoder}
    network = to_float16_weights(build_joint(64, **settings))
    export_onnx(network, tmp_path / "network.onnx")
    session = InferenceSession(tmp_path / "network.onnx")
    x = np.random.default_rng(0).random((3, 64, 64, 1), np.float32)
    values = session.run(None, {"image": np.moveaxis(x, -1, 1)})
    names = [output.name for output in session.get_outputs()]
    outputs, expected = dict(zip(names, values, strict=True)), predict(network)(x)
    assert np.allclose(outputs["classify"], expected["classify"], atol=1e-5)
    mask = expected["segment"].transpose(0, 3, 1, 2)
    assert np.allclose(outputs["segment"], mask, atol=1e-5)
    other = build_joint(64, **settings)
    load_onnx_weights(other, tmp_path / "network.onnx")
    pairs = zip(other.get_weights(), network.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_encoder_has_the_weights_of_imagenet(slices):
    network = build_joint(128, filters=8, encoder="efficientnet")
    head = network.get_layer("classify").get_weights()[0]
    load_onnx_weights(network, ROOT / "models/imagenet/efficientnet-lite0.onnx")
    assert np.array_equal(network.get_layer("classify").get_weights()[0], head)
    adds = [layer for layer in network.layers if isinstance(layer, keras.layers.Add)]
    maps = keras.Model(network.input, adds[-1].output).predict(slices, verbose=0)
    session = InferenceSession(ROOT / "models/imagenet/efficientnet-lite0.onnx")
    (expected,) = session.run(None, {"image": np.moveaxis(slices, -1, 1)})
    assert np.allclose(np.moveaxis(maps, -1, 1), expected, atol=1e-3)
    assert maps.std() > 0.1
