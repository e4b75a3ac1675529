"""Compare the published networks with the first edition's where the source shifts.

    git archive 4c8a72e models | tar -x --one-top-level=data/first-edition
    python workflow/compare_editions.py DATA    DATA: slices of the published run

Writes results/published/shifts: predictions of held-out slices after synthetic shifts,
and a probe of the features that tells the two sources of gliomas apart. Takes ten
minutes on two cores.
"""

import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from rescore import predict_chunks
from scipy import ndimage
from skimage import exposure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from braintumor.core.files import ROOT, atomic_write, sha256, write_json
from braintumor.data.prepared import open_data
from braintumor.data.splits import FOLDS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.inference.predictor import IMAGE_SIZE, Ensemble, find_networks
from braintumor.training.provenance import collect_environment

OUT = ROOT / "results/published/shifts"
NETWORKS = {"published": "models", "first edition": "data/first-edition/models"}
STEP = 4  # every fourth slice is shifted
SEED = 1
# of slices in [0, 1]; training varies gamma, blur and noise, but not so far
SHIFTS = {
    "none": lambda image, rng: image,
    "squared": lambda image, rng: image**2,
    "equalized": lambda image, rng: exposure.equalize_adapthist(image, clip_limit=0.02),
    "blurred": lambda image, rng: ndimage.gaussian_filter(image, 1.6),
    "noisy": lambda image, rng: image + rng.normal(0, 0.08, image.shape),
}


def shift_slices(images, name):
    """Shift slices (n, side, side) uint8 as another scanner or export might."""
    rng = np.random.default_rng(SEED)
    shifted = [SHIFTS[name](image / 255, rng) for image in images]
    return np.rint(np.clip(shifted, 0, 1) * 255).astype(np.uint8)


def predict_output(networks, images, name):
    """Predict one output of `predict_views`: (n_networks, n, ...)."""
    chunks = predict_chunks(networks, images, zooms=(1.0,))
    parts = [np.stack([output[name] for output in outputs]) for _, outputs in chunks]
    return np.concatenate(parts, axis=1)


def predict_shifts(networks, prepared, rows):
    """Predict slices after each shift: a row per slice and shift."""
    table = prepared.index.iloc[rows][["file", "pid", "fold", "label"]]
    table = table.rename(columns={"label": "y_true"}).reset_index(drop=True)
    parts = []
    for name in SHIFTS:
        shifted = shift_slices(prepared.images[rows], name)
        probabilities = predict_output(networks, shifted, "classify")
        probabilities = probabilities.mean(axis=(0, 2))
        probabilities = pd.DataFrame(probabilities, columns=PROBABILITY_COLUMNS)
        parts.append(table.assign(shift=name).join(probabilities))
    return pd.concat(parts)


def fit_probe(features, is_mr):
    """Fit a linear classifier of the source; both sources weigh the same."""
    probe = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    return make_pipeline(StandardScaler(), probe).fit(features, is_mr)


def probe_sources(networks, prepared, fold):
    """Predict the source MR of a fold's gliomas from the networks' features."""
    gliomas = prepared.index[prepared.index["label"] == 2]
    features = predict_output(networks, prepared.images[gliomas.index], "features")
    x, is_mr = np.hstack(features[:, :, 0]), gliomas["source"] == "MR"
    is_test = gliomas["fold"].to_numpy() == fold
    model = fit_probe(x[~is_test], is_mr[~is_test])
    table = gliomas[is_test][["file", "pid", "fold", "plane"]]
    return table.assign(prob_mr=model.predict_proba(x[is_test])[:, 1])


def main(data):
    started, prepared = time.time(), open_data(data, IMAGE_SIZE)
    shifts, probes, digests = [], [], {}
    for name, folder in NETWORKS.items():
        for fold in tqdm(FOLDS, name):
            paths = find_networks(fold, folder)
            digests |= {f"{folder}/{path.name}": sha256(path) for path in paths}
            networks = Ensemble(paths)
            rows = np.flatnonzero(prepared.index["fold"] == fold)[::STEP]
            shifted = predict_shifts(networks, prepared, rows)
            shifts.append(shifted.assign(networks=name))
            probed = probe_sources(networks, prepared, fold)
            probes.append(probed.assign(networks=name))
    OUT.mkdir(parents=True, exist_ok=True)
    for name, parts in (("shifts", shifts), ("probe", probes)):
        with atomic_write(OUT / f"{name}.csv") as path:
            pd.concat(parts).to_csv(path, index=False, float_format="%.4f")
    record = {
        "notebook": "workflow/compare_editions.py",
        "data": {name: prepared.info[name] for name in ("kind", "digest", "slices")},
        "networks": digests,
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.time() - started, 1),
        "parameters": {"seed": SEED, "step": STEP},
    }
    write_json(OUT / "run.json", record | collect_environment(threads=2))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])
