"""One image through the models of a run."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from braintumor import metrics
from braintumor.dataset import open_data, scaled
from braintumor.errors import DatasetError
from braintumor.evaluate import gather
from braintumor.files import ROOT
from braintumor.pipeline import as_input

PUBLISHED = "results/full"  # the run whose networks are in models/


def load_models(run, task, folds):
    """The networks of some folds of a run's task ("classify" or "segment"), loaded without running foreign code.

    A fold of the published run that was not trained here has its network, for both tasks, in models/.
    """
    models = []
    for fold in folds:
        path = ROOT / Path(run) / task / f"fold-{fold}" / "model.keras"
        if ROOT / Path(run) == ROOT / PUBLISHED and not path.exists():
            both = keras.models.load_model(ROOT / "models" / f"fold-{fold}.keras", compile=False)
            models.append(keras.Model(both.input, both.output[task]))
        else:
            models.append(keras.models.load_model(path, compile=False))
    return models


def held_out_fold(run, task, data, file):
    """The fold of a run whose network was not trained on slice `file` of `data` (nor on its patient, unless by slice).

    Raises DatasetError if the run was made from other data, or has not finished that fold: any other of its networks
    may have been trained on the patient.
    """
    table, records = gather(run, task)
    made_from = records[0]["data"]
    if open_data(data, made_from["size"]).about["digest"] != made_from["digest"]:
        raise DatasetError(f"{run}: was made from other data than {data}; give the data that it was made from")
    fold = table.loc[table["file"] == file, "fold"]
    if fold.empty:
        raise DatasetError(f"{run}/{task}: no finished fold held slice {file} out; the finished ones hold {len(table)}")
    return int(fold.iloc[0])


def class_probabilities(models, image):
    """Mean softmax of `models` for one upright slice (side, side), any numeric dtype: (3,) float32."""
    return np.mean([model.predict(_input(model, image), verbose=0)[0] for model in models], axis=0)


def tumor_mask(models, image):
    """Mean mask of `models` for one upright slice (side, side), at its own size: (side, side) bool."""
    maps = [model.predict(_input(model, image), verbose=0)[0, ..., 0] for model in models]
    return native_mask(np.mean(maps, axis=0), image.shape[0])


def native_mask(probability, size):
    """A network's probability map (side, side) as a mask at a slice's own size: enlarged linearly, cut at one half."""
    enlarged = Image.fromarray(np.asarray(probability, np.float32)).resize((size, size), Image.BILINEAR)
    return np.asarray(enlarged) >= 0.5


def mask_scores(prepared, rows, maps):
    """Score probability maps (n, side, side) of some rows of a prepared set at each slice's own size.

    Returns a table with a row for each of `rows`, in their order: columns as in `metrics.segmentation_scores`.
    """
    scores = []
    for row, probability in zip(rows, maps, strict=True):
        true = prepared.native_mask(row)
        predicted = native_mask(probability, len(true))
        scores.append(metrics.segmentation_scores(true, predicted, prepared.index["spacing_mm"].iloc[row]))
    return pd.DataFrame(scores)


def _input(model, image):
    return as_input(scaled(image, model.input_shape[1])[None])
