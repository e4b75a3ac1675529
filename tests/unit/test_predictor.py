"""Prediction by the published networks, and loading networks without their code."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import ops
from samples import FIGSHARE

from braintumor.core.errors import DatasetError
from braintumor.core.files import sha256
from braintumor.data.phantom import write_phantom
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference import predictor as module
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import (
    Predictor,
    build_prediction_model,
    find_held_out_fold,
    load_network,
    load_networks,
    predict_files,
)
from braintumor.models.joint import ZOOMS, build_joint, build_tta_model

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "set"
    return write_phantom(folder, n_patients=15, size=256, progress=False, n_jobs=1)


@pytest.fixture(scope="module")
def image(slices):
    return read_image(slices / "1.mat")


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
        (prediction,) = predictor.predict([case])
        assert prediction.model_folds == (1, 2, 3, 4, 5)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.mask.shape == prediction.gradcam.shape == case.pixels.shape
        assert prediction.mask.any()
        assert prediction.gradcam.min() >= 0
        assert prediction.gradcam.max() == pytest.approx(1)
        assert 0 <= prediction.mask_agreement <= 1


def test_predictions_do_not_depend_on_the_batch(predictor, slices):
    images = [read_image(slices / f"{n}.mat") for n in (1, 2, 3)]
    for image, batched in zip(images, predictor.predict(images), strict=True):
        (single,) = predictor.predict([image])
        assert batched.probabilities == pytest.approx(single.probabilities, abs=1e-4)
        assert compute_dice(batched.mask, single.mask) > 0.99


def test_image_without_a_head_is_out_of_distribution(predictor):
    noise = np.random.default_rng(0).integers(0, 255, (256, 256))
    (prediction,) = predictor.predict([InputImage("noise", noise)])
    assert prediction.warnings
    assert prediction.ood_scores["reconstruction"] > 1


def test_patient_of_the_training_data_gives_a_warning(predictor, image):
    table, _ = load_predictions(module.PUBLISHED, "classify")
    pid, fold = table["pid"].iloc[0], table["fold"].iloc[0]
    known = InputImage("known", image.pixels, patient=pid)
    assert predictor.predict([known])[0].n_models_trained_on_patient == 4
    assert find_held_out_fold(pid) == fold
    assert predictor.predict([image])[0].n_models_trained_on_patient == 0


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
    """Numerical gradients of the logit with respect to the coarsest feature maps."""
    x = np.random.default_rng(1).random((1, 32, 32, 1), "float32")
    coarse = joint.get_layer("coarse_features").output
    maps = np.array(keras.Model(joint.input, coarse)(x))[0].astype(float)
    kernel = joint.get_layer("classify").get_weights()[0][:, 0]

    def logit(maps):
        pooled = np.concatenate([maps.max(axis=(0, 1)), maps.mean(axis=(0, 1))])
        return pooled @ kernel

    gradients = np.zeros_like(maps)
    for place in np.ndindex(maps.shape):
        step = np.zeros_like(maps)
        step[place] = 1e-6
        gradients[place] = (logit(maps + step) - logit(maps)) / 1e-6
    expected = np.maximum(maps @ gradients.mean(axis=(0, 1)), 0)
    assert expected.any()
    n_pixels = maps[..., 0].size
    outputs = module._add_outputs(joint)(x)
    gradcam = np.array(outputs["gradcam"])[0, ..., 0]
    assert gradcam == pytest.approx(expected * n_pixels, rel=1e-3, abs=1e-4)


def test_files_keep_their_order_and_errors_take_their_place(slices, tmp_path):
    (tmp_path / "letter.png").write_text("Dear doctor")
    paths = [slices / "1.mat", tmp_path / "letter.png", slices / "2.mat"]
    results = list(predict_files([*paths, paths[0]], batch_size=2))
    assert [path for path, _ in results] == paths
    assert isinstance(results[1][1], DatasetError)
    assert [results[n][1].image.name for n in (0, 2)] == ["1.mat", "2.mat"]


def test_held_out_prediction_needs_a_patient_of_the_dataset(slices):
    ((_, error),) = predict_files([slices / "1.mat"], held_out=True)
    assert isinstance(error, DatasetError)
    assert "1.mat" in str(error)


@pytest.mark.real
@pytest.mark.skipif(not FIGSHARE.exists(), reason="needs the figshare slices")
def test_held_out_predictions_are_the_published_ones(tmp_path):
    files = [1, 900, 1500, 2000, 3000]
    names = ",".join(map(str, files))
    script = [sys.executable, FIGSHARE / "make_mats.py", tmp_path / "set"]
    subprocess.run([*script, "--files", names], check=True, capture_output=True)
    classified, segmented = (
        load_predictions(module.PUBLISHED, task)[0].set_index("file")
        for task in ("classify", "segment")
    )
    paths = [tmp_path / f"set/{n}.mat" for n in files]
    for path, prediction in predict_files(paths, held_out=True):
        row = classified.loc[int(path.stem)]
        expected = row[PROBABILITY_COLUMNS].to_numpy(float)
        assert prediction.model_folds == (row["fold"],)
        assert prediction.probabilities == pytest.approx(expected, abs=2e-4)
        dice = compute_dice(prediction.image.mask, prediction.mask)
        assert dice == pytest.approx(segmented.loc[int(path.stem), "dice"], abs=2e-3)


# Networks from files that may be damaged or hostile.


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def write_parts(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def read_parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_lambda(path, good):
    layers = [keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2)]
    keras.Sequential(layers).save(path)


def replace_layer(**config):
    """Return a function that writes the good network with another layer."""

    def write(path, good):
        parts = read_parts(good)
        network = json.loads(parts["config.json"])
        layer = {"registered_name": None, "config": {}} | config
        network["config"]["layers"][1] = layer
        write_parts(path, parts | {"config.json": json.dumps(network)})

    return write


def write_linked_weights(path, good):
    parts = read_parts(good)
    weights, other = path.with_suffix(".h5"), path.with_name("other.h5")
    weights.write_bytes(parts["model.weights.h5"])
    with h5py.File(other, "w") as file:
        file["kernel"] = np.ones((4, 1), np.float32)
    with h5py.File(weights, "r+") as file:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink(other.name, "/kernel")
    write_parts(path, parts | {"model.weights.h5": weights.read_bytes()})


def write_pickled_weights(path, good):
    write_parts(path, read_parts(good) | {"model.weights.h5": pickle.dumps(Trap())})


BAD_NETWORKS = {
    "lambda": write_lambda,
    "pickle": lambda path, good: path.write_bytes(pickle.dumps(Trap())),
    "pickled-weights": write_pickled_weights,
    "linked-weights": write_linked_weights,
    "system-call": replace_layer(module="os", class_name="mkdir", config="trapped"),
    "process": replace_layer(
        module="subprocess", class_name="Popen", config={"args": ["mkdir", "trapped"]}
    ),
    "unsafe-mode": replace_layer(
        module="keras.config", class_name="enable_unsafe_deserialization"
    ),
    "no-zip": lambda path, good: path.write_text("<html>not found</html>"),
    "truncated": lambda path, good: path.write_bytes(good.read_bytes()[:-200]),
    "missing": lambda path, good: None,
}


@pytest.fixture
def good_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.Input((4,)), keras.layers.Dense(1, name="dense")]
    keras.Sequential(layers).save(tmp_path / "good.keras")
    return tmp_path / "good.keras"


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_network_is_refused_and_no_code_runs(tmp_path, good_network, case):
    assert load_network(good_network).count_params() == 5
    path = tmp_path / "model.keras"
    BAD_NETWORKS[case](path, good_network)
    with pytest.raises(DatasetError, match="model.keras") as caught:
        load_network(path)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "trapped").exists()


@pytest.fixture
def models(tmp_path, monkeypatch, good_network):
    """The folder models/ of another project, with a network of fold 1."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    good_network.rename(tmp_path / "models/fold-1.keras")
    return tmp_path / "models"


