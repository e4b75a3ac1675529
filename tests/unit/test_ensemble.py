"""The ensemble: each fold by the networks that held it out, and by no other."""

import json
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
from ensemble import predict_ensemble
from export_onnx import network_name

from braintumor.data.splits import FOLDS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import load_predictions
from braintumor.models.joint import build_joint, to_float16_weights
from braintumor.models.tta import predict_views

pytestmark = pytest.mark.usefixtures("deterministic")
PARAMETERS = {"image_size": 64, "head_size": 32, "protocol": "official", "seed": 1}
PARAMETERS |= {"experiment_log": "", "task": "classify", "threads": 1}


@pytest.fixture(scope="module")
def networks(prepared, tmp_path_factory):
    """A run of two variants of untrained networks: {name: network}, and its folder."""
    run, networks = tmp_path_factory.mktemp("run"), {}
    for shift in (1, 2):
        for fold in FOLDS:
            keras.utils.set_random_seed(10 * shift + fold)
            network = to_float16_weights(build_joint(32, filters=2))
            parameters = PARAMETERS | {"fold": fold, "validation_shift": shift}
            folder = run / f"shift-{shift}" / "joint" / "classify" / f"fold-{fold}"
            folder.mkdir(parents=True)
            network.save(folder / "model.keras")
            record = {"parameters": parameters, "data": prepared.info, "seconds": 1.0}
            (folder / "run.json").write_text(json.dumps(record))
            networks[network_name(parameters)] = network
    return networks, run


def test_each_fold_is_predicted_by_the_networks_that_held_it_out(
    networks, prepared, phantom_folder
):
    networks, run = networks
    assert len(networks) == 10
    paths = sorted(run.glob("*/joint/classify/*/run.json"))
    predict_ensemble(str(phantom_folder), paths, run)
    table, records = load_predictions(run / "joint", "classify")
    masks, _ = load_predictions(run / "joint", "segment")
    assert sorted(table["file"]) == sorted(masks["file"]) == sorted(prepared.index.file)
    for record in records:
        fold, names = record["parameters"]["fold"], record["networks"]
        assert len(names) == 4 and all(str(fold) in name for name in names)
        folder = run / "joint" / "classify" / f"fold-{fold}"
        validation = pd.read_csv(folder / "validation.csv")
        assert set(validation["file"]) == set(table.loc[table["fold"] != fold, "file"])
    rows = np.flatnonzero(prepared.index["fold"] == fold)[:4]
    x, outputs = prepared.images[rows] / np.float32(255), []
    for name in names:
        predict = partial(networks[name].predict, verbose=0)
        outputs.append(predict_views(predict, x, 32, zooms=(1.0,))["classify"])
    files = prepared.index["file"].iloc[rows]
    probabilities = table.set_index("file").loc[files, PROBABILITY_COLUMNS]
    assert np.allclose(probabilities, np.mean(outputs, axis=(0, 2)), atol=1e-5)
