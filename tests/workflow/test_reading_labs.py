"""The labs that read tables and networks, run by papermill with few resamples."""

import json
import re
import shutil
from functools import partial

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from braintumor.core.files import ROOT, write_json
from braintumor.data.labels import LABELS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.models.joint import build_joint
from braintumor.models.tta import predict_views
from braintumor.training.fold_run import FoldRun

PUBLISHED = "results/published"
PARAMETERS = {"image_size": 64, "head_size": 32, "fold": 2, "protocol": "official"}
SCORES = {"dice": 0.5, "iou": 0.4, "hd95_mm": 9.0, "area_true": 50, "area_pred": 60}
LOSSES = ["loss", "classify_loss", "segment_loss"]
HISTORY = {f"{part}{name}": 1.0 for name in LOSSES for part in ("", "val_")}


@pytest.fixture(scope="module")
def execute(make_project, tmp_path_factory):
    """execute(lab, **parameters) in a copy of the project: cells, and outputs."""
    folder = make_project(tmp_path_factory.mktemp("labs")).folder
    shutil.copytree(ROOT / PUBLISHED, folder / PUBLISHED)
    out = str(folder / "out.ipynb")

    def execute(lab, **parameters):
        path = str(folder / "notebooks" / "labs" / f"{lab}.ipynb")
        papermill.execute_notebook(path, out, parameters, cwd=str(folder))
        cells = nbformat.read(out, 4).cells
        return cells, str([cell.get("outputs") for cell in cells])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "lib"))
        yield execute


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """A joint run of one fold, whose network is not trained."""
    folder, network = tmp_path_factory.mktemp("run"), build_joint(32, filters=4)
    rows = np.flatnonzero(prepared.index["fold"] == 2)
    table = prepared.index.iloc[rows].rename(columns={"label": "y_true"})
    table = table[["file", "pid", "y_true"]].assign(fold=2).reset_index(drop=True)
    tables = {"segment": table.assign(**SCORES), "classify": table}
    predict, x = partial(network.predict, verbose=0), prepared.images[rows] / 255
    outputs = predict_views(predict, x.astype("float32"), 32)
    table[PROBABILITY_COLUMNS] = outputs["classify"].mean(axis=1)
    history = pd.DataFrame([HISTORY]).assign(epoch=1, seconds=1.0)
    for task, table in tables.items():
        parameters = PARAMETERS | {"results": f"{folder}/{task}", "threads": 1}
        fold_run = FoldRun("labs/04_joint", parameters, prepared.info)
        history.to_csv(fold_run.checkpoint_dir / "history.csv")
        fold_run.save(network, table, table)
    return folder


def test_metrics_lab_compares_the_coverage_of_intervals(execute):
    _, outputs = execute("00_metrics", n_studies=40)
    coverage = re.findall(r"(?:patients|slices) +(0\.\d+|1\.0)", outputs)
    assert float(coverage[-2]) > float(coverage[-1])


def test_own_run_is_evaluated_with_and_without_a_history(
    execute, run, phantom_folder, tmp_path
):
    parameters = {"run": str(run), "data": str(phantom_folder), "n_bootstrap": 20}
    parameters |= {"compared_runs": [f"{run}/../{run.name}"], "save_scores": True}
    outputs = execute("05_evaluate", **parameters)[1]
    assert re.search("plane +(axial|coronal)", outputs) and "Epochs kept" in outputs
    assert "mean Dice" in json.loads((run / "scores.json").read_text())["segment"]
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").glob("*/fold-2"):
        (path / "history.csv").unlink()
        record = json.loads((path / "run.json").read_text())
        write_json(path / "run.json", record | {"networks": ["a", "b"]})
    cells, outputs = execute("05_evaluate", run=str(tmp_path / "run"), n_bootstrap=20)
    assert "networks" in outputs and "Epochs kept" not in outputs


def test_published_run_is_evaluated_but_its_scores_are_not_saved(execute):
    parameters = {"run": f"{PUBLISHED}/first-edition", "n_bootstrap": 20}
    assert "0.948" in execute("05_evaluate", **parameters)[1]
    with pytest.raises(PapermillExecutionError, match="save_scores"):
        execute("05_evaluate", save_scores=True, **parameters)


def test_slice_is_predicted_by_the_fold_that_held_it_out(execute, run, phantom_folder):
    parameters = {"run": str(run), "data": str(phantom_folder)}
    table = pd.read_csv(run / "classify" / "fold-2" / "predictions.csv")
    y_pred = LABELS[table.loc[0, PROBABILITY_COLUMNS].to_numpy().argmax() + 1]
    _, outputs = execute("06_predict", **parameters)
    assert re.search(f"slice {table['file'][0]} +{y_pred} ", outputs)
    file = next(n for n in range(1, 100) if n not in set(table["file"]))
    with pytest.raises(PapermillExecutionError, match=f"file: got {file}"):
        execute("06_predict", file=file, **parameters)


def test_exercises_are_solved_from_the_published_tables(execute):
    cells, _ = execute("07_exercises", n_bootstrap=50)
    tags = [cell.metadata.get("tags", []) for cell in cells if cell.cell_type == "code"]
    assert tags.count(["solution", "remove-cell"]) == tags.count(["check"]) == 29
