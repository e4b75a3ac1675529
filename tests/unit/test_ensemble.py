"""The ensemble: each fold by the networks that held it out, and by no other."""

import json
from itertools import product

import ensemble
import numpy as np
import pandas as pd
import pytest

from braintumor.data.splits import FOLDS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.evaluation.scores import load_predictions
from braintumor.inference.predictor import network_name
from braintumor.models.joint import build_joint, to_float16_weights
from braintumor.models.tta import predict_views

pytestmark = pytest.mark.usefixtures("deterministic")
SIZES = {1: 32, 2: 48}  # of the head, by seed
PARAMETERS = {"image_size": 64, "protocol": "official", "experiment_log": ""}
PARAMETERS |= {"task": "classify", "threads": 1}


def save_networks(run, info):
    """Save two networks per fold; returns {name: network}."""
    networks = {}
    for fold, (seed, size) in product(FOLDS, SIZES.items()):
        network = to_float16_weights(build_joint(size, filters=2))
        parameters = PARAMETERS | {"fold": fold, "seed": seed, "head_size": size}
        folder = run / f"seed-{seed}" / "joint" / "classify" / f"fold-{fold}"
        folder.mkdir(parents=True)
        network.save(folder / "model.keras")
        record = {"parameters": parameters, "data": info, "seconds": 1.0}
        (folder / "run.json").write_text(json.dumps(record))
        networks[network_name(parameters)] = network
    return networks


def test_each_fold_is_predicted_by_the_networks_that_held_it_out(
    prepared, tmp_path, monkeypatch
):
    run, networks = tmp_path, save_networks(tmp_path, prepared.info)
    monkeypatch.setattr(ensemble, "open_data", lambda *_: prepared)
    paths = sorted(run.glob("*/joint/classify/*/run.json"))
    ensemble.predict_ensemble("phantom", paths, run)
    table, records = load_predictions(run / "joint", "classify")
    masks, _ = load_predictions(run / "joint", "segment")
    assert sorted(table["file"]) == sorted(masks["file"]) == sorted(prepared.index.file)
    for record in records:
        fold, names = record["parameters"]["fold"], record["networks"]
        assert names == [f"without-{fold}", f"without-{fold}_seed2"]
        assert not {"seed", "head_size"} & {*record["parameters"]}  # not shared
        folder = run / "joint" / "classify" / f"fold-{fold}"
        validation = pd.read_csv(folder / "validation.csv")
        assert set(validation["file"]) == set(table.loc[table["fold"] != fold, "file"])
    rows = np.flatnonzero(prepared.index["fold"] == fold)[:4]
    x, outputs = prepared.images[rows] / np.float32(255), []
    for name in names:
        predict, size = networks[name].predict_on_batch, networks[name].input_shape[1]
        outputs.append(predict_views(predict, x, size)["classify"])
    files = prepared.index["file"].iloc[rows]
    probabilities = table.set_index("file").loc[files, PROBABILITY_COLUMNS]
    assert np.allclose(probabilities, np.mean(outputs, axis=(0, 2)), atol=1e-5)
