"""Recompute the headline figures from the committed tables and the dataset itself, without this project's package.

python workflow/recompute.py DATA [RUN]    DATA: figshare's 1.mat ... 3064.mat and cvind.mat; RUN: default results/full

Class, patient, fold and tumor area come from the dataset's own files; of the tables only what the networks said is
believed. Needs numpy, pandas and h5py. The definitions are written out here a second time, on purpose.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd


def dataset_says(folder):
    """file, label, pid, fold and tumor area (native pixels) of each slice, as the dataset's own files have them."""
    with h5py.File(Path(folder) / "cvind.mat") as mat:
        folds = mat["cvind"][()].ravel().astype(int)
    rows = []
    for path in sorted(Path(folder).glob("[0-9]*.mat"), key=lambda path: int(path.stem)):
        with h5py.File(path) as mat:
            slice_ = mat["cjdata"]
            pid = "".join(chr(code) for code in slice_["PID"][()].ravel())
            label, area = int(slice_["label"][0, 0]), int(slice_["tumorMask"][()].sum())
        rows.append((int(path.stem), label, pid, folds[int(path.stem) - 1], area))
    return pd.DataFrame(rows, columns=["file", "label", "pid", "fold", "area"])


def headline(truth, classified, segmented):
    """The headline figures: name as in scores.json to number. The tables may stand in any order."""
    truth = truth.sort_values("file")
    said = classified.set_index("file").loc[truth["file"], ["p1", "p2", "p3"]].to_numpy()
    drawn = segmented.set_index("file").loc[truth["file"]]
    label, pid = truth["label"].to_numpy(), truth["pid"].to_numpy()

    sure, right = said.max(axis=1), said.argmax(axis=1) + 1 == label
    error = 0.0
    for number in range(15):  # expected calibration error, bins of equal width, the last one closed above
        inside = (sure >= number / 15) & ((sure < (number + 1) / 15) | (number == 14))
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())

    patients = sorted(set(pid))
    vote = np.array([said[pid == one].mean(axis=0).argmax() + 1 for one in patients])
    known = np.array([label[pid == one][0] for one in patients])
    recalls = [(vote[known == one] == one).mean() for one in (1, 2, 3)]

    dice = drawn["dice"].to_numpy()
    common = np.round(dice * (truth["area"].to_numpy() + drawn["area_pred"].to_numpy()) / 2)
    return {
        "classify": {
            "accuracy by slice": right.mean(),
            "accuracy by patient": (vote == known).mean(),
            "balanced accuracy by patient": np.mean(recalls),
            "expected calibration error": error,
        },
        "segment": {
            "mean Dice": dice.mean(),
            "median Dice": np.median(dice),
            "mean IoU": np.mean(dice / (2 - dice)),
            "median HD95 (mm)": drawn["hd95_mm"].median(),
            "share without overlap": (dice == 0).mean(),
            "pixel sensitivity": common.sum() / truth["area"].sum(),
            "pixel precision": common.sum() / drawn["area_pred"].sum(),
        },
    }


def main(data, run="results/full"):
    """Print each figure recomputed and published; returns a list of what does not agree, in words."""
    run, faults = Path(run), []
    truth = dataset_says(data)
    tables = {}
    for task in ("classify", "segment"):
        paths = sorted((run / task).glob("fold-*/predictions.csv"))
        tables[task] = pd.concat([pd.read_csv(path, dtype={"pid": str}) for path in paths])
        columns = ["file", "label", "pid", "fold"]
        ours = tables[task].sort_values("file", ignore_index=True)[columns]
        if not ours.equals(truth[columns].astype(ours.dtypes)):
            faults.append(f"{task}: slices, labels, patients or folds are not the dataset's")
    published = json.loads((run / "scores.json").read_text())
    print(f"{len(truth)} slices, {truth['pid'].nunique()} patients, {truth['fold'].nunique()} folds in {data}")
    for task, scores in headline(truth, tables["classify"], tables["segment"]).items():
        for name, value in scores.items():
            agrees = abs(value - published[task][name]["value"]) < 5e-5
            print(f"{name:30} {value:.4f}   published {published[task][name]['value']:.4f}")
            faults += [] if agrees else [f"{task}: {name} is {value:.6f} here"]
    return faults


if __name__ == "__main__":
    if found := main(*sys.argv[1:3]):
        sys.exit("\n".join(found))
    print("All agree to four digits.")
