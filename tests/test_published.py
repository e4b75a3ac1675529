"""The committed results: whole, of one data set and one budget, and kept apart as their protocol promises."""

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from braintumor.core.files import ROOT
from braintumor.data import splits
from braintumor.evaluation import scores as evaluate
from braintumor.evaluation.metrics import PROBABILITIES, predicted_label
from braintumor.inference import predictor as inference
from braintumor.training.provenance import run_digest

LEAKAGE = ROOT / "results" / "leakage"
BOTH = [
    path for name in ("full", "full-family", "trials") for path in (ROOT / "results" / name).rglob("fold-*/run.json")
]


@pytest.fixture(scope="module")
def tables():
    """Protocol to (predictions of all five folds, their run.json)."""
    return {protocol: evaluate.gather(LEAKAGE, protocol) for protocol in splits.PROTOCOLS}


def test_each_slice_is_predicted_once_under_each_protocol(tables):
    known = pd.read_csv(ROOT / "lib/braintumor/data/figshare.csv", dtype={"pid": str})
    for table, records in tables.values():
        assert len(records) == 5 and table["file"].tolist() == known["file"].tolist() == list(range(1, 3065))
        assert table[["pid", "label"]].equals(known[["pid", "label"]])
        assert np.allclose(table[PROBABILITIES].sum(axis=1), 1, atol=1e-5)


def test_all_folds_have_one_data_set_and_one_budget(tables):
    records = [record for _, those in tables.values() for record in those]
    evaluate.refuse_mixed(LEAKAGE, records, varying=["protocol"])
    assert {record["data"]["kind"] for record in records} == {"figshare-jpeg"}
    assert all(record["git"]["commit"] and record["git"]["clean"] for record in records)
    for record in records:
        folder = LEAKAGE / record["parameters"]["protocol"] / f"fold-{record['parameters']['fold']}"
        assert len(pd.read_csv(folder / "history.csv")) == record["epochs"] == record["parameters"]["epochs"]


def test_patients_and_families_are_kept_apart_as_promised(tables):
    def divided(protocol, group):
        table, _ = tables[protocol]
        return (table.groupby(group(table))["fold"].nunique() > 1).sum()

    def patient(table):
        return table["pid"]

    def family(table):
        return table["pid"].map(splits.family)

    assert divided("official", patient) == divided("family", patient) == divided("family", family) == 0
    assert divided("official", family) == 15 and divided("slice", patient) > 200


def test_masks_are_scored_once_on_the_same_folds_with_one_budget(tables):
    records = []
    for protocol, (classified, _) in tables.items():
        segmented, own = evaluate.gather(LEAKAGE / "segment", protocol)
        assert segmented[["file", "pid", "fold", "label"]].equals(classified[["file", "pid", "fold", "label"]])
        assert segmented[["dice", "iou"]].stack().between(0, 1).all() and (segmented["area_true"] > 0).all()
        records += own
    evaluate.refuse_mixed(LEAKAGE / "segment", records, varying=["protocol"])


def test_scores_of_the_original_split_are_those_of_its_tables():
    folder = LEAKAGE / "original"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["data"]["kind"] == "figshare-jpeg" and scores["data"]["slices"] == 3064
    tables = {part: pd.read_csv(folder / part / "predictions.csv", dtype={"pid": str}) for part in scores["runs"]}
    members = [tables[part][PROBABILITIES] for part in sorted(tables) if part.startswith("member")]
    tables["ensemble"] = pd.read_csv(folder / "ensemble.csv", dtype={"pid": str})
    assert np.allclose(tables["ensemble"][PROBABILITIES], sum(members) / 3, atol=1e-4)
    for part, row in scores["classify"].items():
        table = tables[part]
        assert (len(table), int((predicted_label(table) == table["label"]).sum())) == (row["slices"], row["right"])
    assert scores["classify"]["single"]["slices"] == 358 and scores["classify"]["ensemble"]["slices"] == 301
    for part, row in scores["segment"].items():
        assert tables[part]["dice"].mean() == pytest.approx(row["mean Dice"]["value"], abs=1e-6)


def test_folds_are_those_of_the_code_as_it_is():
    """A change of what trains makes them stale: then train them again, or show that nothing else comes out."""
    records = [json.loads(path.read_text()) for path in [*LEAKAGE.rglob("run.json"), *BOTH]]
    stale = [
        record["parameters"]
        for record in records
        if run_digest(record["notebook"], record["parameters"], SimpleNamespace(about=record["data"]))
        != record["digest"]
    ]
    assert records and not stale


