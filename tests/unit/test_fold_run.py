"""The result of a fold, its record, and how pages show records."""

import json

import keras
import pandas as pd
import pytest

from braintumor.core.files import ROOT
from braintumor.plots.provenance import show_data, show_provenance
from braintumor.training import fold_run
from braintumor.training.fold_run import FoldRun, read_table
from braintumor.training.provenance import collect_environment, group_by_training

PUBLISHED = ROOT / "results/published"

PARAMETERS = {
    "data": "phantom",
    "results": "results/tiny",
    "protocol": "official",
    "fold": 1,
    "epochs": 2,
    "threads": 2,
    "tasks": ("classify",),
}
INFO = {
    "kind": "phantom",
    "digest": "0123",
    "size": 64,
    "percentiles": [1, 99.5],
    "slices": 9,
    "folds": "given",
    "source": "/some/folder",
}
TABLE = pd.DataFrame({"file": ["1.mat", "2.mat"], "pid": ["007", "8"], "score": 1 / 3})


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(fold_run, "ROOT", tmp_path)
    return tmp_path


def make_run(data_info=INFO, **changes):
    return FoldRun("labs/tiny", PARAMETERS | changes, data_info)


def finish(run, validation=None):
    """Do what a notebook does after training."""
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "seconds": [1.5, 2.5]})
    history.to_csv(run.checkpoint_dir / "history.csv", index=False)
    for name in ("best", "epoch-2", ".partial"):
        (run.checkpoint_dir / f"{name}.weights.h5").write_text("weights")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    run.save(model, TABLE, validation)
    return run


def list_names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_finished_run_is_complete(root):
    run = make_run()
    assert not run.is_finished and run.record == {}
    finish(run, TABLE)
    assert run.is_finished and run.directory == root / "results/tiny/fold-1"
    names = ["history.csv", "model.keras", "predictions.csv", "run.json"]
    assert list_names(run.directory) == [*names, "validation.csv"]
    assert run.load_history()["epoch"].tolist() == [1, 2]
    assert run.load_predictions()["pid"].tolist() == ["007", "8"]
    table = read_table(run.directory / "validation.csv")
    assert table["score"].tolist() == [0.333333] * 2
    record = run.record
    assert record["notebook"] == "labs/tiny"
    assert (record["epochs"], record["seconds"]) == (2, 4.0)
    assert record["parameters"]["fold"] == 1
    assert record["data"] == {name: INFO[name] for name in INFO if name != "source"}
    assert record["threads"] == 2 and record["git"] and record["packages"]["keras"]


def test_result_counts_for_the_same_parameters_and_pixels_only():
    run = finish(make_run())
    neutral = {"data": "/elsewhere", "threads": 1, "description": "again"}
    assert make_run(**neutral, experiment_log="results/log.csv").is_finished
    for changes in ({"epochs": 3}, {"tasks": ("segment",)}, {"new_parameter": 1}):
        assert not make_run(**changes).is_finished
    assert make_run(INFO | {"source": "/elsewhere"}).is_finished
    assert not make_run(INFO | {"digest": "4567"}).is_finished
    record = run.record | {"digest": "ab" * 32}  # as the first edition wrote
    (run.directory / "run.json").write_text(json.dumps(record))
    assert run.is_finished


def test_checkpoints_stay_for_the_same_settings_and_part_only(root):
    checkpoint = make_run().checkpoint_dir / "epoch-1.weights.h5"
    checkpoint.write_text("weights")
    assert (make_run(threads=1).checkpoint_dir / checkpoint.name).exists()
    other = make_run(epochs=3).checkpoint_dir
    assert other == checkpoint.parent and not checkpoint.exists()
    runs = [make_run(part=part) for part in ("unet", "unet-bce")]
    assert runs[1].directory == root / "results/tiny/unet-bce"
    assert runs[0].checkpoint_dir != runs[1].checkpoint_dir


def test_older_result_stays_until_the_new_one_is_saved(monkeypatch):
    finish(make_run())
    newer = make_run(epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(fold_run, "collect_environment", lambda threads: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finish(newer)
    assert make_run().is_finished and not newer.is_finished
    assert (newer.checkpoint_dir / "best.weights.h5").exists()
    finish(newer)
    assert newer.is_finished and not make_run().is_finished


# Records


def test_environment_has_versions_and_resources():
    environment = collect_environment(threads=3)
    assert environment["packages"]["keras"] == keras.__version__
    assert environment["packages"][keras.config.backend()]
    assert environment["threads"] == 3 and environment["processor"]
    assert environment["peak_memory_mb"] > 50
    assert set(environment["git"]) == {"commit", "clean"}
    assert collect_environment(threads=0)["threads"] >= 1


def record(fold, note="", **parameters):
    """A published run.json with other parameters."""
    path = PUBLISHED / f"full/classify/fold-{fold}/run.json"
    record = json.loads(path.read_text())
    record["parameters"] |= parameters
    return record | {"processor": "CPU <1>"} | ({"note": note} if note else {})


def test_records_of_a_joint_network_are_one_training():
    tasks = ("classify", "segment")
    records = [record(fold, task=task) for fold in (1, 2) for task in tasks]
    assert group_by_training(records) == [records[:2], records[2:]]


def test_provenance_is_folded_under_a_banner_with_the_data():
    html = show_data(record(1)["data"]).data
    assert 'class="data-banner"' in html and "3,064 slices" in html
    html = show_provenance([record(1), record(2), record(3)]).data
    assert html.startswith("<details") and "3 trainings<" in html
    assert html.count("<tr>") == 4
    assert "protocol official" in html and "processor CPU &lt;1&gt;" in html
    assert '<th scope="col">protocol' not in html
    other = record(2, description="no augmentation", note="restarted")
    html = show_provenance([record(1), other]).data
    assert "<td>no augmentation</td>" in html and "<p>restarted</p>" in html
