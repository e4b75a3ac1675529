"""Records of trainings, and how pages show them."""

import json

import keras

from braintumor.core.files import ROOT
from braintumor.plots.provenance import show_data, show_provenance
from braintumor.training.provenance import collect_environment, group_by_training

PUBLISHED = ROOT / "results/published"


def test_environment_has_versions_and_resources():
    environment = collect_environment(threads=3)
    assert environment["packages"]["keras"] == keras.__version__
    assert environment["packages"][keras.config.backend()]
    assert environment["threads"] == 3 and environment["processor"]
    assert environment["peak_memory_mb"] > 50
    assert set(environment["git"]) == {"commit", "clean"}
    assert collect_environment(threads=0)["threads"] >= 1


def test_records_of_a_joint_network_are_one_training():
    def make_record(fold, task):
        parameters = {"fold": fold, "task": task}
        facts = {"notebook": "labs/04_joint", "finished": "2026", "seconds": fold}
        return {"parameters": parameters, **facts}

    pairs = [(fold, task) for fold in (1, 2) for task in ("classify", "segment")]
    groups = group_by_training([make_record(*pair) for pair in pairs])
    found = [[record["parameters"]["fold"] for record in group] for group in groups]
    assert found == [[1, 1], [2, 2]]


def record(fold, note="", **parameters):
    """A published run.json with other parameters."""
    path = PUBLISHED / f"full/classify/fold-{fold}/run.json"
    record = json.loads(path.read_text())
    record["parameters"] |= parameters
    return record | {"processor": "CPU <1>"} | ({"note": note} if note else {})


def test_banner_has_the_data():
    html = show_data(record(1)["data"]).data
    assert 'class="data-banner"' in html and "3,064 slices" in html


def test_provenance_is_folded_and_has_a_row_per_training():
    html = show_provenance([record(1), record(2), record(3)]).data
    assert html.startswith("<details") and "3 trainings<" in html
    assert html.count("<tr>") == 4
    assert "protocol official" in html and "processor CPU &lt;1&gt;" in html
    assert '<th scope="col">protocol' not in html
    other = record(2, description="no augmentation", note="restarted")
    html = show_provenance([record(1), other]).data
    assert "<td>no augmentation</td>" in html and "<p>restarted</p>" in html
