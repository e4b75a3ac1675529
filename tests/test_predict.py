"""Networks loaded without running code of their file; and from a map of probabilities to a mask."""

import json
import os
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest

from braintumor.core.errors import DatasetError
from braintumor.evaluation import masks as predict
from braintumor.evaluation import metrics
from braintumor.evaluation.masks import dice_mask, load_models, load_network
from braintumor.inference import predictor as inference


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def lambda_layer(folder, good):
    doubled = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    doubled.save(folder / "model.keras")


def layer(**config):
    """Writes the good network with another layer in place of its own."""

    def write(folder, good):
        with zipfile.ZipFile(good) as archive:
            whole = json.loads(archive.read("config.json"))
            whole["config"]["layers"][1] = {"registered_name": None, "config": {}} | config
            parts = {name: archive.read(name) for name in archive.namelist()}
        packed(folder, parts | {"config.json": json.dumps(whole)})

    return write


def packed(folder, parts):
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def weights(change):
    """Writes the good network with its file of weights changed."""

    def write(folder, good):
        with zipfile.ZipFile(good) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        (folder / "weights.h5").write_bytes(parts["model.weights.h5"])
        change(folder / "weights.h5")
        packed(folder, parts | {"model.weights.h5": (folder / "weights.h5").read_bytes()})

    return write


def in_another_file(path):
    with h5py.File(path, "r+") as file, h5py.File(path.with_name("other.h5"), "w") as other:
        other["kernel"] = np.ones((4, 1), np.float32)
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = h5py.ExternalLink("other.h5", "/kernel")


HOSTILE = {
    "lambda": lambda_layer,
    "pickled": lambda folder, good: (folder / "model.keras").write_bytes(pickle.dumps(Trap())),
    "pickled-weights": weights(lambda path: path.write_bytes(pickle.dumps(Trap()))),
    "weights-in-another-file": weights(in_another_file),
    "system-call": layer(module="os", class_name="mkdir", config="trapped"),
    "process": layer(module="subprocess", class_name="Popen", config={"args": ["mkdir", "trapped"]}),
    "unsafe-mode": layer(module="keras.config", class_name="enable_unsafe_deserialization"),
    "download": layer(
        module="keras.utils", class_name="get_file", config={"fname": "x", "origin": "file:///etc/hosts"}
    ),
    "no-zip": lambda folder, good: (folder / "model.keras").write_text("<html>not found</html>"),
    "empty": lambda folder, good: (folder / "model.keras").touch(),
    "cut-short": lambda folder, good: (folder / "model.keras").write_bytes(good.read_bytes()[:-200]),
    "missing": lambda folder, good: None,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Of a fold of the run RUN/classify, without its network; also the working folder."""
    monkeypatch.setattr(predict, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/classify/fold-1").mkdir(parents=True)
    return tmp_path / "run/classify/fold-1"


@pytest.mark.parametrize("case", HOSTILE)
def test_network_that_is_damaged_or_would_run_code_is_refused_and_nothing_runs(tmp_path, folder, case):
    good = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, name="dense")])
    good.save(tmp_path / "good.keras")
    assert np.array_equal(load_network(tmp_path / "good.keras").get_weights()[0], good.get_weights()[0])
    HOSTILE[case](folder, tmp_path / "good.keras")
    with pytest.raises(DatasetError) as caught:
        load_models("run", "classify", [1])
    message = str(caught.value)
    assert message.startswith(f"{folder / 'model.keras'}: cannot be loaded as a network, and code that it may hold")
    assert "get the file again" in message and message.isprintable() and len(message) < len(str(folder)) + 400
    assert not (tmp_path / "trapped").exists()


def test_published_networks_beside_which_something_pickled_lies_are_refused(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(inference, "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    lambda_layer(tmp_path / "models", None)
    (tmp_path / "models/model.keras").rename(tmp_path / "models/fold-1.keras")
    network = inference.sha256(tmp_path / "models/fold-1.keras")
    for content in ({"network": np.array(Trap())}, {"other": np.ones(3)}, {"network": "that of another"}):
        np.savez(tmp_path / "models/fold-1.npz", **content)
        with pytest.raises(DatasetError, match=r"fold-1\.npz: (cannot be read as arrays|belongs to another)"):
            inference.Networks([1])
    (tmp_path / "models/fold-1.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError, match=r"fold-1\.npz: cannot be read as arrays of numbers"):
        inference.Networks([1])
    np.savez(tmp_path / "models/fold-1.npz", network=network)
    with pytest.raises(DatasetError, match=r"fold-1\.keras: cannot be loaded as a network, and code"):
        inference.Networks([1])
    assert not (tmp_path / "trapped").exists()


def blob(side, centre, radius):
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-((rows - centre) ** 2 + (columns - centre) ** 2) / radius**2).astype(np.float32)


def test_faint_tumor_is_drawn_where_one_half_would_draw_nothing():
    faint = 0.3 * (blob(64, 30, 8) > 0.4)
    assert not (faint >= 0.5).any() and np.array_equal(dice_mask(faint, 64), faint > 0)


def test_clear_tumor_is_drawn_as_it_is_at_any_size():
    clear = (blob(64, 30, 8) > 0.4).astype(np.float32)
    assert np.array_equal(dice_mask(clear, 64), clear > 0)
    large = dice_mask(clear, 128)
    assert large.shape == (128, 128) and large.sum() == pytest.approx(4 * clear.sum(), rel=0.1)


def test_no_cut_promises_more():
    probability = 0.8 * blob(64, 25, 12) + 0.3 * blob(64, 50, 6)
    drawn = dice_mask(probability, 64)

    def promised(mask):
        return 2 * probability[mask].sum() / (mask.sum() + probability.sum())

    assert promised(drawn) == pytest.approx(max(promised(probability >= cut) for cut in np.unique(probability)))


def test_on_average_over_masks_drawn_from_the_probabilities_it_beats_one_half():
    random, probability = np.random.default_rng(0), 0.7 * blob(64, 30, 14)
    truths = [random.random(probability.shape) < probability for _ in range(50)]

    def mean_dice(mask):
        return np.mean([metrics.dice(true, mask) for true in truths])

    assert mean_dice(dice_mask(probability, 64)) > mean_dice(probability >= 0.5) + 0.02


def test_nothing_is_drawn_of_nothing():
    assert not dice_mask(np.zeros((32, 32)), 64).any()
