"""The labs that train, run by papermill with tiny parameters on a tiny phantom."""

import json
import re
from functools import partial

import keras
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from braintumor.core.files import ROOT
from braintumor.core.parameters import notebook_parameters
from braintumor.models.tta import predict_views

LABS = ["01_explore", "02_classify", "03_segment", "04_joint", "08_original"]
SLICE = ["file", "pid", "fold", "y_true"]
PROBABILITIES = ["prob_meningioma", "prob_glioma", "prob_pituitary"]
COLUMNS = {
    "classify": [*SLICE, *PROBABILITIES],
    "segment": [*SLICE, "dice", "iou", "hd95_mm", "area_true", "area_pred"],
}
# the leakage study's settings of the two single-task labs
ORIGINAL = {"epochs": 1, "scaling": "minmax", "shear": 0.0035, "fill": "nearest"}
JOINT = {"epochs": 1, "image_size": 64, "head_size": 32, "filters": 16}


@pytest.fixture(scope="module")
def execute(make_project, phantom_folder, tmp_path_factory):
    """execute(lab, results, **parameters) in a copy of the project: the notebook."""
    project = make_project(tmp_path_factory.mktemp("labs"))

    def execute(lab, results=None, **parameters):
        path = project.folder / "notebooks" / "labs" / f"{lab}.ipynb"
        out = project.folder / "out.ipynb"
        if results:
            parameters = {"results": str(results), "threads": 1} | parameters
        parameters = {"data": str(phantom_folder)} | parameters
        options = {"cwd": str(project.folder), "progress_bar": False}
        papermill.execute_notebook(str(path), str(out), parameters, **options)
        return nbformat.read(out, 4)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(project.folder / "lib"))
        yield execute


def count_figures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    html = [str(output.get("data", {}).get("text/html")) for output in outputs]
    return sum("<figcaption" in text for text in html)


@pytest.mark.parametrize("lab", LABS)
def test_commands_change_parameters_that_the_lab_has(lab):
    cells = nbformat.read(ROOT / "notebooks" / "labs" / f"{lab}.ipynb", 4).cells
    text = "\n".join(cell.source for cell in cells)
    commands = re.findall(r"papermill [^`\n]*\.ipynb out\.ipynb", text)
    names = re.findall(r"-p (\w+) |-y '(\w+): ", " ".join(commands))
    assert all(f"notebooks/labs/{lab}.ipynb" in command for command in commands)
    assert {a or b for a, b in names} <= set(notebook_parameters(f"labs/{lab}", {}))


WRONG = {
    "02_classify": {"epoch": 2},
    "03_segment": {"fold": "three"},
    "04_joint": {"tasks": ["clasify"]},
    "08_original": {"parts": []},
}


@pytest.mark.parametrize("lab", WRONG)
def test_wrong_parameter_stops_before_anything_is_computed(execute, tmp_path, lab):
    (name,) = WRONG[lab]
    with pytest.raises(PapermillExecutionError, match=name) as caught:
        execute(lab, tmp_path / "results", **WRONG[lab])
    assert caught.value.ename == "ParameterError"
    assert not (tmp_path / "results").exists()


def check_fold(folder, lab, task, fold):
    """Check what the training of a fold leaves in its folder."""
    for name in ("predictions", "validation"):
        table = pd.read_csv(folder / f"{name}.csv")
        assert list(table) == COLUMNS[task] and table["fold"].eq(fold).all()
    record = json.loads((folder / "run.json").read_text())
    assert (record["notebook"], record["parameters"]["fold"]) == (f"labs/{lab}", fold)
    assert record["epochs"] == len(pd.read_csv(folder / "history.csv"))
    assert (folder / "model.keras").exists()


@pytest.mark.slow
def test_explore_plots_the_slices(execute):
    assert count_figures(execute("01_explore", image_size=64)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("lab", ["02_classify", "03_segment"])
def test_single_task_trains_as_in_the_leakage_study(execute, tmp_path, lab):
    settings = {"network": "original", "schedule": "plateau"}
    settings = {"filters": 16, "threshold": "half"} if "segment" in lab else settings
    notebook = execute(lab, tmp_path, fold=2, **ORIGINAL, **settings)
    check_fold(tmp_path / "fold-2", lab, lab[3:], 2)
    history = pd.read_csv(tmp_path / "fold-2" / "history.csv")
    assert ("learning_rate" in history) == (lab == "02_classify")  # on a plateau
    assert count_figures(notebook) >= 5


@pytest.mark.slow
def test_joint_lab_evaluates_validation_patients_only(execute, tmp_path):
    settings = {"tasks": ["segment"], "eval_split": "validation", "network": "original"}
    settings |= JOINT | {"head_size": 64}
    execute("04_joint", tmp_path, **settings)
    folder = tmp_path / "segment" / "fold-1"
    finished = (folder / "run.json").stat().st_mtime_ns
    execute("04_joint", tmp_path, **settings | {"threads": 2})  # is not trained again
    assert (folder / "run.json").stat().st_mtime_ns == finished
    check_fold(folder, "04_joint", "segment", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["segment"]
    predictions = (folder / "predictions.csv").read_text()
    assert predictions == (folder / "validation.csv").read_text()


@pytest.mark.slow
def test_saved_joint_network_gives_the_predictions(execute, prepared, tmp_path):
    log = tmp_path / "experiments.csv"
    precision = {"precision": "mixed_bfloat16", "experiment_log": str(log)}
    execute("04_joint", tmp_path, **JOINT, **precision)
    for task in ("classify", "segment"):
        check_fold(tmp_path / task / "fold-1", "04_joint", task, 1)
    folder = tmp_path / "classify" / "fold-1"
    network = keras.models.load_model(folder / "model.keras", compile=False)
    for weight in network.get_weights():
        assert np.array_equal(weight, weight.astype("float16"))
    table = pd.read_csv(folder / "predictions.csv")
    rows = prepared.index["file"].isin(table["file"]).to_numpy()
    predict, x = partial(network.predict, verbose=0), prepared.images[rows] / 255
    outputs = predict_views(predict, x.astype("float32"), network.input_shape[1])
    probabilities = outputs["classify"].mean(axis=1)
    np.testing.assert_allclose(probabilities, table[PROBABILITIES], atol=1e-5)
    assert pd.read_csv(log)["eval_split"].tolist() == ["validation", "test"]


@pytest.mark.slow
def test_original_study_trains_the_parts_that_are_listed(execute, tmp_path):
    small = {"epochs": 1, "segment_epochs": 1, "filters": 2, "n_bootstrap": 5}
    execute("08_original", tmp_path, parts=["ensemble", "unet-bce"], **small)
    scores = json.loads((tmp_path / "scores.json").read_text())
    members = {"member-1", "member-2", "member-3"}
    assert set(scores["classify"]) == members | {"ensemble"}
    assert set(scores["segment"]) == {"unet-bce"}
    tables = [pd.read_csv(tmp_path / part / "predictions.csv") for part in members]
    mean = sum(table[PROBABILITIES] for table in tables) / len(members)
    ensemble = pd.read_csv(tmp_path / "ensemble.csv")[PROBABILITIES]
    np.testing.assert_allclose(ensemble, mean, atol=1e-4)
