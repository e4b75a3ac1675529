"""Measure how far a training depends on the number of threads.

    python tools/threads.py

Lab 2 trains fold 1 of the quick profile on the phantom with 1, 2, 2 and 4 threads, into
a temporary folder. Writes threads.csv and threads.json; exits with 1 if the same number
of threads gave other predictions.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import yaml
from results import save_results

from braintumor.core.files import ROOT
from braintumor.core.parameters import notebook_parameters
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.training.provenance import collect_environment

THREADS = (1, 2, 2, 4)
LAB = "labs/02_classify"
REPEATED = "same bytes as with as many threads before"


def train(profile, threads):
    """Train one fold; return its predictions as bytes and as a table."""
    section = profile["classify"]
    overrides = {name: section[name] for name in section if name != "folds"}
    overrides |= {name: profile[name] for name in ("protocol", "seed")}
    with tempfile.TemporaryDirectory() as folder:
        overrides |= {"threads": threads, "results": folder}
        parameters = notebook_parameters(LAB, overrides)
        notebook, page = ROOT / f"notebooks/{LAB}.ipynb", Path(folder) / "page.ipynb"
        papermill.execute_notebook(notebook, page, parameters, progress_bar=False)
        path = Path(folder) / "fold-1/predictions.csv"
        return path.read_bytes(), pd.read_csv(path)


def compare(threads, runs):
    """Compare each run with the first, and with an earlier one of as many threads."""
    reference, earlier, rows = runs[0][1][PROBABILITY_COLUMNS].to_numpy(), {}, []
    for n_threads, (content, table) in zip(threads, runs, strict=True):
        probabilities = table[PROBABILITY_COLUMNS].to_numpy()
        y_pred = probabilities.argmax(axis=1)
        difference = np.abs(probabilities - reference)
        is_same = {True: "yes", False: "no"}[earlier.get(n_threads, content) == content]
        row = {
            "threads": n_threads,
            "slices": len(table),
            "accuracy by slice": np.mean(y_pred + 1 == table["y_true"]),
            "same class as with 1 thread": np.mean(y_pred == reference.argmax(axis=1)),
            "mean difference of a probability": difference.mean(),
            "largest difference of a probability": difference.max(),
            REPEATED: is_same if n_threads in earlier else "",
        }
        earlier[n_threads] = content
        rows.append(row)
    return pd.DataFrame(rows).round(4)


def main():
    profile = yaml.safe_load((ROOT / "config/quick.yaml").read_text())
    runs = [train(profile, threads) for threads in THREADS]
    table = compare(THREADS, runs)
    print(table.T.to_string(header=False))
    record = {"epochs": profile["classify"]["epochs"], "runs": len(THREADS)}
    save_results("threads", table, record | collect_environment(threads=0))
    return int(table[REPEATED].eq("no").any())


if __name__ == "__main__":
    sys.exit(main())