def test_networks_for_both_tasks_answered_patients_that_they_never_saw(tables):
    """Test folds hold the slices of their protocol's fold; settings were looked at on patients of other folds."""
    assert BOTH
    for path in BOTH:
        record = json.loads(path.read_text())
        given = record["parameters"]
        folds = tables[given["protocol"]][0].set_index("file")["fold"]
        assert record["data"]["kind"] == "figshare-jpeg" and record["git"]["commit"] and record["git"]["clean"]
        assert len(pd.read_csv(path.parent / "history.csv")) == record["epochs"] == given["epochs"]
        own = folds.index[folds == given["fold"]]
        predicted, validation = (
            pd.read_csv(path.parent / f"{name}.csv", dtype={"pid": str}) for name in ("predictions", "validation")
        )
        assert not set(validation["file"]) & set(own) and (validation["fold"] == given["fold"]).all()
        wanted = own if given["scored"] == "test" else validation["file"]
        assert sorted(predicted["file"]) == sorted(wanted)
        if given["task"] == "classify":
            assert np.allclose(predicted[PROBABILITIES].sum(axis=1), 1, atol=1e-5)
        else:
            assert predicted["dice"].between(0, 1).all() and (predicted["area_true"] > 0).all()


def test_published_scores_are_those_of_the_tables_and_the_slices_all_that_there_are():
    full = {task: evaluate.gather(ROOT / "results/full", task)[0] for task in ("classify", "segment")}
    known = pd.read_csv(ROOT / "lib/braintumor/data/figshare.csv", dtype={"pid": str})
    scores = json.loads((ROOT / "results/full/scores.json").read_text())
    for table in full.values():
        assert table[["file", "pid", "label"]].equals(known[["file", "pid", "label"]])
    for name, value in evaluate.quick_scores(full).items():
        task = evaluate.QUICK_SCORES[name][0]
        if name in scores[task]:
            assert value == pytest.approx(scores[task][name]["value"], abs=1e-6)


def test_each_look_at_a_fold_of_the_published_run_is_written_down():
    tried = pd.read_csv(ROOT / "results/full/tried.csv", dtype={"digest": str})
    for path in (ROOT / "results/full/classify").glob("fold-*/run.json"):
        record = json.loads(path.read_text())
        rows = tried[tried["digest"] == record["digest"][:12]]
        again = ["finished", "commit", "change", "minutes"]  # all else came out the same when it was trained anew
        looks = rows.drop(columns=again).drop_duplicates()
        assert sorted(looks["part"]) == ["test", "validation"] and set(looks["fold"]) == {record["parameters"]["fold"]}


def test_networks_and_their_card_belong_to_the_published_run():
    folder = ROOT / "models"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    card = runpy.run_path(str(ROOT / "workflow/publish_models.py"))["card"]
    assert card("results/full") == (folder / "README.md").read_text()


def test_slices_asked_one_by_one_get_the_published_answers():
    """By the function behind `braintumor predict --held-out`: all slices, with the networks that are published."""
    folder = ROOT / "results/full/trust"
    record = json.loads((folder / "run.json").read_text())
    assert record["git"]["commit"] and record["git"]["clean"] and record["data"]["kind"] == "figshare-jpeg"
    assert record["networks"] == {
        f"fold-{fold}": inference.sha256(ROOT / f"models/fold-{fold}.keras") for fold in splits.FOLDS
    }
    asked = pd.read_csv(folder / "slices.csv", dtype={"pid": str})
    classified, segmented = (evaluate.gather(ROOT / "results/full", task)[0] for task in ("classify", "segment"))
    assert asked["file"].tolist() == classified["file"].tolist()
    assert asked["called"].tolist() == predicted_label(classified).tolist()
    assert np.allclose(asked["dice"], segmented["dice"], atol=1e-4)


def test_audit_is_of_the_same_folds(tables):
    for protocol, (table, _) in tables.items():
        audit = pd.concat(pd.read_csv(LEAKAGE / f"audit/{protocol}-{fold}.csv") for fold in splits.FOLDS)
        assert audit.set_index("file")["fold"].sort_index().tolist() == table["fold"].tolist()
        assert audit["pid_seen"].mean() > 0.9 if protocol == "slice" else not audit["pid_seen"].any()
