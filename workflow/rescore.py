"""Evaluate the published networks again and compare with the published scores.

    python workflow/rescore.py DATA    DATA: the slices of the published run

models/fold-K.keras predicts the slices of the held-out fold K. If the scores agree, the
networks in models/ are those of the published tables. Takes three minutes on two cores.
"""

import sys

import keras
import pandas as pd

from braintumor.core.files import ROOT
from braintumor.data.prepared import open_data
from braintumor.data.preprocessing import to_network_input
from braintumor.evaluation.masks import score_masks, threshold_by_expected_dice
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import load_predictions, summary_metrics
from braintumor.models.joint import build_tta_model

PUBLISHED = "results/published/full"


def predict_tables(model, prepared, table):
    """Predict the slices of `table`; returns {task: predictions table}."""
    rows = pd.Index(prepared.index["file"]).get_indexer(table["file"])
    x = to_network_input(prepared.images[rows])
    outputs = model.predict(x, batch_size=16, verbose=0)
    maps, threshold = outputs["segment"][..., 0], threshold_by_expected_dice
    slices = table[["file", "pid", "fold", "y_true"]].reset_index(drop=True)
    probabilities = pd.DataFrame(outputs["classify"], columns=PROBABILITY_COLUMNS)
    return {
        "classify": slices.join(probabilities),
        "segment": slices.join(score_masks(prepared, rows, maps, threshold)),
    }


def rescore(data, run=PUBLISHED, models="models"):
    """Print the scores of `run` and of `models`; returns whether 4 digits agree."""
    classified, records = load_predictions(run, "classify")
    published = {"classify": classified, "segment": load_predictions(run, "segment")[0]}
    image_size = records[0]["parameters"]["image_size"]
    prepared, parts = open_data(data, image_size), []
    for fold, table in classified.groupby("fold"):
        path = ROOT / models / f"fold-{fold}.keras"
        network = keras.models.load_model(path, compile=False)
        model = build_tta_model(network, image_size)
        parts.append(predict_tables(model, prepared, table))
        print(f"fold {fold}: {len(table)} slices", flush=True)
    tables = {task: pd.concat(part[task] for part in parts) for task in published}
    tables = {task: table.sort_values("file") for task, table in tables.items()}
    scores = pd.DataFrame(
        {"published": summary_metrics(published), "models": summary_metrics(tables)}
    )
    print(scores.round(6))
    return bool((scores["published"] - scores["models"]).abs().max() < 5e-5)


if __name__ == "__main__":
    if not rescore(*sys.argv[1:2]):
        sys.exit("The scores differ: models/ are not the networks of the tables.")
