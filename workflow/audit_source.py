"""Measure what the background alone, without the head, tells of class and source.

    python workflow/audit_source.py DATA    DATA: slices of the published run

Writes results/published/source: out-of-fold predictions from pixels without a head, and
scores of a probe of corners that tells the two sources of gliomas apart. Takes half an
hour on two cores.
"""

import sys
import time
from datetime import UTC, datetime

import keras
import numpy as np
from compare_editions import fit_probe
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from braintumor.core.files import ROOT, atomic_write, write_json
from braintumor.data.folder import find_slices, map_slices, read_slice
from braintumor.data.prepared import open_data, resolve_data
from braintumor.data.preprocessing import preprocess_slice, to_network_input
from braintumor.data.splits import FOLDS, make_split, patient_source
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.models.compact import build_compact
from braintumor.training.batches import steps_per_epoch, training_batches
from braintumor.training.loop import configure_backend
from braintumor.training.provenance import collect_environment

OUT = ROOT / "results/published/source"
CORNER = 24  # pixels per side, in slices of 512 pixels
SIZE, EPOCHS, BATCH_SIZE, SEED = 64, 15, 16, 1


def find_head(image):
    """Find the head, with a margin of 8 pixels, in a slice (512, 512): bool mask."""
    bright = ndimage.gaussian_filter(image, 2.0) > 0.06 * np.percentile(image, 99.5)
    labels, n = ndimage.label(bright)
    sizes = ndimage.sum_labels(bright, labels, range(1, n + 1))
    head = ndimage.binary_fill_holes(labels == 1 + np.argmax(sizes))
    return ndimage.binary_dilation(head, iterations=8)


def describe_patch(pixels):
    """Describe the intensities and the texture of pixels (rows, columns): (10,)."""
    quantiles = np.quantile(pixels, [0, 0.1, 0.5, 0.9, 1])
    steps = [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)]
    shares = [(pixels == 0).mean(), (pixels == pixels.min()).mean()]
    return [*quantiles, pixels.std(), *steps, *shares]


def describe_background(source):
    """Return features of the corners, whether they hold a head, and a blanked slice."""
    image = read_slice(source).image.astype(np.float32)
    scale = 512 // len(image)
    image = image.repeat(scale, 0).repeat(scale, 1)
    head, ends = find_head(image), (slice(0, CORNER), slice(-CORNER, None))
    corners = [(rows, columns) for rows in ends for columns in ends]
    features = [describe_patch(image[corner]) for corner in corners]
    is_free = not any(head[corner].any() for corner in corners)
    # scaled by the background alone: its noise would be nearly black otherwise
    blanked = np.where(head, image.min(), image)
    return np.ravel(features), is_free, preprocess_slice(blanked, SIZE, (0, 99.9))


def predict_corners(index, features, rows):
    """Predict classes from corners by a random forest, out of fold: (n_rows, 3)."""
    outputs = np.full((len(index), 3), np.nan)
    for fold in FOLDS:
        is_test = (index["fold"] == fold).to_numpy()
        forest = RandomForestClassifier(500, min_samples_leaf=2, random_state=SEED)
        train, test = rows & ~is_test, rows & is_test
        forest.fit(features[train], index["label"][train])
        outputs[test] = forest.predict_proba(features[test])
    return outputs


def predict_blanked(index, images):
    """Predict classes from slices without the head by the compact CNN, out of fold."""
    outputs = np.full((len(index), 3), np.nan)
    labels = index["label"].to_numpy() - 1
    for fold in FOLDS:
        split = make_split(index, "official", fold, SEED)
        rows = np.concatenate([split.train, split.validation])
        keras.utils.set_random_seed(SEED)
        model = build_compact(SIZE)
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        batches = training_batches(images[rows], labels[rows], BATCH_SIZE, SEED)
        steps = steps_per_epoch(len(rows), BATCH_SIZE)
        model.fit(batches, steps_per_epoch=steps, epochs=EPOCHS, verbose=0)
        x = to_network_input(images[split.test])
        outputs[split.test] = model.predict(x, verbose=0)
        print(f"blanked slices: fold {fold} of {len(FOLDS)}", flush=True)
    return outputs


def probe_sources(index, features, rows):
    """Predict the source MR of gliomas, out of fold: probabilities (n_rows,)."""
    outputs = np.full(len(index), np.nan)
    is_mr = index["pid"].map(patient_source).eq("MR").to_numpy()
    for fold in FOLDS:
        is_test = (index["fold"] == fold).to_numpy()
        train, test = rows & ~is_test, rows & is_test
        model = fit_probe(features[train], is_mr[train])
        outputs[test] = model.predict_proba(features[test])[:, 1]
    return outputs


def main(data):
    configure_backend(SEED, threads=2)
    started, prepared = time.time(), open_data(data, 256)
    index = prepared.index
    sources = {source.file: source for source in find_slices(resolve_data(data))}
    sources = [sources[file] for file in index["file"]]
    backgrounds = list(map_slices(describe_background, sources, "corners", 2))
    corners, is_free, blanked = (
        np.array(values) for values in zip(*backgrounds, strict=True)
    )
    table = index[["file", "pid", "fold", "label", "plane"]]
    table = table.rename(columns={"label": "y_true"}).assign(corners_free=is_free)
    outputs = {
        "corners": predict_corners(index, corners, is_free),
        "head_blanked": predict_blanked(index, blanked),
    }
    for name, probabilities in outputs.items():
        columns = [f"{name}_{column}" for column in PROBABILITY_COLUMNS]
        table[columns] = probabilities
    is_glioma = (index["label"] == 2).to_numpy()
    table["probe_corners"] = probe_sources(index, corners, is_glioma & is_free)
    OUT.mkdir(parents=True, exist_ok=True)
    with atomic_write(OUT / "background.csv") as path:
        table.to_csv(path, index=False, float_format="%.4f")
    record = {
        "notebook": "workflow/audit_source.py",
        "data": {name: prepared.info[name] for name in ("kind", "digest", "slices")},
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.time() - started, 1),
        "parameters": {"seed": SEED},
    }
    write_json(OUT / "run.json", record | collect_environment(threads=2))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])
