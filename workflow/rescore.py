"""Evaluate the published networks again and compare with the published scores.

    python workflow/rescore.py DATA    DATA: the slices of the published run

The networks of models/ that held out a fold predict its slices. If the scores agree,
they are those of the published tables. Takes four minutes on two cores.
"""

import sys

import numpy as np
import pandas as pd

from braintumor.data.prepared import open_data
from braintumor.evaluation.masks import threshold_by_expected_dice
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, score_masks
from braintumor.evaluation.scores import load_predictions, summary_metrics
from braintumor.inference.predictor import PUBLISHED, Ensemble, find_networks

CHUNK = 64  # slices


def predict_chunks(ensemble, images, **options):
    """Predict slices (n, side, side) uint8 in chunks: yield positions and outputs."""
    for start in range(0, len(images), CHUNK):  # at once they would need gigabytes
        chunk = slice(start, start + CHUNK)
        yield chunk, ensemble.predict(images[chunk] / np.float32(255), **options)


def predict_tables(ensemble, prepared, table):
    """Predict the slices of `table`; returns {task: predictions table}."""
    rows = pd.Index(prepared.index["file"]).get_indexer(table["file"])
    slices = table[["file", "pid", "fold", "y_true"]].reset_index(drop=True)
    classes, scores = [], []
    for chunk, outputs in predict_chunks(ensemble, prepared.images[rows]):
        classes += [np.mean([output["classify"] for output in outputs], axis=(0, 2))]
        maps = np.mean([output["mask"] for output in outputs], axis=0)
        threshold = threshold_by_expected_dice
        scores += [score_masks(prepared, rows[chunk], maps, threshold)]
    probabilities = pd.DataFrame(np.concatenate(classes), columns=PROBABILITY_COLUMNS)
    scores = pd.concat(scores, ignore_index=True)
    return {"classify": slices.join(probabilities), "segment": slices.join(scores)}


def rescore(data, run=PUBLISHED, models="models"):
    """Print the scores of `run` and of `models`; returns whether 4 digits agree."""
    classified, records = load_predictions(run, "classify")
    published = {"classify": classified, "segment": load_predictions(run, "segment")[0]}
    image_size = records[0]["parameters"]["image_size"]
    prepared, parts = open_data(data, image_size), []
    for fold, table in classified.groupby("fold"):
        ensemble = Ensemble(find_networks(fold, models))
        parts.append(predict_tables(ensemble, prepared, table))
        print(f"fold {fold}: {len(table)} slices", flush=True)
    tables = {task: pd.concat(part[task] for part in parts) for task in published}
    tables = {task: table.sort_values("file") for task, table in tables.items()}
    scores = pd.DataFrame(
        {"published": summary_metrics(published), "models": summary_metrics(tables)}
    )
    print(scores.round(6))
    return bool((scores["published"] - scores["models"]).abs().max() < 5e-5)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not rescore(*sys.argv[1:2]):
        sys.exit("The scores differ: models/ are not the networks of the tables.")
