"""The published results: complete, consistent, and split as their protocol requires."""

import json

import numpy as np
import pandas as pd
import pytest

from braintumor.core.files import ROOT, sha256
from braintumor.data.figshare import load_figshare_index
from braintumor.data.splits import FOLDS, assign_folds, patient_family
from braintumor.evaluation import scores
from braintumor.evaluation.metrics import (
    calibration_error,
    predict_classes,
    temperature_scale,
)
from braintumor.inference.predictor import find_networks
from braintumor.training.fold_run import read_table

PUBLISHED = ROOT / "results/published"
PROTOCOLS = ("official", "family", "slice")
LEAKAGE, FULL = PUBLISHED / "leakage", PUBLISHED / "full"
JOINT_RUNS = sorted(
    str(path.relative_to(PUBLISHED))
    for name in ("full", "first-edition", "heads-128", "full-family", "ablations")
    for path in (PUBLISHED / name).rglob("fold-*/")
)


@pytest.fixture(scope="module")
def leakage():
    """{(protocol, task): (predictions of all folds, records)}."""
    return {
        (protocol, task): scores.load_predictions(LEAKAGE / protocol, task)
        for protocol in PROTOCOLS
        for task in ("classify", "segment")
    }


def check_all_slices(table):
    slices = load_figshare_index().rename(columns={"label": "y_true"}).reset_index()
    for name in ("file", "pid", "y_true"):
        assert table[name].tolist() == slices[name].tolist()


def check_record(record):
    assert record["data"]["kind"] == "figshare-jpeg"
    assert record["git"]["commit"] and record["git"]["clean"]
    assert "networks" in record or record["epochs"] == record["parameters"]["epochs"]


def test_leakage_runs_predict_each_slice_once_with_the_same_settings(leakage):
    varying = scores.VARYING_PARAMETERS | {"protocol"}
    for (protocol, task), (table, records) in leakage.items():
        check_all_slices(table)
        assert table["fold"].equals(leakage[protocol, "classify"][0]["fold"])
        assert len(records) == 5
        first = leakage["slice", task][1][0]["parameters"]
        for record in records:
            check_record(record)
            parameters = record["parameters"]
            assert all(parameters[k] == first[k] for k in first.keys() - varying)
    n_divided = {}
    for protocol in PROTOCOLS:  # patients, and families of patients
        table = leakage[protocol, "classify"][0]
        groups = table["pid"], table["pid"].map(patient_family)
        n_folds = [table.groupby(group)["fold"].nunique() for group in groups]
        n_divided[protocol] = [(n > 1).sum() for n in n_folds]
    assert n_divided["official"] == [0, 15] and n_divided["family"] == [0, 0]
    assert n_divided["slice"][0] > 200


def test_scores_of_the_original_split_are_those_of_its_tables():
    folder = LEAKAGE / "original"
    published = json.loads((folder / "scores.json").read_text())
    parts = published["runs"]
    tables = {part: read_table(folder / part / "predictions.csv") for part in parts}
    tables["ensemble"] = read_table(folder / "ensemble.csv")
    for part, row in published["classify"].items():
        is_correct = predict_classes(tables[part]) == tables[part]["y_true"]
        assert (len(is_correct), is_correct.sum()) == (row["slices"], row["right"])
    for part, row in published["segment"].items():
        score = row["mean Dice"]["value"]
        assert tables[part]["dice"].mean() == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("run", JOINT_RUNS)
def test_joint_networks_are_evaluated_on_unseen_patients(leakage, run):
    folder = PUBLISHED / run
    record = json.loads((folder / "run.json").read_text())
    check_record(record)
    parameters = record["parameters"]
    table = leakage["official", "classify"][0].rename(columns={"y_true": "label"})
    table["family"] = table["pid"].map(patient_family)
    seed = parameters.get("seed", 1)  # networks of an ensemble differ in it
    folds = assign_folds(table, parameters["protocol"], seed)
    test_files = table.loc[folds == parameters["fold"], "file"]
    predictions = read_table(folder / "predictions.csv")
    validation = read_table(folder / "validation.csv")
    assert not set(validation["file"]) & set(test_files)
    is_test = parameters.get("eval_split", parameters.get("scored")) == "test"
    expected = test_files if is_test else validation["file"]
    assert sorted(predictions["file"]) == sorted(expected)


@pytest.mark.parametrize("run", ["full", "first-edition", "heads-128", "full-family"])
def test_published_scores_are_those_of_the_tables(run):
    folder = PUBLISHED / run
    published = json.loads((folder / "scores.json").read_text())
    table, records = scores.load_predictions(folder, "classify")
    masks, _ = scores.load_predictions(folder, "segment")
    check_all_slices(table)
    check_all_slices(masks)
    computed = scores.summarize_scores(table, scores.CLASSIFICATION_METRICS)
    computed |= scores.summarize_scores(masks, scores.SEGMENTATION_METRICS)
    parts = folder, "classify", records, "validation.csv"
    temperatures = scores.fit_temperatures(scores.load_fold_tables(*parts))
    scaled = temperature_scale(table, table["fold"].map(temperatures))
    score = scores.score_with_ci(scaled, calibration_error)
    computed["calibration error with temperature"] = score
    expected = published["classify"] | published["segment"]
    assert computed.keys() == expected.keys()
    for name, score in expected.items():
        assert computed[name] == pytest.approx(score, abs=5e-6), name


def test_each_evaluation_of_the_published_run_is_logged():
    log = pd.read_csv(FULL / "experiments.csv", dtype={"digest": str})
    paths = sorted(FULL.rglob("classify/fold-*/run.json"))
    assert len(paths) > len(FOLDS)  # of the ensemble and of its networks
    for record in (json.loads(path.read_text()) for path in paths):
        rows = log[log["finished"] == record["finished"]]
        rows = rows[rows["fold"] == record["parameters"]["fold"]]
        expected = ["test"] if "networks" in record else ["test", "validation"]
        assert sorted(rows["eval_split"]) == expected


def test_saliency_ood_and_outlines_are_of_the_published_networks_and_masks():
    folder = FULL / "saliency_ood"
    networks = {path.stem: sha256(path) for path in find_networks()}
    assert networks == json.loads((folder / "run.json").read_text())["networks"]
    table = read_table(folder / "slices.csv")
    check_all_slices(table)
    predictions = scores.load_predictions(FULL, "classify")[0]
    assert table["y_pred"].tolist() == predict_classes(predictions).tolist()
    masks = scores.load_predictions(FULL, "segment")[0]
    assert np.allclose(table["dice"], masks["dice"], atol=1e-3)  # a pixel by rounding
    outlines = json.loads((FULL / "outlines.json").read_text())
    assert outlines["networks"] == networks
    dice = masks.set_index("file")["dice"]
    groups = pd.DataFrame(outlines["slices"]).groupby("group", sort=False)["dice"]
    assert groups.size().to_dict() == {"good": 8, "typical": 8, "bad": 8}
    assert groups.mean().is_monotonic_decreasing
    for outline in outlines["slices"]:
        assert outline["dice"] == pytest.approx(dice[outline["file"]], abs=1e-4)
