import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from braintumor.core.errors import ParameterError
from braintumor.data.preprocessing import to_network_input
from braintumor.training import loop
from braintumor.training.batches import (
    format_targets,
    steps_per_epoch,
    training_batches,
)
from braintumor.training.loop import configure_backend, fit

pytestmark = pytest.mark.usefixtures("deterministic")

EPOCHS = 4
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (20, 16, 16), np.uint8)
TARGETS = {"classify": np.arange(20) % 3, "segment": (IMAGES > 200).astype("uint8")}
X, Y = to_network_input(IMAGES), format_targets(TARGETS)
# no epoch is an improvement, so the learning rate falls in every second one
PLATEAU = {"monitor": "val_loss", "min_delta": 100, "factor": 0.3, "patience": 1}
PLATEAU |= {"cooldown": 1, "min_lr": 2e-4}


def build_model(optimizer="adam"):
    """A network with all that has a state: optimizer, normalization, dropout."""
    configure_backend(seed=0, threads=2)
    image = layers.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, padding="same")(image)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dropout(0.3)(x)))
    pooled = layers.GlobalMaxPooling2D()(x)
    outputs = {"classify": layers.Dense(3, activation="softmax")(pooled)}
    outputs["segment"] = layers.Conv2D(1, 1, activation="sigmoid")(x)
    model = keras.Model(image, outputs)
    losses = ["sparse_categorical_crossentropy", "binary_crossentropy"]
    model.compile(optimizer, dict(zip(outputs, losses, strict=True)))
    return model


def train(directory, epochs=EPOCHS, kill_after=None):
    """Train, perhaps until the process is killed; returns outputs and history."""
    model, history = build_model(), directory / "history.csv"

    def batches(first_epoch):
        for batch in training_batches(IMAGES, TARGETS, 8, 0, {}, first_epoch):
            if (
                kill_after
                and history.exists()
                and len(pd.read_csv(history)) == kill_after
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    steps = steps_per_epoch(len(IMAGES), 8)
    fit(model, directory, batches, steps, (X, Y), epochs, plateau=PLATEAU)
    outputs = model.predict(X, verbose=0)
    return outputs, pd.read_csv(history).drop(columns="seconds")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    configure_backend(seed=0, threads=2)
    return train(directory)


def assert_is_equal(training, other):
    for task in TARGETS:
        assert training[0][task].tobytes() == other[0][task].tobytes()
    assert training[1].equals(other[1])


def test_history_has_one_row_per_epoch(undisturbed):
    history = undisturbed[1]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss", "val_loss", "classify_loss"} <= set(history.columns)
    assert history["loss"].nunique() == 4


def test_learning_rate_falls_on_a_plateau(undisturbed):
    rates = undisturbed[1]["learning_rate"].tolist()
    assert rates == pytest.approx([1e-3, 1e-3, 3e-4, 2e-4])


def test_same_seed_gives_the_same_bytes(undisturbed, tmp_path):
    assert_is_equal(train(tmp_path), undisturbed)


def test_killed_training_goes_on_as_if_undisturbed(undisturbed, tmp_path):
    here = Path(__file__)
    code = f"from {here.stem} import *; train(Path({str(tmp_path)!r}), kill_after=2)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=here.parent, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(pd.read_csv(tmp_path / "history.csv")) == 2
    assert_is_equal(train(tmp_path), undisturbed)


def test_stop_between_weights_and_history_costs_one_epoch(
    undisturbed, tmp_path, monkeypatch
):
    def stop(path):
        if path.name == "history.csv" and path.exists():
            raise KeyboardInterrupt
        return atomic_write(path)

    atomic_write = loop.atomic_write
    monkeypatch.setattr(loop, "atomic_write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    assert_is_equal(train(tmp_path), undisturbed)


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "epoch"])
def test_weights_are_those_of_the_best_epoch(tmp_path, monitor):
    model = keras.Sequential([layers.Flatten(), layers.Dense(3, activation="softmax")])
    optimizer = keras.optimizers.Adam(0.03)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels, wrong = Y["classify"], (Y["classify"] + 1) % 3  # learning makes it worse

    def batches(first_epoch):
        return training_batches(IMAGES, labels, 8, 0, None, first_epoch)

    fit(model, tmp_path, batches, 3, (X, wrong), 4, monitor)
    history = pd.read_csv(tmp_path / "history.csv")
    best = history[monitor].agg("idxmin" if monitor == "val_loss" else "idxmax")
    assert (best == 3) == (monitor == "epoch")
    scores = model.evaluate(X, wrong, batch_size=64, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(history["val_loss"][best], rel=1e-5)


def test_no_epochs_are_an_error(tmp_path):
    with pytest.raises(ParameterError, match="epochs"):
        train(tmp_path, 0)


def test_infinite_loss_is_an_error(tmp_path):
    model = keras.Sequential([layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mean_squared_error")

    def batches(first_epoch):
        return training_batches(IMAGES, TARGETS["classify"], 8, 0)

    with pytest.raises(FloatingPointError, match="loss"):
        fit(model, tmp_path, batches, 3, (X, Y["classify"]), 3)
