"""The result of one fold: where it is kept, and whether it is finished."""

import json
import shutil
from datetime import UTC, datetime

import pandas as pd

from braintumor.core.files import ROOT, atomic_directory, atomic_write, write_json
from braintumor.training.provenance import collect_environment

# parameters that do not change a result; of the data, the pixel digest counts
NEUTRAL_PARAMETERS = ("data", "results", "threads", "experiment_log", "description")
DATA_FIELDS = ("kind", "digest", "size", "percentiles", "slices", "folds")


class FoldRun:
    """One fold of one task: its tables, model and record.

    They are in `directory`: `results`/fold-K, or `results`/`part` for a run without
    folds. Until they are complete they are in `checkpoint_dir`, a hidden folder beside
    it. So a stopped run goes on, and an older result stays until the new one is whole.

    Parameters
    ----------
    notebook : str
    parameters : dict
        Parameters of the notebook: `results`, `threads`, `fold` or `part`, and others.
    data_info : dict
        `info` of the prepared data.
    """

    def __init__(self, notebook, parameters, data_info):
        self.notebook, self.parameters, self.data_info = notebook, parameters, data_info
        part = parameters.get("part") or f"fold-{parameters['fold']}"
        self.directory = ROOT / parameters["results"] / part

    @property
    def checkpoint_dir(self):
        """Folder of the unfinished run; one of other parameters or data is deleted."""
        directory = self.directory.with_name(f".{self.directory.name}")
        path = directory / "settings.json"
        settings = _settings(self.parameters, self.data_info)
        if not path.exists() or json.loads(path.read_text()) != settings:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            write_json(path, settings)
        return directory

    @property
    def record(self):
        """Content of run.json, or {} if there is none."""
        path = self.directory / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def is_finished(self):
        """Whether `directory` holds the result of these parameters and data."""
        record = self.record
        if not record:
            return False
        finished = _settings(record["parameters"], record["data"])
        return finished == _settings(self.parameters, self.data_info)

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
            write_table(directory / "predictions.csv", predictions)
            if validation is not None:
                write_table(directory / "validation.csv", validation)
            model.save(directory / "model.keras")
            write_json(directory / "run.json", self._make_record(directory))

    def _make_record(self, directory):
        history = pd.read_csv(directory / "history.csv")
        return {
            "notebook": self.notebook,
            "parameters": self.parameters | {"data": self.data_info["kind"]},
            "data": {name: self.data_info[name] for name in DATA_FIELDS},
            "epochs": len(history),
            "seconds": round(history["seconds"].sum(), 1),
            "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **collect_environment(self.parameters["threads"]),
        }

    def load_history(self):
        """Load history.csv: one row per epoch."""
        return pd.read_csv(self.directory / "history.csv")

    def load_predictions(self):
        """Load predictions.csv: one row per slice of the test part."""
        return read_table(self.directory / "predictions.csv")


def _settings(parameters, data_info):
    """What decides a result, as it comes back from JSON."""
    decisive = {
        name: value
        for name, value in parameters.items()
        if name not in NEUTRAL_PARAMETERS
    }
    return json.loads(json.dumps([decisive, data_info["digest"]]))


def read_table(path):
    """Read a table of slices (CSV); `pid` stays text."""
    return pd.read_csv(path, dtype={"pid": str})


def write_table(path, table):
    """Write a table of slices (CSV) with 6 decimals."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f")
