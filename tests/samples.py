"""Tiny datasets that tests write, good or broken, and cells of notebooks."""

import h5py
import nbformat
import numpy as np
import pandas as pd
from PIL import Image

from braintumor.core.files import ROOT
from braintumor.data.figshare import write_cvind, write_mat

FIGSHARE = ROOT.parent / "shared/data/figshare-1512427"
SIDE = 32
IMAGE = np.random.default_rng(0).integers(0, 2000, (SIDE, SIDE)).astype(np.int16)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[5:12, 18:22] = 1  # upper right
BORDER = [19.0, 6.0, 22.0, 6.0, 22.0, 12.0, 19.0, 12.0]


def write_sample(path, label=1, pid="P1", image=IMAGE, mask=MASK, fields=()):
    """Write a .mat file; `fields` replaces fields as they are stored, None removes."""
    write_mat(path, image, mask, label, pid, BORDER)
    with h5py.File(path, "r+") as mat:
        for name, value in dict(fields).items():
            del mat["cjdata"][name]
            if value is not None:
                mat["cjdata"][name] = value
    return path


def write_patients(folder, cvind=True):
    """Write two slices of each of 15 patients, five per class and three per fold."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(30):
        image = np.roll(IMAGE, n, axis=1)
        path = folder / f"{n + 1}.mat"
        write_sample(path, label=n // 10 + 1, pid=f"P{n // 2}", image=image)
    if cvind:
        write_cvind(folder / "cvind.mat", [n // 2 % 5 + 1 for n in range(30)])
    return folder


def write_pairs(folder, **columns):
    """Write PNG pairs of 15 patients and slices.csv, with `columns` added."""
    (folder / "png").mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(30):
        image, mask = f"png/{n}.png", f"png/{n}-mask.png"
        gray = np.roll(IMAGE // 8, n, axis=1).astype(np.uint8)
        Image.fromarray(gray).save(folder / image)
        Image.fromarray(MASK * 255).save(folder / mask)
        label = ("Meningioma", "glioma", "3")[n // 10]
        row = {"image": image, "mask": mask, "label": label, "patient": f"Q{n // 2}"}
        rows.append(row)
    table = pd.DataFrame(rows).assign(**columns)
    table.to_csv(folder / "slices.csv", index=False)
    return folder


def change_row(folder, number, **values):
    """Change values in one row (from 1) of slices.csv."""
    table = pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False)
    for name, value in values.items():
        table.loc[number - 1, name] = value
    table.to_csv(folder / "slices.csv", index=False)


def make_prediction(image, **changes):
    """Predict glioma with a rectangular mask, without a network."""
    from braintumor.inference.ood import OOD_SCORES
    from braintumor.inference.predictor import Prediction

    mask = np.zeros(image.pixels.shape, bool)
    mask[4:10, 5:12] = True
    values = {
        "image": image,
        "networks": ("without-1", "without-2"),
        "probabilities": np.array([0.1, 0.7, 0.2], np.float32),
        "probability_std": np.array([0.01, 0.02, 0.03], np.float32),
        "mask": mask,
        "gradcam": mask.astype(np.float32),
        "mask_agreement": 0.91,
        "ood_scores": dict.fromkeys(OOD_SCORES, 0.5),
    }
    return Prediction(**values | changes)


def find_cell(notebook, text):
    """Return the source of the code cell of a notebook that holds a text."""
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    (source,) = [source for source in sources if text in source]
    return source
