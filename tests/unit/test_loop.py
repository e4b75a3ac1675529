import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from braintumor.data.preprocessing import to_network_input
from braintumor.training import loop
from braintumor.training.batches import format_targets, training_batches
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


def train(directory):
    """Train a network; returns outputs and history."""
    model = build_model()

    def batches(first_epoch):
        return training_batches(IMAGES, TARGETS, 8, 0, {}, first_epoch)

    fit(model, directory, batches, 3, (X, Y), EPOCHS, plateau=PLATEAU)
    outputs = model.predict(X, verbose=0)
    return outputs, pd.read_csv(directory / "history.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"))


def test_history_has_one_row_per_epoch(undisturbed):
    history = undisturbed[1]
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss", "val_loss", "classify_loss"} <= set(history.columns)
    assert history["loss"].nunique() == 4
    rates = history["learning_rate"].tolist()  # falls on a plateau
    assert rates == pytest.approx([1e-3, 1e-3, 3e-4, 2e-4])


@pytest.mark.parametrize("name", ["history.csv", "epoch-3.weights.h5"])
def test_stopped_training_goes_on(undisturbed, tmp_path, monkeypatch, name):
    def stop(path):
        """Stop after the weights of epoch 2, or before those of epoch 3."""
        if path.name == name and (tmp_path / "epoch-2.weights.h5").exists():
            raise KeyboardInterrupt
        return atomic_write(path)

    atomic_write = loop.atomic_write
    monkeypatch.setattr(loop, "atomic_write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    n_kept = len(pd.read_csv(tmp_path / "history.csv"))
    assert n_kept == (1 if name == "history.csv" else 2)
    outputs, history = train(tmp_path)
    for task in TARGETS:
        assert outputs[task].tobytes() == undisturbed[0][task].tobytes()
    assert history.equals(undisturbed[1])


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
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
    assert best < 3
    scores = model.evaluate(X, wrong, batch_size=64, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(history["val_loss"][best], rel=1e-5)


def test_infinite_loss_is_an_error(tmp_path):
    model = keras.Sequential([layers.Flatten(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e30), "mean_squared_error")

    def batches(first_epoch):
        return training_batches(IMAGES, TARGETS["classify"], 8, 0)

    with pytest.raises(FloatingPointError, match="loss"):
        fit(model, tmp_path, batches, 3, (X, Y["classify"]), 3)
