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
from braintumor.core.files import ROOT, sha256
from braintumor.evaluation.masks import compute_dice
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import load_predictions
from braintumor.inference import predictor as module
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import Ensemble, Predictor, find_networks
from braintumor.models.joint import build_joint
from braintumor.models.tta import predict_views

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture
def image(phantom_folder):
    return read_image(phantom_folder / "1.mat")


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


@pytest.fixture(scope="module")
def exported(joint, tmp_path_factory):
    """Two networks of different sizes, of folds 1 and 2."""
    folder = tmp_path_factory.mktemp("exported") / "models"
    for fold, network in ((1, joint), (2, build_joint(48, filters=4))):
        path = folder / f"without-{fold}.onnx"
        export_onnx(network, path)
        write_reference(path, sha256(path))
    return folder


def test_predictions_of_phantom_slices_and_of_patients_of_the_training_data(
    predictor, image
):
    wide = InputImage("wide", image.pixels[7:57])
    for case in (image, wide):
        prediction = predictor.predict(case)
        assert prediction.networks == tuple(p.stem for p in find_networks())
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.mask.shape == prediction.gradcam.shape == case.pixels.shape
        assert prediction.mask.any()
        assert prediction.gradcam.min() >= 0
        assert prediction.gradcam.max() == pytest.approx(1)
        assert 0 <= prediction.mask_agreement <= 1
    noise = np.random.default_rng(0).integers(0, 255, (256, 256))
    prediction = predictor.predict(InputImage("noise", noise))
    assert prediction.warnings and prediction.ood_scores["reconstruction"] > 1
    pid, fold = next(iter(module.load_held_out_folds().items()))
    known, held_out = replace(image, patient=pid), find_networks(fold)
    n_trained = len(find_networks()) - len(held_out)
    assert predictor.predict(known).n_models_trained_on_patient == n_trained > 0
    assert Predictor(held_out).predict(known).n_models_trained_on_patient == 0
    assert predictor.predict(image).n_models_trained_on_patient == 0


def test_prediction_is_the_mean_of_its_networks(image):
    paths = find_networks(fold=1)
    mean = Predictor(paths).predict(image)
    singles = [Predictor([path]).predict(image) for path in paths]
    expected = np.mean([s.probabilities for s in singles], axis=0)
    assert mean.probabilities == pytest.approx(expected, abs=1e-5)
    scores, *expected = ([*p.ood_scores.values()] for p in (mean, *singles))
    assert scores == pytest.approx(np.mean(expected, axis=0), abs=2e-3)
    assert expected[0] != expected[1]


@pytest.fixture
def models(exported, tmp_path, monkeypatch):
    """Copies of the two networks in another project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    shutil.copytree(exported, tmp_path / "models")
    return find_networks()


def test_networks_of_different_sizes_predict_the_same_slices(models):
    x = np.random.default_rng(1).random((2, 64, 64), "float32")
    for path, outputs in zip(models, Ensemble(models).predict(x), strict=True):
        expected = predict_views(module.OnnxNetwork(path), x, outputs["crop"].shape[-1])
        for name in ("classify", "mask", "features", "gradcam"):
            assert np.allclose(outputs[name], expected[name], atol=1e-5)


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
    gradcam = module.OnnxNetwork(models[0])(x)["gradcam"][0, ..., 0]
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
    predictions = dict(module.predict_files(paths, held_out=True)).values()
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


def write_reference(path, digest):
    np.savez(path.with_suffix(".npz"), network=digest)


def replace_network(path):
    path.write_bytes(b"\x08\x08" + bytes(100))
    write_reference(path, sha256(path))


BAD_NETWORKS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "of another fold": lambda path: shutil.copy(path.with_name("without-2.onnx"), path),
    "missing": lambda path: path.unlink(),
    "no ONNX": replace_network,
    "code in the reference": lambda path: write_reference(path, np.array(Trap())),
    "reference of another": lambda path: write_reference(path, "its digest"),
    "no digest": lambda path: np.savez(path.with_suffix(".npz"), other=np.ones(3)),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_network_is_refused_in_one_line_and_no_code_runs(models, tmp_path, case):
    BAD_NETWORKS[case](models[0])
    with pytest.raises(DatasetError, match=r"without-1\.") as caught:
        Predictor(models)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "trapped").exists()


def test_predict_starts_without_tensorflow():
    code = "import sys; from braintumor.cli import main; main(sys.argv[1:]); "
    code += "assert not {'keras', 'tensorflow', 'matplotlib'} & sys.modules.keys()"
    command = [sys.executable, "-c", code, "predict", ROOT / "tests/data/phantom.png"]
    subprocess.run(command, check=True, capture_output=True)
