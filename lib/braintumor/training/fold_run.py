"""The result of one fold: where it is kept, and whether it is finished."""

import json
import shutil
from datetime import UTC, datetime

import pandas as pd

from braintumor.core.files import ROOT, atomic_directory, write_json
from braintumor.training.provenance import collect_environment

# parameters that do not change a result; of the data, the pixel digest counts
NEUTRAL_PARAMETERS = ("data", "results", "threads", "experiment_log", "description")
DATA_FIELDS = ("kind", "digest", "size", "percentiles", "slices", "folds")


class FoldRun:
    """One fold of one task: its tables, model and record.

    They are in `directory`: `results`/fold-K, or `results`/`part` for a run without
    folds. Until they are complete they are in `checkpoint_dir`, a hidden folder beside
    it. So a stopped run goes on, and an older result stays until the new one is whole.
    """

    def __init__(self, notebook, parameters, data_info):
        self.notebook, self.parameters, self.data_info = notebook, parameters, data_info
        part = parameters.get("part") or f"fold-{parameters['fold']}"
        self.directory = ROOT / parameters["results"] / part
        self.settings = _decisive_settings(parameters, data_info)

    @property
    def checkpoint_dir(self):
        """Folder of the unfinished run; one of other parameters or data is deleted."""
        directory = self.directory.with_name(f".{self.directory.name}")
        path = directory / "settings.json"
        if _read_json(path) != self.settings:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            write_json(path, self.settings)
        return directory

    @property
    def record(self):
        """Content of run.json, or {} if there is none."""
        return _read_json(self.directory / "run.json")

    @property
    def is_finished(self):
        """Whether `directory` holds the result of these parameters and data."""
        if record := self.record:
            finished = _decisive_settings(record["parameters"], record["data"])
            return finished == self.settings
        return False

    def save(self, model, predictions, validation=None):
        """Save model, tables (one row per slice) and record to `directory`.

        Weights and history stay in `checkpoint_dir`: a notebook that fails in a later
        cell can be run again without training.
        """
        checkpoint = self.checkpoint_dir
        with atomic_directory(self.directory) as directory:
            shutil.copy(checkpoint / "history.csv", directory)
            if (checkpoint / "tensorboard").exists():
                shutil.copytree(checkpoint / "tensorboard", directory / "tensorboard")
            csv = {"index": False, "float_format": "%.6f"}
            predictions.to_csv(directory / "predictions.csv", **csv)
            if validation is not None:
                validation.to_csv(directory / "validation.csv", **csv)
            model.save(directory / "model.keras")
            history = pd.read_csv(directory / "history.csv")
            record = {
                "notebook": self.notebook,
                "parameters": self.parameters | {"data": self.data_info["kind"]},
                "data": {name: self.data_info[name] for name in DATA_FIELDS},
                "epochs": len(history),
                "seconds": round(history["seconds"].sum(), 1),
                "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            }
            record |= collect_environment(self.parameters["threads"])
            write_json(directory / "run.json", record)

    def load_history(self):
        """Load history.csv: one row per epoch."""
        return pd.read_csv(self.directory / "history.csv")

    def load_predictions(self):
        """Load predictions.csv: one row per slice of the test part."""
        return read_table(self.directory / "predictions.csv")


def _read_json(path):
    return json.loads(path.read_text()) if path.exists() else {}


def _decisive_settings(parameters, data_info):
    """Return the parameters and data that decide a result, as read from JSON."""
    names = [name for name in parameters if name not in NEUTRAL_PARAMETERS]
    decisive = {name: parameters[name] for name in names}
    return json.loads(json.dumps([decisive, data_info["digest"]]))


def read_table(path):
    """Read a table of slices (CSV); `pid` stays text."""
    return pd.read_csv(path, dtype={"pid": str})
