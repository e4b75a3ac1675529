"""One image through the models of a run."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from braintumor.core.errors import DatasetError, in_short
from braintumor.core.files import ROOT
from braintumor.data.prepared import open_data, scaled
from braintumor.evaluation import metrics
from braintumor.evaluation.scores import gather
from braintumor.training.augmentation import as_input

PUBLISHED = "results/full"  # the run whose networks are in models/


def load_network(path):
    """A network from a .keras file, not compiled. Code that the file holds is not run.

    Raises DatasetError, naming the file, if it is not there, is damaged, or would need code of its own: a Lambda layer,
    a class or function from elsewhere, anything pickled.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras answers with half a dozen exception types
        raise DatasetError(
            f"{path}: cannot be loaded as a network, and code that it may hold is not run ({in_short(error)}); "
            "get the file again, or train its fold anew"
        ) from None


def network_file(run, task, fold):
    """Where the network of a fold of a run's task ("classify" or "segment") is kept, whether or not it is there.

    That is its run's folder, but models/ for a fold of the published run that was not trained here.
    """
    path = ROOT / Path(run) / task / f"fold-{fold}" / "model.keras"
    if ROOT / Path(run) == ROOT / PUBLISHED and not path.exists():
        return ROOT / "models" / f"fold-{fold}.keras"
    return path


def load_models(run, task, folds):
    """The networks of some folds of a run's task, from their `network_file`, as `load_network` loads them.

    Of a network for both tasks, the answer to this one.
    """
    models = []
    for fold in folds:
        model = load_network(network_file(run, task, fold))
        output = getattr(model, "output", None)  # a loaded Sequential has none before it is asked
        models.append(keras.Model(model.input, output[task]) if isinstance(output, dict) else model)
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
    return dice_mask(np.mean(maps, axis=0), image.shape[0])


def native_mask(probability, size):
    """A network's probability map (side, side) as a mask at a slice's own size: enlarged linearly, cut at one half."""
    enlarged = Image.fromarray(np.asarray(probability, np.float32)).resize((size, size), Image.BILINEAR)
    return np.asarray(enlarged) >= 0.5


def dice_mask(probability, size):
    """A network's probability map (side, side) as the mask (size, size) of a slice that is known to hold a tumor.

    Enlarged linearly, and cut where the expected Dice is greatest (Dai and Li 2023, to first order): with the k most
    probable pixels drawn that is 2 * (sum of their probabilities) / (k + sum of all probabilities). Something is always
    drawn, unless every probability is 0.
    """
    enlarged = np.asarray(Image.fromarray(np.asarray(probability, np.float32)).resize((size, size), Image.BILINEAR))
    ordered = np.sort(enlarged, axis=None)[::-1]
    sums = np.cumsum(ordered, dtype=float)
    expected = 2 * sums / (np.arange(1, sums.size + 1) + sums[-1])
    return (enlarged >= ordered[expected.argmax()]) & (enlarged > 0)


def dice_masks(prepared, rows, maps):
    """`dice_mask` of the maps (n, side, side) of some rows of a prepared set, at each slice's own size: a list."""
    return [dice_mask(one, size) for one, size in zip(maps, prepared.index["size"].iloc[rows], strict=True)]


def mask_scores(prepared, rows, maps):
    """Score probability maps (n, side, side) of some rows of a prepared set, or masks from `dice_masks`, at each
    slice's own size; maps are cut at one half.

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