@pytest.mark.parametrize(
    "arrays",
    [
        {"network": np.array(Trap())},
        {"other": np.ones(3)},
        {"network": "digest of another network"},
    ],
    ids=["pickle", "other-arrays", "other-network"],
)
def test_bad_ood_reference_is_refused_and_no_code_runs(models, arrays):
    np.savez(models / "fold-1.npz", **arrays)
    with pytest.raises(DatasetError, match=r"fold-1\.npz"):
        Predictor([1])
    assert not (models.parent / "trapped").exists()


def test_missing_network_is_named(models):
    with pytest.raises(DatasetError, match=r"fold-2"):
        Predictor([2])
    digest = sha256(models / "fold-1.keras")
    np.savez(models / "fold-1.npz", network=digest)
    (models / "fold-1.keras").unlink()
    with pytest.raises(DatasetError, match=r"fold-1\.keras"):
        Predictor([1])


def test_networks_of_a_run_are_loaded_by_fold(tmp_path, monkeypatch, joint):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for fold in (1, 2):
        directory = tmp_path / f"run/segment/fold-{fold}"
        directory.mkdir(parents=True)
        joint.save(directory / "model.keras")
    assert len(load_networks("run", "segment", [1, 2])) == 2
    with pytest.raises(DatasetError, match="fold-3"):
        load_networks("run", "segment", [1, 3])
