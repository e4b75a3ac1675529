"""Score the published networks anew and compare with the published scores.

python workflow/rescore.py DATA [RUN]    DATA: the slices of the run; RUN: default results/full

models/fold-K.keras answers the slices that fold K held out in RUN. If the scores are the run's, then the networks in
models/ are those behind it. Takes about three minutes on two cores.
"""

import sys

import keras
import pandas as pd

from braintumor.core.files import ROOT
from braintumor.data.prepared import open_data
from braintumor.evaluation import masks as predict
from braintumor.evaluation import metrics
from braintumor.evaluation import scores as evaluate
from braintumor.training.augmentation import as_input


def answers(model, prepared, table):
    """The published predictions of the slices in `table` made anew: {task: predictions table}, in its order."""
    rows = pd.Index(prepared.index["file"]).get_indexer(table["file"])
    said = model.predict(as_input(prepared.images[rows]), batch_size=16, verbose=0)
    drawn = predict.dice_masks(prepared, rows, said["segment"][..., 0])
    known = table[["file", "pid", "fold", "label"]].reset_index(drop=True)
    return {
        "classify": known.assign(**dict(zip(metrics.PROBABILITIES, said["classify"].T, strict=True))),
        "segment": known.join(predict.mask_scores(prepared, rows, drawn)),
    }


def rescore(data, run="results/full", models="models"):
    """Print each score of `run` beside the same from the weights; returns whether all agree to four digits."""
    classified, records = evaluate.gather(run, "classify")
    published = {"classify": classified, "segment": evaluate.gather(run, "segment")[0]}
    prepared = open_data(data, records[0]["parameters"]["image_size"])
    parts = []
    for fold, table in classified.groupby("fold"):
        model = keras.models.load_model(ROOT / models / f"fold-{fold}.keras", compile=False)
        parts.append(answers(model, prepared, table))
        print(f"fold {fold}: {len(table)} slices")
    again = {task: pd.concat(part[task] for part in parts).sort_values("file") for task in published}
    scores = pd.DataFrame({"published": evaluate.quick_scores(published), "anew": evaluate.quick_scores(again)})
    print(scores.round(6))
    return bool((scores["published"] - scores["anew"]).abs().max() < 5e-5)


if __name__ == "__main__":
    if not rescore(*sys.argv[1:3]):
        sys.exit("They differ within four digits: models/ and the run's tables do not belong together.")
