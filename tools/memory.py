"""Measure the memory of preparing slices; gather that of training from run records.

    python tools/memory.py FOLDER [RESULTS ...]

FOLDER holds slices; they are prepared at 128 and 256 pixels into a temporary folder.
RESULTS are folders of runs, by default results/. Writes memory.csv and memory.json;
exits with 1 if a peak is over its limit. Needs Linux: shared memory is counted once.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from results import save_results

from braintumor.core.files import ROOT
from braintumor.data.prepared import open_prepared
from braintumor.training.provenance import collect_environment

LIMITS_MB = {128: 3000, 256: 6000}  # by image size
PREPARE = """
import sys
from braintumor.data.prepared import prepare_data
prepare_data(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def measure_preparation(folder, image_size):
    """Return the number of prepared slices and the peak memory (MB) of preparing."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / str(image_size)
        command = [sys.executable, "-c", PREPARE, folder, out, str(image_size)]
        process = psutil.Popen(command)
        peak = 0
        while process.poll() is None:
            processes = [process, *process.children(recursive=True)]
            peak = max(peak, sum(map(proportional_memory, processes)))
            time.sleep(0.1)
        if process.returncode:
            sys.exit(f"{folder}: preparing failed with exit code {process.returncode}")
        return open_prepared(out).info["slices"], round(peak / 2**20)


def proportional_memory(process):
    """Return the memory of a process in bytes, shared pages divided by their users."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0  # it has ended


def gather_training(folders):
    """Return the peak memory (MB) of training, by image size and number of slices."""
    paths = [path for folder in folders for path in Path(folder).rglob("run.json")]
    rows = []
    for record in map(json.loads, (path.read_text() for path in paths)):
        parameters = record["parameters"]
        tasks = parameters.get("tasks", [parameters.get("task")])
        # a joint network leaves one record per task: count the first
        if "epochs" in record and parameters.get("task", tasks[0]) == tasks[0]:
            # crop_to: records of the first edition
            side = parameters.get("head_size", parameters.get("crop_to"))
            side = side or parameters["image_size"]
            rows.append((side, record["data"]["slices"], record["peak_memory_mb"]))
    table = pd.DataFrame(rows, columns=["pixels", "slices", "peak MB"])
    peaks = table.groupby(["pixels", "slices"])["peak MB"].agg(["size", "max"])
    peaks.columns = ["measured", "peak MB"]
    return peaks.reset_index().assign(what="training")


def main(folder, results):
    sizes = list(LIMITS_MB)
    measured = [measure_preparation(folder, image_size) for image_size in sizes]
    preparing = pd.DataFrame(measured, columns=["slices", "peak MB"])
    preparing = preparing.assign(what="preparing", pixels=sizes, measured=1)
    preparing = preparing[["what", "pixels", "slices", "measured", "peak MB"]]
    table = pd.concat([preparing, gather_training(results)], ignore_index=True)
    table["limit MB"] = table["pixels"].map(LIMITS_MB).astype("Int64")
    print(table.to_string(index=False))
    n_over = int((table["peak MB"] > table["limit MB"]).fillna(False).sum())
    record = {"over its limit": n_over} | collect_environment(threads=0)
    save_results("memory", table, record)
    return 1 if n_over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] or [ROOT / "results"]))
