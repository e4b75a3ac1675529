"""Training one fold: seeded, one line an epoch, stopped and continued at will, kept with its record."""

import json
import math
import shutil
import time
from datetime import UTC, datetime

import keras
import pandas as pd
import tensorflow as tf

from braintumor.core import processes
from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT, atomic, room_for, write_json
from braintumor.training import provenance

FIRST_TIMED, LAST_TIMED = 4, 24  # batches of the first epoch between which a step is timed
DATA_RECORD = ("kind", "digest", "size", "percentiles", "slices", "folds")  # what run.json says of the data


def start(seed, threads=0):
    """Seed Python, NumPy and TensorFlow, and ask for deterministic kernels; `threads` 0 means one a core.

    Same seed, threads and processor: same bytes. Call it before any network is built.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fit(model, folder, batches, steps, validation, epochs, monitor="val_loss", plateau=None, tensorboard=False):
    """Train a compiled model to `epochs`, then give it the weights of its best epoch.

    `batches(first_epoch)` returns the training batches from that epoch on, `steps` an epoch; `validation` is a
    dataset. Best is the least `monitor`, or the greatest if that is an accuracy. `plateau` is a dict for Keras'
    ReduceLROnPlateau on a loss, or None; `tensorboard` keeps a log for TensorBoard. Each epoch is kept in `folder`:
    calling this again after a stop goes on with the epoch that was cut, and ends with the same weights.

    Raises ParameterError for no epochs, FloatingPointError if the loss is not finite.
    """
    if epochs < 1:
        raise ParameterError(f"epochs is {epochs}; expected 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(folder, epochs, steps, monitor)
    done = len(keeper.history)
    callbacks = [_Plateau(keeper.history, model, **plateau)] if plateau else []
    callbacks += [keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)] if tensorboard else []
    if done:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(keeper.checkpoint(done))
        print(f"continuing after epoch {done}")
    if done < epochs:
        model.fit(
            batches(done),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=epochs,
            validation_data=validation,
            callbacks=[*callbacks, keeper],
            shuffle=False,  # the batches come shuffled
            verbose=0,
        )
    model.load_weights(folder / "best.weights.h5")


class FoldRun:
    """One fold of one task: its folder under results/, and whether what is there is what was asked for.

    The folder is `parameters["results"]`/fold-`parameters["fold"]` (or /`parameters["part"]`, for what has no folds).
    It holds predictions.csv, perhaps validation.csv, history.csv, model.keras and run.json. While training goes on they
    grow in a hidden folder beside it, `work`, named by the digest of parameters, data and code; at the end it takes the
    folder's place. So a stopped run continues, and an older result stays until the new one is whole. From the first
    use of `work` until then the fold is this process's: in another, `work` raises BusyError.
    """

    _taken = {}  # folders and their locks, of this process: a cell that is run again does not stand in its own way

    def __init__(self, notebook, parameters, data):
        self.notebook, self.parameters, self.data = notebook, parameters, data
        self.digest = provenance.run_digest(notebook, parameters, data)
        name = parameters["part"] if "part" in parameters else f"fold-{parameters['fold']}"
        self.folder = ROOT / parameters["results"] / name
        self._work = self.folder.with_name(f".{self.folder.name}-{self.digest[:12]}")
        if (self._work / "run.json").exists() and (self.work / "run.json").exists():
            self._publish()  # it was stopped between the last file and the renaming

    @property
    def work(self):
        """The folder in which training goes on, taken for this process."""
        if self.folder not in self._taken:
            lock = self.folder.with_name(f".{self.folder.name}.lock")
            with room_for(lock):
                self._taken[self.folder] = processes.claim(lock, f"{self.folder} is being trained")
        return self._work

    @property
    def record(self):
        """The folder's run.json as a dict; {} if there is none."""
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def done(self):
        """Whether the folder holds the result of exactly these parameters, data and code."""
        return self.record.get("digest") == self.digest

    def finish(self, model, predictions, validation=None):
        """Keep the model, its predictions for the test fold (a table) and the record; then show the folder.

        `validation` is such a table for the validation part, or None.
        """
        tables = {"predictions": predictions} | ({} if validation is None else {"validation": validation})
        for name, table in tables.items():
            with atomic(self.work / f"{name}.csv") as path:
                table.to_csv(path, index=False, float_format="%.6f")
        with atomic(self.work / "model.keras") as path:
            model.save(path)
        history = pd.read_csv(self.work / "history.csv")
        record = {
            "digest": self.digest,
            "notebook": self.notebook,
            "parameters": self.parameters | {"data": self.data.about["kind"]},
            "data": {name: self.data.about[name] for name in DATA_RECORD},
            "epochs": len(history),
            "seconds": round(history["seconds"].sum(), 1),
            "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        write_json(self.work / "run.json", record | provenance.machine(self.parameters["threads"]))
        self._publish()

    def _publish(self):
        # not before run.json is there: a stop would lose the run; with what kill -9 left half-written
        for checkpoint in {*self.work.glob("*.weights.h5"), *self.work.glob(".*")}:
            checkpoint.unlink()
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.work.rename(self.folder)
        digits = "[0-9a-f]" * 12  # of a digest, so that unet-bce does not find .unet-bce-dice-...
        for other in self.folder.parent.glob(f".{self.folder.name}-{digits}"):
            shutil.rmtree(other)  # attempts with other parameters, given up
        processes.release(self._taken.pop(self.folder))

    def history(self):
        """history.csv: one row an epoch."""
        return pd.read_csv(self.folder / "history.csv")

    def predictions(self):
        """predictions.csv: one row a slice of the test fold."""
        return read_predictions(self.folder)


def read_predictions(folder):
    """A fold's predictions.csv as a table."""
    return read_table(folder / "predictions.csv")


def read_table(path):
    """A table of slices (CSV); pid stays text."""
    return pd.read_csv(path, dtype={"pid": str})


class _Plateau(keras.callbacks.ReduceLROnPlateau):
    """Lowers the learning rate as if the run had not been stopped: Keras forgets how long it has waited."""

    def __init__(self, history, model, **settings):
        super().__init__(mode="min", **settings)  # "auto" asks the metrics, which are not there before the first step
        self.past, self.start = list(history), float(model.optimizer.learning_rate)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.past:
            self.model.optimizer.learning_rate = self.start
        for row in self.past:
            self.on_epoch_end(row["epoch"] - 1, dict(row))


class _Keeper(keras.callbacks.Callback):
    """Keeps every epoch's state so that a stop costs one epoch at most, and prints a line an epoch.

    The order makes a stop at any moment harmless: weights first, then the history that says they are there.
    """

    def __init__(self, folder, epochs, steps, monitor):
        super().__init__()
        self.folder, self.epochs, self.steps, self.monitor = folder, epochs, steps, monitor
        self.sign = -1 if monitor.endswith("accuracy") else 1
        path = folder / "history.csv"
        self.history = pd.read_csv(path).to_dict("records") if path.exists() else []
        self.estimated = False

    def checkpoint(self, epoch):
        return self.folder / f"epoch-{epoch}.weights.h5"

    def on_epoch_begin(self, epoch, logs=None):
        # Keras does not save dropout's random state with the weights, so each epoch starts from one of its own
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":
                variable.assign([variable[0], epoch << 16])
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if self.estimated or batch not in (FIRST_TIMED, LAST_TIMED):
            return
        if batch == FIRST_TIMED:  # the ones before it include building the graph
            self.timed = time.perf_counter()
        else:
            step = (time.perf_counter() - self.timed) / (LAST_TIMED - FIRST_TIMED)
            epochs = self.epochs - len(self.history)
            left = _duration(step * self.steps * epochs)
            print(f"{self.steps} steps an epoch, {step:.2f} s each: about {left} for {epochs} epochs", flush=True)
            self.estimated = True

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.began
        for name in ("loss", self.monitor):
            if not math.isfinite(logs[name]):
                raise FloatingPointError(f"{name} is {logs[name]} in epoch {epoch + 1}: lower learning_rate")
        better = all(self.sign * logs[self.monitor] < self.sign * row[self.monitor] for row in self.history)
        if better:
            self._save(self.folder / "best.weights.h5")
        self._save(self.checkpoint(epoch + 1))
        self.history.append({"epoch": epoch + 1} | logs | {"seconds": round(seconds, 2)})
        with atomic(self.folder / "history.csv") as path:
            pd.DataFrame(self.history).to_csv(path, index=False)
        self.checkpoint(epoch).unlink(missing_ok=True)
        scores = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
        left = _duration(seconds * (self.epochs - epoch - 1))
        print(f"epoch {epoch + 1:3}/{self.epochs}  {scores}  {seconds:.1f} s, {left} left{' *' if better else ''}")

    def _save(self, path):
        with atomic(path) as temporary:
            self.model.save_weights(temporary)


def _duration(seconds):
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
