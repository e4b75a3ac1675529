"""Recompute the headline scores from the published tables and the dataset itself.

    python workflow/recompute.py DATA [RUN]    RUN: default results/published/full

DATA holds figshare's 1.mat ... 3064.mat and cvind.mat. Class, patient, fold and tumor
area come from these files; of the tables only predictions are used. Needs numpy, pandas
and h5py, not this project's package: the definitions are written out a second time.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

PROBABILITIES = ["prob_meningioma", "prob_glioma", "prob_pituitary"]


def read_dataset(folder):
    """Read file, y_true, pid, fold and tumor area (native pixels) of each slice."""
    with h5py.File(Path(folder) / "cvind.mat") as mat:
        folds = mat["cvind"][()].ravel().astype(int)
    rows = []
    for path in sorted(Path(folder).glob("[0-9]*.mat"), key=lambda p: int(p.stem)):
        with h5py.File(path) as mat:
            struct, number = mat["cjdata"], int(path.stem)
            pid = "".join(chr(code) for code in struct["PID"][()].ravel())
            label, area = int(struct["label"][0, 0]), int(struct["tumorMask"][()].sum())
        rows.append((number, label, pid, folds[number - 1], area))
    return pd.DataFrame(rows, columns=["file", "y_true", "pid", "fold", "area"])


def calibration_error(confidence, correct, n_bins=15):
    """Compute the ECE with bins of equal width, of which the last is closed above."""
    error = 0.0
    for n in range(n_bins):
        inside = confidence >= n / n_bins
        if n < n_bins - 1:
            inside &= confidence < (n + 1) / n_bins
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def compute_scores(truth, classified, segmented):
    """Compute the headline scores; returns {task: {name in scores.json: value}}."""
    truth = truth.sort_values("file")
    probabilities = classified.set_index("file").loc[truth["file"], PROBABILITIES]
    probabilities = probabilities.to_numpy()
    masks = segmented.set_index("file").loc[truth["file"]]
    y_true, pid = truth["y_true"].to_numpy(), truth["pid"].to_numpy()
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) + 1 == y_true

    patients = sorted(set(pid))
    means = [probabilities[pid == p].mean(axis=0) for p in patients]
    patient_pred = np.argmax(means, axis=1) + 1
    patient_true = np.array([y_true[pid == p][0] for p in patients])
    recalls = [(patient_pred[patient_true == c] == c).mean() for c in (1, 2, 3)]

    # the source that holds all classes: identifiers of digits
    digits = np.array([not p.startswith("MR") for p in pid])
    by_class = [correct[digits & (y_true == c)].mean() for c in (1, 2, 3)]
    is_digits = np.array([not p.startswith("MR") for p in patients])
    chosen = [is_digits & (patient_true == c) for c in (1, 2, 3)]
    by_patient = [(patient_pred[rows] == c).mean() for c, rows in enumerate(chosen, 1)]

    dice = masks["dice"].to_numpy()
    areas = truth["area"].to_numpy() + masks["area_pred"].to_numpy()
    overlap = np.round(dice * areas / 2)
    return {
        "classify": {
            "accuracy by slice": correct.mean(),
            "accuracy by patient": (patient_pred == patient_true).mean(),
            "balanced accuracy by patient": np.mean(recalls),
            "single-source balanced accuracy by slice": np.mean(by_class),
            "single-source balanced accuracy by patient": np.mean(by_patient),
            "expected calibration error": calibration_error(confidence, correct),
        },
        "segment": {
            "mean Dice": dice.mean(),
            "median Dice": np.median(dice),
            "mean IoU": np.mean(dice / (2 - dice)),
            "median HD95 (mm)": masks["hd95_mm"].median(),
            "share of zero overlap": (dice == 0).mean(),
            "pixel recall": overlap.sum() / truth["area"].sum(),
            "pixel precision": overlap.sum() / masks["area_pred"].sum(),
        },
    }


def main(data, run="results/published/full"):
    """Print each score, recomputed and published; returns a list of disagreements."""
    run, problems, tables = Path(run), [], {}
    truth = read_dataset(data)
    published = json.loads((run / "scores.json").read_text())
    columns = ["file", "y_true", "pid"]
    if published["made_from"]["classify"]["protocol"] == "official":
        columns.append("fold")  # of cvind.mat; other protocols assign others
    for task in ("classify", "segment"):
        paths = sorted((run / task).glob("fold-*/predictions.csv"))
        tables[task] = pd.concat([pd.read_csv(p, dtype={"pid": str}) for p in paths])
        slices = tables[task].sort_values("file", ignore_index=True)[columns]
        if not slices.equals(truth[columns].astype(slices.dtypes)):
            problems.append(f"{task}: slices, classes, patients or folds differ")
    print(f"{data}: {len(truth)} slices of {truth['pid'].nunique()} patients")
    scores = compute_scores(truth, tables["classify"], tables["segment"])
    for task, values in scores.items():
        for name, value in values.items():
            reference = published[task][name]["value"]
            print(f"{name:42} {value:.4f}   published {reference:.4f}")
            if abs(value - reference) >= 5e-5:
                problems.append(f"{task}: {name} is {value:.6f} here")
    return problems


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if problems := main(*sys.argv[1:3]):
        sys.exit("\n".join(problems))
    print("All agree to four digits.")
