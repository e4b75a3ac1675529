"""Training: reproducible, one line per epoch, resumable after any stop."""

import math
import time

import keras
import pandas as pd

from braintumor.core.errors import ParameterError
from braintumor.core.files import atomic_write


def configure_backend(seed, threads=0):
    """Seed Python, NumPy and the backend, and make its operations deterministic.

    Same seed, threads and processor: same bytes. Call it before building a network.
    `threads` is for TensorFlow and PyTorch; 0 is one per core.
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.experimental.enable_op_determinism()
    elif backend == "torch" and threads:
        import torch

        torch.set_num_threads(threads)
    keras.utils.set_random_seed(seed)


def fit(
    model,
    directory,
    batches,
    steps,
    validation_data,
    epochs,
    monitor="val_loss",
    plateau=None,
    tensorboard=False,
    validation_batch_size=64,
):
    """Train a compiled model and give it the weights of its best epoch.

    Each epoch is saved in `directory`. After a stop, the same call goes on with the
    interrupted epoch and ends with the same weights.

    Parameters
    ----------
    model : keras.Model
    directory : Path
        Folder for checkpoints and history.csv.
    batches : callable
        batches(first_epoch) returns an endless generator of (x, y).
    steps, epochs : int
        Batches per epoch, and epochs in all.
    validation_data : (x, y)
    monitor : str
        The best epoch has the lowest value, or the highest of an accuracy.
    plateau : dict, optional
        Settings of Keras' ReduceLROnPlateau.
    tensorboard : bool
        Write a log for TensorBoard; needs TensorFlow.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    if epochs < 1:
        raise ParameterError(f"epochs: got {epochs}, expected 1 or more.")
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = EpochCheckpoint(directory, epochs, monitor)
    n_done = len(checkpoint.history)
    callbacks = []
    if plateau:
        callbacks.append(ResumableReduceLROnPlateau(checkpoint.history, **plateau))
    if tensorboard:
        log_dir = directory / "tensorboard"
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
    if 0 < n_done < epochs:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(checkpoint.path(n_done))
        print(f"continuing after epoch {n_done}")
    if n_done < epochs:
        model.fit(
            batches(n_done),
            steps_per_epoch=steps,
            initial_epoch=n_done,
            epochs=epochs,
            validation_data=validation_data,
            validation_batch_size=validation_batch_size,
            callbacks=[*callbacks, checkpoint],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )
    checkpoint.path(epochs).unlink(missing_ok=True)
    model.load_weights(directory / "best.weights.h5")


class EpochCheckpoint(keras.callbacks.Callback):
    """Save the state of each epoch and print one line.

    Weights are saved before the history that refers to them, so a stop at any moment
    costs one epoch at most.
    """

    def __init__(self, directory, epochs, monitor):
        super().__init__()
        self.directory, self.epochs, self.monitor = directory, epochs, monitor
        self.sign = -1 if monitor.endswith("accuracy") else 1
        path = directory / "history.csv"
        self.history = pd.read_csv(path).to_dict("records") if path.exists() else []

    def path(self, epoch):
        """Weights of an epoch, counted from 1."""
        return self.directory / f"epoch-{epoch}.weights.h5"

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        if batch > 0:
            return
        # Keras does not save the random state of dropout: derive it from the epoch
        epoch = len(self.history)
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":
                seed = int(variable[0])
                variable.assign([seed, epoch << 16])
                if keras.config.backend() == "torch":  # it uses the global state
                    keras.utils.set_random_seed(seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.started
        for name in ("loss", self.monitor):
            if not math.isfinite(logs[name]):
                raise FloatingPointError(
                    f"{name}: got {logs[name]} in epoch {epoch + 1}, expected a finite "
                    "number. Lower learning_rate."
                )
        score = self.sign * logs[self.monitor]
        is_best = all(score < self.sign * row[self.monitor] for row in self.history)
        if is_best:
            self._save_weights(self.directory / "best.weights.h5")
        self._save_weights(self.path(epoch + 1))
        row = {"epoch": epoch + 1, **logs, "seconds": round(seconds, 2)}
        self.history.append(row)
        with atomic_write(self.directory / "history.csv") as path:
            pd.DataFrame(self.history).to_csv(path, index=False)
        self.path(epoch).unlink(missing_ok=True)
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        minutes = seconds * (self.epochs - epoch - 1) / 60
        print(
            f"epoch {epoch + 1:3}/{self.epochs}  {values}  {seconds:.1f} s, "
            f"{minutes:.1f} min left{' *' if is_best else ''}",
            flush=True,
        )

    def _save_weights(self, path):
        with atomic_write(path) as temporary:
            self.model.save_weights(temporary)


class ResumableReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """Reduce the learning rate on a plateau, also across a stop.

    Keras' callback does not save its wait counter: past epochs are replayed.
    """

    def __init__(self, history, **settings):
        # "auto" needs the metrics, which are not there before the first step
        super().__init__(mode="min", **settings)
        self.past = list(history)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.past:
            self.model.optimizer.learning_rate = self.past[0]["learning_rate"]
        for row in self.past:
            self.on_epoch_end(row["epoch"] - 1, dict(row))
