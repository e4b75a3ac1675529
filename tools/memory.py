"""Measure the memory that preparing the slices takes, and gather what training took from the records of runs.

    python tools/memory.py FOLDER [RESULTS ...]

FOLDER holds slices; they are prepared at 128 and 256 pixels into a temporary folder. RESULTS are folders of runs, by
default results/. Prints a line each and writes results/tested/memory.csv and memory.json. Exits with 1 if a figure is
over its limit. Needs Linux: memory that processes share is counted once.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from results import keep

from braintumor.core.files import ROOT
from braintumor.data.prepared import open_prepared
from braintumor.training.provenance import machine
from braintumor.workflow_engine.estimate import side, stands_for_a_training

LIMITS_MB = {128: 3000, 256: 6000}  # by pixels a side
PREPARE = """
import sys
from braintumor.data.prepared import prepare
if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def preparing(folder, size):
    """Peak memory of preparing (MB), and what was prepared (prepared.json)."""
    with tempfile.TemporaryDirectory() as scratch:
        out, script = Path(scratch) / str(size), Path(scratch) / "prepare.py"
        script.write_text(PREPARE)  # a file: its worker processes load it too
        process = psutil.Popen([sys.executable, script, folder, out, str(size)])
        peak = 0
        while process.poll() is None:
            peak = max(peak, sum(map(memory, [process, *process.children(recursive=True)])))
            time.sleep(0.1)
        if process.returncode:
            sys.exit(f"{folder}: could not be prepared")
        return round(peak / 2**20), open_prepared(out).about


def memory(process):
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0  # it has just ended


def training(results):
    """The greatest peak memory (MB) and the number of trainings by pixels a side and count of slices."""
    records = {path: json.loads(path.read_text()) for folder in results for path in Path(folder).rglob("run.json")}
    table = pd.DataFrame(
        [
            (side(one["parameters"]), one["data"]["slices"], one["peak_memory_mb"])
            for one in records.values()
            if stands_for_a_training(one)
        ],
        columns=["pixels", "slices", "MB"],
    )
    return table.groupby(["pixels", "slices"])["MB"].agg(["max", "size"]).reset_index()


def main(folder, results):
    rows = []
    for size in LIMITS_MB:
        peak, about = preparing(folder, size)
        rows.append(("preparing", size, about["slices"], 1, peak))
    rows += [("training", row.pixels, row.slices, row[4], row[3]) for row in training(results).itertuples()]
    table = pd.DataFrame(rows, columns=["what", "pixels", "slices", "measured", "peak MB"])
    table["limit MB"] = table["pixels"].map(LIMITS_MB).astype("Int64")
    print(table.to_string(index=False))
    over = table[table["peak MB"] > table["limit MB"].fillna(table["peak MB"])]
    keep("memory", table, {"over its limit": len(over)} | machine(threads=0))
    return 1 if len(over) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] or [ROOT / "results"]))
