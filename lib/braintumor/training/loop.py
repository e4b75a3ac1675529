"""Training: reproducible, one line per epoch, resumable after any stop."""

import math
import shutil
import time

import keras
import pandas as pd

from braintumor.core.files import atomic_write


def configure_backend(seed, threads=0):
    """Seed all random states and make operations deterministic, before any network.

    Same seed, threads (of the backend; 0: one per core) and processor: same bytes.
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

    Each epoch is saved. After a stop, the same call goes on with the interrupted epoch
    and ends with the same weights.

    Parameters
    ----------
    directory : Path of the checkpoints and history.csv
    batches : callable(epoch), returns an endless generator of (x, y)
    steps : int, batches per epoch
    monitor : str, lowest in the best epoch, or highest if it is an accuracy
    plateau : dict, settings of Keras' ReduceLROnPlateau
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = EpochCheckpoint(directory, monitor)
    n_done, callbacks = len(checkpoint.history), []
    if plateau:
        callbacks.append(ResumableReduceLROnPlateau(checkpoint.history, **plateau))
    if tensorboard:
        log_dir = directory / "tensorboard"
        callbacks.append(keras.callbacks.TensorBoard(log_dir, write_graph=False))
    if 0 < n_done < epochs:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(checkpoint.path(n_done))
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
    """Save and print each epoch; weights before history, so a stop costs one epoch."""

    def __init__(self, directory, monitor):
        super().__init__()
        self.directory, self.monitor = directory, monitor
        self.sign = -1 if monitor.endswith("accuracy") else 1
        path = directory / "history.csv"
        self.history = pd.read_csv(path).to_dict("records") if path.exists() else []

    def path(self, epoch):
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
        seconds, done = time.perf_counter() - self.started, epoch + 1
        row = {"epoch": done, **logs, "seconds": round(seconds, 2)}
        for name in ("loss", self.monitor):
            if not math.isfinite(row[name]):
                problem = f"got {row[name]} in epoch {done}, expected finite loss"
                raise FloatingPointError(f"{name}: {problem}. Lower learning_rate.")
        with atomic_write(self.path(done)) as path:
            self.model.save_weights(path)
        score = self.sign * row[self.monitor]
        if all(score < self.sign * past[self.monitor] for past in self.history):
            with atomic_write(self.directory / "best.weights.h5") as path:
                shutil.copyfile(self.path(done), path)
        self.history.append(row)
        with atomic_write(self.directory / "history.csv") as path:
            pd.DataFrame(self.history).to_csv(path, index=False)
        self.path(epoch).unlink(missing_ok=True)
        values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        n_epochs = self.params["epochs"]
        left = f"{seconds * (n_epochs - done) / 60:.1f} min left"
        print(f"epoch {done:3}/{n_epochs}  {values}  {left}", flush=True)


class ResumableReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """Replay past epochs after a stop: Keras does not save the wait counter."""

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
