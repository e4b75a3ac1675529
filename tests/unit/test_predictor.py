"""Predictions of the published networks, and files that are damaged or hostile."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import scipy
from export_onnx import export_onnx
from samples import FIGSHARE

from braintumor.core.errors import DatasetError
from braintumor.core.files import sha256
from braintumor.data.phantom import write_phantom
from braintumor.evaluation.masks import compute_dice
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import load_predictions
from braintumor.inference import predictor as module
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import (
    Ensemble,
    Predictor,
    find_networks,
    load_held_out_folds,
    load_network,
    predict_files,
)
from braintumor.models.joint import build_joint

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(folder, n_patients=15, size=256, progress=False, n_jobs=1)
    return read_image(folder / "1.mat")


@pytest.fixture(scope="module")
def predictor():
    return Predictor(find_networks())


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
        assert prediction.networks == tuple(p.stem for p in find_networks())
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
    pid, fold = next(iter(load_held_out_folds().items()))
    known, held_out = replace(image, patient=pid), find_networks(fold)
    n_trained = len(find_networks()) - len(held_out)
    assert predictor.predict(known).n_models_trained_on_patient == n_trained > 0
    assert Predictor(held_out).predict(known).n_models_trained_on_patient == 0
    assert predictor.predict(image).n_models_trained_on_patient == 0


@pytest.fixture
def models(joint, tmp_path, monkeypatch):
    """Two networks, of folds 1 and 2, in another project."""
    other = keras.models.clone_model(joint)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for fold, network in ((1, joint), (2, other)):
        path = tmp_path / "models" / f"without-{fold}.onnx"
        export_onnx(network, path)
        np.savez(path.with_suffix(".npz"), network=sha256(path))
    return find_networks()


def test_ensemble_is_the_mean_of_its_networks(models):
    x = np.random.default_rng(1).random((2, 32, 32, 1), "float32")
    both, *singles = (Ensemble(paths)(x) for paths in (models, models[:1], models[1:]))
    for name in ("segment", "gradcam"):
        mean = np.mean([single[name] for single in singles], axis=0)
        assert np.allclose(both[name], mean, atol=1e-5)
    for name in ("classify", "features", "maps"):
        parts = [single[name] for single in singles]
        assert np.allclose(both[name], np.concatenate(parts, axis=1), atol=1e-5)
    assert not np.allclose(both["classify"][:, 0], both["classify"][:, 1], atol=1e-4)


def test_gradcam_is_that_of_gradients(joint, models):
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
    gradcam = Ensemble(models[:1])(x)["gradcam"][0, ..., 0]
    assert gradcam == pytest.approx(np.maximum(expected, 0), rel=1e-2, abs=1e-3)


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
    for prediction, fold in zip(predictions, classified["fold"], strict=True):
        assert prediction.networks == tuple(p.stem for p in find_networks(fold))
    probabilities = np.array([p.probabilities for p in predictions])
    expected = classified[PROBABILITY_COLUMNS].to_numpy()
    assert probabilities == pytest.approx(expected, abs=2e-4)
    dice = [compute_dice(p.image.mask, p.mask) for p in predictions]
    assert dice == pytest.approx(segmented["dice"].tolist(), abs=2e-3)


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


BAD_NETWORKS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: shutil.copy(path.with_name("without-2.onnx"), path),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_network_is_refused_in_one_line(models, case):
    BAD_NETWORKS[case](models[0])
    with pytest.raises(DatasetError, match=r"without-1\.") as caught:
        Predictor(models)
    assert str(caught.value).isprintable()


def test_network_that_is_no_onnx_is_refused_although_its_reference_names_it(models):
    models[0].write_bytes(b"\x08\x08" + bytes(100))
    np.savez(models[0].with_suffix(".npz"), network=sha256(models[0]))
    with pytest.raises(DatasetError, match=r"without-1\.onnx") as caught:
        load_network(models[0])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "arrays",
    [
        {"network": np.array(Trap())},
        {"other": np.ones(3)},
        {"network": "digest of another network"},
    ],
)
def test_bad_ood_reference_is_refused_and_no_code_runs(tmp_path, models, arrays):
    np.savez(models[0].with_suffix(".npz"), **arrays)
    with pytest.raises(DatasetError, match=r"without-1\."):
        Predictor(models)
    assert not (tmp_path / "trapped").exists()


def test_predict_starts_without_tensorflow(phantom_folder):
    code = "import sys; from braintumor.cli import main; main(sys.argv[1:]); "
    code += "assert not {'keras', 'tensorflow', 'matplotlib'} & sys.modules.keys()"
    command = [sys.executable, "-c", code, "predict", phantom_folder / "1.mat"]
    subprocess.run(command, check=True, capture_output=True)
