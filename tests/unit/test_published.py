"""The published results: complete, consistent, and split as their protocol says."""

import json

import numpy as np
import pandas as pd
import pytest

from braintumor.core.files import ROOT, sha256
from braintumor.data.figshare import load_figshare_index
from braintumor.data.splits import FOLDS, PROTOCOLS, patient_family
from braintumor.evaluation import scores
from braintumor.evaluation.metrics import (
    PROBABILITY_COLUMNS,
    calibration_error,
    predict_classes,
    temperature_scale,
)
from braintumor.training.fold_run import read_table

PUBLISHED = ROOT / "results/published"
LEAKAGE, FULL = PUBLISHED / "leakage", PUBLISHED / "full"
TASKS = ("classify", "segment")
JOINT_RUNS = [
    path
    for name in ("full", "full-family", "ablations")
    for path in sorted((PUBLISHED / name).rglob("fold-*/run.json"))
]


@pytest.fixture(scope="module")
def leakage():
    """{(protocol, task): (predictions of all folds, records)}."""
    return {
        (protocol, task): scores.load_predictions(LEAKAGE / protocol, task)
        for protocol in PROTOCOLS
        for task in TASKS
    }


@pytest.fixture(scope="module")
def full():
    """{task: predictions of all folds}."""
    return {task: scores.load_predictions(FULL, task)[0] for task in TASKS}


def check_all_slices(table):
    index = load_figshare_index()
    assert table["file"].tolist() == index.index.tolist() == list(range(1, 3065))
    assert table["pid"].tolist() == index["pid"].tolist()
    assert table["y_true"].tolist() == index["label"].tolist()


def check_values(table, task):
    if task == "classify":
        assert np.allclose(table[PROBABILITY_COLUMNS].sum(axis=1), 1, atol=1e-5)
    else:
        assert table[["dice", "iou"]].stack().between(0, 1).all()
        assert (table["area_true"] > 0).all()


def test_leakage_runs_predict_each_slice_once_on_the_same_folds(leakage):
    for (protocol, task), (table, records) in leakage.items():
        assert len(records) == 5
        check_all_slices(table)
        check_values(table, task)
        assert table["fold"].equals(leakage[protocol, "classify"][0]["fold"])


@pytest.mark.parametrize("task", TASKS)
def test_leakage_runs_have_the_same_data_and_settings(leakage, task):
    records = [r for protocol in PROTOCOLS for r in leakage[protocol, task][1]]
    varying = scores.VARYING_PARAMETERS | {"protocol"}
    for name in records[0]["parameters"].keys() - varying:
        assert len({str(record["parameters"][name]) for record in records}) == 1, name
    assert {record["data"]["kind"] for record in records} == {"figshare-jpeg"}
    assert all(record["git"]["commit"] and record["git"]["clean"] for record in records)
    for protocol in PROTOCOLS:
        records = leakage[protocol, task][1]
        run, name = LEAKAGE / protocol, "history.csv"
        history = scores.load_fold_tables(run, task, records, name)
        for record in records:
            n_epochs = (history["fold"] == record["parameters"]["fold"]).sum()
            assert n_epochs == record["epochs"] == record["parameters"]["epochs"]


def test_patients_and_families_are_grouped_as_the_protocol_says(leakage):
    n_divided = {}
    for protocol in PROTOCOLS:
        table = leakage[protocol, "classify"][0]
        families = table["pid"].map(patient_family)
        for name, groups in (("patients", table["pid"]), ("families", families)):
            n_folds = table.groupby(groups)["fold"].nunique()
            n_divided[protocol, name] = (n_folds > 1).sum()
    assert n_divided["official", "patients"] == n_divided["family", "patients"] == 0
    assert n_divided["family", "families"] == 0
    assert n_divided["official", "families"] == 15
    assert n_divided["slice", "patients"] > 200


def test_audit_is_of_the_same_folds(leakage):
    for protocol in PROTOCOLS:
        paths = [LEAKAGE / f"audit/{protocol}-{fold}.csv" for fold in FOLDS]
        audit = pd.concat([read_table(path) for path in paths]).sort_values("file")
        folds = leakage[protocol, "classify"][0]["fold"]
        assert audit["fold"].tolist() == folds.tolist()
        if protocol == "slice":
            assert audit["pid_seen"].mean() > 0.9
        else:
            assert not audit["pid_seen"].any()


