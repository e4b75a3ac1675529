"""How far a result depends on the number of threads: fold 1 of the profile quick, trained with 1, 2 and 4, and with 2
once more.

    python tools/threads.py

Notebook 02 trains on the phantom, into a temporary folder. Prints a line each and writes results/tested/threads.csv and
threads.json. Exits with 1 if the same number of threads gave other predictions.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from results import keep

from braintumor.core.files import ROOT
from braintumor.evaluation.metrics import PROBABILITIES
from braintumor.training.provenance import machine
from braintumor.workflow_engine.execution import execute_apart, fold_parameters, read_profile

THREADS = (1, 2, 2, 4)
PROFILE = read_profile(ROOT / "config/quick.yaml")
SAME = "same bytes as with as many threads before"


def trained(folder, threads):
    """The file of predictions of one training, as bytes and as a table."""
    given = fold_parameters(PROFILE | {"data": "phantom", "name": ""}, "classify", 1)
    given |= {"threads": threads, "results": str(folder)}
    notebook, page, partial = ROOT / "notebooks/02_classify.ipynb", folder / "page.ipynb", folder / "partial.ipynb"
    execute_apart(str(notebook), str(page), str(partial), given)
    path = folder / "fold-1/predictions.csv"
    return path.read_bytes(), pd.read_csv(path)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        runs = [trained(Path(scratch) / str(number), threads) for number, threads in enumerate(THREADS)]
    of_one, before, rows = runs[0][1][PROBABILITIES].to_numpy(), {}, []
    for threads, (content, table) in zip(THREADS, runs, strict=True):
        values = table[PROBABILITIES].to_numpy()
        away = np.abs(values - of_one)
        same = ("yes" if before[threads] == content else "no") if threads in before else ""
        before[threads] = content
        rows.append(
            {
                "threads": threads,
                "slices": len(table),
                "accuracy by slice": np.mean(values.argmax(1) + 1 == table["label"]),
                "same class as with 1 thread": np.mean(values.argmax(1) == of_one.argmax(1)),
                "mean difference of a probability": away.mean(),
                "largest difference of a probability": away.max(),
                SAME: same,
            }
        )
    shown = pd.DataFrame(rows).round(4)
    print(shown.T.to_string(header=False))
    record = {"epochs": PROFILE["classify"]["epochs"], "tried": len(THREADS)}
    keep("threads", shown, record | machine(threads=0))
    return int(shown[SAME].eq("no").any())


if __name__ == "__main__":
    sys.exit(main())
