"""Data banner and provenance."""

import json

import pytest

from braintumor.core.files import ROOT
from braintumor.plots.provenance import show_data, show_provenance

INFO = {"kind": "phantom", "folds": "cvind", "slices": 1234, "size": 64}


def record(fold, **changes):
    """A run.json as training writes it."""
    parameters = {"fold": fold, "protocol": "official", "seed": 1}
    return {
        "notebook": "labs/02_classify",
        "parameters": parameters | changes.pop("parameters", {}),
        "data": INFO | {"digest": "d" * 64},
        "epochs": 7,
        "seconds": 90.0,
        "peak_memory_mb": 1500,
        "processor": "CPU <1>",
        "threads": 1,
        "python": "3.12",
        "packages": {"keras": "3.9.9"},
        "git": {"commit": "a" * 40, "clean": True},
        "finished": f"2026-01-0{fold} 09:00 UTC",
    } | changes


@pytest.mark.parametrize("kind", ["phantom", "figshare", "figshare-jpeg", "folder"])
@pytest.mark.parametrize("folds", ["cvind", "given", "made"])
def test_banner_names_data_and_folds(kind, folds):
    html = show_data(INFO | {"kind": kind, "folds": folds}).data
    assert 'class="data-banner"' in html and "1,234 slices" in html


def test_provenance_is_folded_and_has_a_row_per_training():
    html = show_provenance([record(1), record(2), record(3)]).data
    assert html.startswith("<details") and "3 trainings<" in html
    assert html.count("<tr>") == 4
    assert "protocol official" in html and "processor CPU &lt;1&gt;" in html
    assert '<th scope="col">protocol' not in html


def test_both_tasks_of_a_joint_network_are_one_training():
    tasks = [record(1, parameters={"task": task}) for task in ("classify", "segment")]
    assert "1 training<" in show_provenance(tasks).data


def test_columns_show_what_differs():
    other = record(1, parameters={"description": "no augmentation"}, note="restarted")
    html = show_provenance([record(1, seconds=91.0), other]).data
    assert "no augmentation" in html and "<p>restarted</p>" in html


def test_published_records_are_shown():
    for path in (ROOT / "results" / "published").rglob("run.json"):
        assert "<details" in show_provenance([json.loads(path.read_text())]).data
