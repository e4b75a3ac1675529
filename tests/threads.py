"""How far a result depends on the number of threads: fold 1 of the profile quick, trained with 1, 2 and 4, and with 2
once more.

    python tests/threads.py

Notebook 02 trains on the phantom, into a temporary folder. Prints a line each and writes results/tested/threads.csv and
threads.json. Exits with 1 if the same number of threads gave other predictions.
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from braintumor.dataset import LABELS
from braintumor.execution import execute_apart, fold_parameters, read_profile
from braintumor.files import ROOT, atomic, write_json
from braintumor.provenance import machine

THREADS = (1, 2, 2, 4)
CLASSES = [f"p{label}" for label in LABELS]


def trained(folder, threads):
    """The predictions of one training: the file's bytes, and the table."""
    profile = read_profile(ROOT / "config/quick.yaml") | {"data": "phantom", "name": ""}
    given = fold_parameters(profile, "classify", 1) | {"threads": threads, "results": str(folder)}
    notebook, page, partial = ROOT / "notebooks/02_classify.ipynb", folder / "page.ipynb", folder / "partial.ipynb"
    execute_apart(str(notebook), str(page), str(partial), given)
    path = folder / "fold-1/predictions.csv"
    return path.read_bytes(), pd.read_csv(path)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(number) for number in range(len(THREADS))]
        runs = [trained(folder, threads) for folder, threads in zip(folders, THREADS, strict=True)]
    of_one = runs[0][1][CLASSES].to_numpy()
    rows = []
    for threads, (content, table) in zip(THREADS, runs, strict=True):
        values = table[CLASSES].to_numpy()
        away = np.abs(values - of_one)
        rows.append(
            {
                "threads": threads,
                "slices": len(table),
                "accuracy by slice": np.mean(values.argmax(1) + 1 == table["label"]),
                "same class as with 1 thread": np.mean(values.argmax(1) == of_one.argmax(1)),
                "mean difference of a probability": away.mean(),
                "largest difference of a probability": away.max(),
                "same bytes as with as many threads before": "",
            }
        )
        earlier = next(one for number, (one, _) in zip(THREADS, runs, strict=True) if number == threads)
        if earlier is not content:
            rows[-1]["same bytes as with as many threads before"] = "yes" if earlier == content else "no"
    shown = pd.DataFrame(rows).round(4)
    print(shown.T.to_string(header=False))
    with atomic(ROOT / "results/tested/threads.csv") as path:
        shown.to_csv(path, index=False)
    record = {"finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}", "epochs": 30, "tried": len(THREADS)}
    write_json(ROOT / "results/tested/threads.json", record | machine(threads=0))
    return 1 if any(row["same bytes as with as many threads before"] == "no" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