def test_scores_of_the_original_split_are_those_of_its_tables():
    folder = LEAKAGE / "original"
    published = json.loads((folder / "scores.json").read_text())
    tables = {
        part: read_table(folder / part / "predictions.csv")
        for part in published["runs"]
    }
    members = [tables[f"member-{k}"][PROBABILITY_COLUMNS] for k in (1, 2, 3)]
    tables["ensemble"] = read_table(folder / "ensemble.csv")
    ensemble = tables["ensemble"][PROBABILITY_COLUMNS]
    assert np.allclose(ensemble, sum(members) / 3, atol=1e-4)
    for part, row in published["classify"].items():
        is_correct = predict_classes(tables[part]) == tables[part]["y_true"]
        assert (len(is_correct), is_correct.sum()) == (row["slices"], row["right"])
    for part, row in published["segment"].items():
        mean_dice = tables[part]["dice"].mean()
        assert mean_dice == pytest.approx(row["mean Dice"]["value"], abs=1e-6)


@pytest.mark.parametrize(
    "path", JOINT_RUNS, ids=lambda p: str(p.relative_to(PUBLISHED))
)
def test_joint_networks_are_evaluated_on_unseen_patients(leakage, path):
    record = json.loads(path.read_text())
    parameters = record["parameters"]
    assert record["data"]["kind"] == "figshare-jpeg"
    assert record["git"]["commit"] and record["git"]["clean"]
    history = pd.read_csv(path.parent / "history.csv")
    assert len(history) == record["epochs"] == parameters["epochs"]
    table = leakage[parameters["protocol"], "classify"][0]
    test_files = table.loc[table["fold"] == parameters["fold"], "file"]
    predictions = read_table(path.parent / "predictions.csv")
    validation = read_table(path.parent / "validation.csv")
    assert not set(validation["file"]) & set(test_files)
    assert (validation["fold"] == parameters["fold"]).all()
    is_test = parameters["scored"] == "test"
    expected = test_files if is_test else validation["file"]
    assert sorted(predictions["file"]) == sorted(expected)
    check_values(predictions, parameters["task"])


@pytest.mark.parametrize("run", ["full", "full-family"])
def test_published_scores_are_those_of_the_tables(run):
    published = json.loads((PUBLISHED / run / "scores.json").read_text())
    table, records = scores.load_predictions(PUBLISHED / run, "classify")
    check_all_slices(table)
    folder, name = PUBLISHED / run, "validation.csv"
    validation = scores.load_fold_tables(folder, "classify", records, name)
    temperatures = scores.fit_temperatures(validation)
    scaled = temperature_scale(table, table["fold"].map(temperatures))
    computed = scores.summarize_classification(table)
    computed["calibration error with temperature"] = scores.score_with_ci(
        scaled, calibration_error
    )
    segmentation = scores.load_predictions(PUBLISHED / run, "segment")[0]
    check_all_slices(segmentation)
    computed |= scores.summarize_segmentation(segmentation)
    expected = published["classify"] | published["segment"]
    assert computed.keys() == expected.keys()
    for name, score in expected.items():
        assert computed[name] == pytest.approx(score, abs=5e-6), name


def test_each_evaluation_of_the_published_run_is_logged():
    log = pd.read_csv(FULL / "experiments.csv", dtype={"digest": str})
    for fold in FOLDS:
        path = FULL / f"classify/fold-{fold}/run.json"
        digest = json.loads(path.read_text())["digest"]
        rows = log[log["digest"] == digest[:12]]
        # a training that was repeated has several rows with the same scores
        repeated = ["finished", "commit", "description", "minutes"]
        rows = rows.drop(columns=repeated).drop_duplicates()
        assert sorted(rows["eval_split"]) == ["test", "validation"]
        assert set(rows["fold"]) == {fold}


def test_saliency_and_ood_tables_are_of_the_published_networks(full):
    folder = FULL / "saliency_ood"
    record = json.loads((folder / "run.json").read_text())
    assert record["git"]["commit"] and record["git"]["clean"]
    for fold in FOLDS:
        network = ROOT / f"models/fold-{fold}.keras"
        assert record["networks"][f"fold-{fold}"] == sha256(network)
    table = read_table(folder / "slices.csv")
    check_all_slices(table)
    assert table["y_pred"].tolist() == predict_classes(full["classify"]).tolist()
    assert np.allclose(table["dice"], full["segment"]["dice"], atol=1e-4)
