"""Prediction by the published networks, and loading networks without their code."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import scipy
from keras import ops
from samples import FIGSHARE

from braintumor.core.errors import DatasetError
from braintumor.data.phantom import write_phantom
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference import predictor as module
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import (
    Predictor,
    build_prediction_model,
    load_held_out_folds,
    load_network,
    predict_files,
)
from braintumor.models.joint import ZOOMS, build_joint, build_tta_model

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(folder, n_patients=15, size=256, progress=False, n_jobs=1)
    return read_image(folder / "1.mat")


@pytest.fixture(scope="module")
def predictor():
    return Predictor()


@pytest.fixture(scope="module")
def joint():
    """A small untrained network whose batch normalization is not the identity."""
    keras.utils.set_random_seed(0)
    network = build_joint(32, filters=4)
    rng = np.random.default_rng(0)
    weights = [w + rng.uniform(-0.05, 0.05, w.shape) for w in network.get_weights()]
    network.set_weights(weights)
    return network


def test_prediction_has_the_shape_of_the_image(predictor, image):
    wide = InputImage("wide", image.pixels[30:230])
    for case in (image, wide):
        prediction = predictor.predict(case)
        assert prediction.model_folds == (1, 2, 3, 4, 5)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.mask.shape == prediction.gradcam.shape == case.pixels.shape
        assert prediction.mask.any()
        assert prediction.gradcam.min() >= 0
        assert prediction.gradcam.max() == pytest.approx(1)
        assert 0 <= prediction.mask_agreement <= 1


def test_image_without_a_head_is_out_of_distribution(predictor):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256))
    prediction = predictor.predict(InputImage("noise", noise))
    assert prediction.warnings
    assert prediction.ood_scores["reconstruction"] > 1


def test_patient_of_the_training_data_gives_a_warning(predictor, image):
    known = replace(image, patient=next(iter(load_held_out_folds())))
    assert predictor.predict(known).n_models_trained_on_patient == 4
    assert predictor.predict(image).n_models_trained_on_patient == 0


def test_single_network_predicts_as_the_tta_model(joint):
    x = np.random.default_rng(1).random((2, 64, 64, 1), "float32")
    expected = build_tta_model(joint, 64)(x)
    outputs = build_prediction_model([joint], 64, ZOOMS)(x)
    classify = ops.mean(outputs["classify"], axis=(1, 2))
    assert np.allclose(classify, expected["classify"], atol=1e-5)
    assert np.allclose(outputs["segment"], expected["segment"][..., 0], atol=1e-5)


def test_ensemble_is_the_mean_of_its_networks(joint):
    other = keras.models.clone_model(joint)
    x = np.random.default_rng(1).random((2, 64, 64, 1), "float32")
    both = build_prediction_model([joint, other], 64)(x)
    singles = [build_prediction_model([network], 64)(x) for network in (joint, other)]
    for name in ("segment", "gradcam"):
        mean = np.mean([single[name] for single in singles], axis=0)
        assert np.allclose(both[name], mean, atol=1e-5)
    for n, single in enumerate(singles):
        assert np.allclose(both["features"][:, n], single["features"][:, 0], atol=1e-5)


def test_gradcam_is_that_of_gradients(joint):
    x = np.random.default_rng(1).random((1, 32, 32, 1), "float32")
    coarse = joint.get_layer("coarse_features").output
    maps = np.array(keras.Model(joint.input, coarse)(x))[0].astype(float)
    kernel = joint.get_layer("classify").get_weights()[0][:, 0]

    def logit(maps):
        pooled = np.concatenate([maps.max(axis=(0, 1)), maps.mean(axis=(0, 1))])
        return pooled @ kernel

    gradients = scipy.optimize.approx_fprime(
        maps.ravel(), lambda values: logit(values.reshape(maps.shape)), 1e-6
    )
    expected = maps @ gradients.reshape(maps.shape).sum(axis=(0, 1))
    assert expected.max() > 0
    gradcam = np.array(module._add_outputs(joint)(x)["gradcam"])[0, ..., 0]
    assert gradcam == pytest.approx(np.maximum(expected, 0), rel=1e-3, abs=1e-4)


@pytest.mark.real
@pytest.mark.skipif(not FIGSHARE.exists(), reason="needs the figshare slices")
def test_held_out_predictions_are_the_published_ones(tmp_path):
    files = [1, 900, 1500, 2000, 3000]
    script = [sys.executable, FIGSHARE / "make_mats.py", tmp_path]
    options = ["--files", ",".join(map(str, files))]
    subprocess.run([*script, *options], check=True, capture_output=True)
    classified, segmented = (
        load_predictions(module.PUBLISHED, task)[0].set_index("file").loc[files]
        for task in ("classify", "segment")
    )
    paths = [tmp_path / f"{n}.mat" for n in files]
    predictions = [prediction for _, prediction in predict_files(paths, held_out=True)]
    assert [p.model_folds[0] for p in predictions] == classified["fold"].tolist()
    probabilities = np.array([p.probabilities for p in predictions])
    expected = classified[PROBABILITY_COLUMNS].to_numpy()
    assert probabilities == pytest.approx(expected, abs=2e-4)
    dice = [compute_dice(p.image.mask, p.mask) for p in predictions]
    assert dice == pytest.approx(segmented["dice"].tolist(), abs=2e-3)


# Networks from files that may be damaged or hostile.


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def write_lambda(path):
    layers = [keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(path)


BAD_NETWORKS = {
    "lambda": write_lambda,
    "pickle": lambda path: path.write_bytes(pickle.dumps(Trap())),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "missing": lambda path: path.unlink(),
}


@pytest.fixture
def network_path(tmp_path, monkeypatch):
    """models/fold-1.keras in another project, without its OOD reference."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "fold-1.keras"
    layers = [keras.layers.Input((4,)), keras.layers.Dense(1, name="dense")]
    keras.Sequential(layers).save(path)
    return path


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_network_is_refused_and_no_code_runs(tmp_path, network_path, case):
    assert load_network(network_path).count_params() == 5
    BAD_NETWORKS[case](network_path)
    with pytest.raises(DatasetError, match=r"fold-1\.keras") as caught:
        load_network(network_path)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"network": np.array(Trap())},
        {"other": np.ones(3)},
        {"network": "digest of another network"},
    ],
)
def test_bad_ood_reference_is_refused_and_no_code_runs(tmp_path, network_path, arrays):
    np.savez(network_path.with_suffix(".npz"), **arrays)
    with pytest.raises(DatasetError, match=r"fold-1\.npz"):
        Predictor([1])
    assert not (tmp_path / "trapped").exists()
