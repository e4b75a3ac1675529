"""Measure what the published networks see: Grad-CAM, OOD scores, inpainted tumors.

    python workflow/measure_saliency_ood.py DATA    DATA: slices of the published run

Each slice is predicted by the network in models/ that held out its patient. Writes the
tables that the page report/saliency_ood reads. Takes five minutes on two cores.
"""

import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from ood_images import (
    inpaint,
    load_natural_images,
    make_ood_images,
    resize_map,
    sample_control_region,
)
from tqdm import tqdm

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT, atomic_write, sha256, write_json
from braintumor.data.folder import find_slices
from braintumor.data.prepared import open_data, resolve_data
from braintumor.evaluation.masks import compute_dice
from braintumor.evaluation.scores import load_predictions
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import PUBLISHED, Predictor, find_networks
from braintumor.training.provenance import collect_environment

TABLES = ("slices", "ood_images", "inpainting")
N_PER_FOLD = 20  # slices from which OOD images are made
SEED = 1


def gradcam_localization(predictions):
    """Compare Grad-CAM maps with the true masks: a row per prediction.

    Columns are the share of the map inside the mask, that share of another prediction's
    map (half of the list further), and whether the map's maximum is inside.
    """
    maps = [resize_map(p.gradcam, 128) for p in predictions]
    masks = [resize_map(p.image.mask, 128) for p in predictions]
    shifted_maps = [maps[n - len(maps) // 2] for n in range(len(maps))]
    rows = []
    for gradcam, shifted, mask in zip(maps, shifted_maps, masks, strict=True):
        inside, chance = (
            (values * mask).sum() / max(values.sum(), 1e-9)
            for values in (gradcam, shifted)
        )
        rows.append((inside, chance, mask.flat[gradcam.argmax()] >= 0.5))
    names = ["gradcam_inside", "gradcam_inside_chance", "gradcam_peak_inside"]
    return pd.DataFrame(rows, columns=names)


def measure_slices(predictor, paths, table):
    """Predict the held-out slices of a fold: class, OOD scores, Dice, Grad-CAM."""
    parts = []
    for _, rows in table.groupby("plane"):
        rows = rows.sort_values("pid")  # half of the list further is another patient
        images = [read_image(paths[file]) for file in rows["file"]]
        predictions = [predictor.predict(image) for image in images]
        scores = pd.DataFrame(
            [{"y_pred": p.label, **p.ood_scores} for p in predictions]
        )
        scores["dice"] = [compute_dice(p.image.mask, p.mask) for p in predictions]
        scores = scores.join(gradcam_localization(predictions))
        parts.append(rows.reset_index(drop=True).join(scores))
    return pd.concat(parts)


def measure_ood_images(predictor, images, rng):
    """Compute OOD scores of natural images, and of images made from slices."""
    ood_images = load_natural_images()
    for image in images:
        for kind, pixels in make_ood_images(image.pixels, image.mask, rng).items():
            ood_images.append((kind, InputImage(image.name, pixels)))
    predictions = [predictor.predict(image) for _, image in ood_images]
    rows = [
        {"kind": kind, "image": image.name, **prediction.ood_scores}
        for (kind, image), prediction in zip(ood_images, predictions, strict=True)
    ]
    return pd.DataFrame(rows)


def measure_inpainting(predictor, images, rng):
    """Predict slices as they are, and with the tumor or a control region inpainted."""
    rows = []
    for image in images:
        region = sample_control_region(image.pixels, image.mask, rng)
        if region is None:
            continue
        views = [inpaint(image.pixels, mask) for mask in (image.mask, region)]
        views = [InputImage(image.name, view) for view in (image.pixels, *views)]
        predictions = [predictor.predict(view) for view in views]
        original, tumor, control = (p.probabilities for p in predictions)
        row = {"image": image.name, "pid": image.patient, "y_true": image.label}
        row["prob_original"] = original[image.label - 1]
        row["prob_tumor_inpainted"] = tumor[image.label - 1]
        row["prob_control_inpainted"] = control[image.label - 1]
        rows.append(row | {"y_pred_inpainted": int(tumor.argmax()) + 1})
    return pd.DataFrame(rows)


def measure_folds(paths, table, models):
    """Measure the network of each fold; returns {name of a table: table}."""
    rng, parts = np.random.default_rng(SEED), {name: [] for name in TABLES}
    for fold, rows in tqdm(table.groupby("fold"), unit=" folds"):
        predictor = Predictor(find_networks(fold, models))
        parts["slices"].append(measure_slices(predictor, paths, rows))
        files = rng.choice(rows["file"], min(N_PER_FOLD, len(rows)), replace=False)
        images = [read_image(paths[file]) for file in files]
        for name, function in (
            ("ood_images", measure_ood_images),
            ("inpainting", measure_inpainting),
        ):
            parts[name].append(function(predictor, images, rng).assign(fold=fold))
    tables = {name: pd.concat(part) for name, part in parts.items()}
    return tables | {"slices": tables["slices"].sort_values("file")}


def measure(data, out=f"{PUBLISHED}/saliency_ood", run=PUBLISHED, models="models"):
    """Measure the networks of all folds and write the tables and run.json."""
    began = time.perf_counter()
    table, records = load_predictions(run, "classify")
    info = records[0]["data"]
    prepared = open_data(data, info["size"])
    if prepared.info["digest"] != info["digest"]:
        raise DatasetError(f"{data}: got other slices than those of {run}. Correct it.")
    paths = {source.file: source.path for source in find_slices(resolve_data(data))}
    planes = prepared.index.set_index("file")["plane"].astype(str)
    table = table[["file", "pid", "fold", "y_true"]]
    table = table.assign(plane=table["file"].map(planes))
    for name, measured in measure_folds(paths, table, models).items():
        with atomic_write(ROOT / out / f"{name}.csv") as path:
            measured.to_csv(path, index=False, float_format="%.4f")
    record = {
        "notebook": "workflow/measure_saliency_ood.py",
        "parameters": {"data": info["kind"], "n_per_fold": N_PER_FOLD, "seed": SEED},
        "data": info,
        "networks": {p.stem: sha256(p) for p in find_networks(None, models)},
        "seconds": round(time.perf_counter() - began, 1),
        "finished": f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}",
    }
    write_json(ROOT / out / "run.json", record | collect_environment(threads=0))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    measure(*sys.argv[1:])
