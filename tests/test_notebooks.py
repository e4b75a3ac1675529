"""The notebooks, as a reader runs them: by papermill, with tiny parameters, on a tiny phantom."""

import json
import re
import runpy
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from braintumor.core.files import ROOT
from braintumor.evaluation import masks as predict
from braintumor.evaluation.metrics import PROBABILITIES

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def execute(name, out, **parameters):
    papermill.execute_notebook(
        str(ROOT / "notebooks" / f"{name}.ipynb"), str(out), parameters, cwd=str(ROOT), progress_bar=False
    )
    return nbformat.read(out, 4)


def shown(notebook):
    """All text that an executed notebook shows."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/markdown", "")) for o in outputs)


def drawn(notebook):
    """How many figures with a caption an executed notebook shows."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("<figcaption>" in str(output.get("data", {}).get("text/html", "")) for output in outputs)


@pytest.fixture(scope="session")
def trained(phantom_folder, tmp_path_factory):
    """A run of one fold of both tasks: (folder of the run, executed notebooks by name)."""
    run = tmp_path_factory.mktemp("run")
    data = str(phantom_folder)
    return run, {
        name: execute(name, run / f"{name}.ipynb", data=data, results=str(run / task), fold=2, epochs=1, threads=1)
        for task, name in (("classify", "02_classify"), ("segment", "03_segment"))
    }


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_a_lesson_without_outputs(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    first = (":::{admonition} Before you begin", "**You will learn**", "**You need**", "**Minutes:**")
    last = ("## Summary", ":::{admonition} Try it", "**Expect**")
    for place, every in ((0, first), (-1, last)):
        assert [words for words in every if words not in cells[place].source] == []
    assert re.search(r"```bash\n(papermill .*notebooks/|make )", cells[-1].source)


def test_try_it_changes_parameters_that_the_notebook_has():
    for name in NOTEBOOKS:
        cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
        (declared,) = (cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        for line in re.findall(r"^papermill .*$", cells[-1].source, re.M):
            assert line.endswith(f" notebooks/{name}.ipynb out.ipynb")
            changed = re.findall(r"-p (\w+) |-y '(\w+): ", line)
            assert changed and all(re.search(rf"^{one or other}: ", declared, re.M) for one, other in changed)


def test_question_is_drawn(tmp_path):
    notebook = execute("00_question", tmp_path / "00.ipynb", size=64)
    assert drawn(notebook) >= 2


def test_measure_shows_that_an_interval_over_slices_promises_too_much(tmp_path):
    notebook = execute("13_measure", tmp_path / "13.ipynb", draws=20, studies=20)
    patients, slices = map(int, re.findall(r"(\d+)%", shown(notebook)))
    assert slices < patients


def test_exercises_are_solved_from_the_committed_tables(tmp_path):
    notebook = execute("14_exercises", tmp_path / "14.ipynb", draws=50)
    exercises = [n for n, cell in enumerate(notebook.cells) if re.search(r"^### Exercise \d+: ", cell.source, re.M)]
    assert len(exercises) >= 20
    for number, place in enumerate(exercises, 1):
        task, solution, said = notebook.cells[place : place + 3]
        assert f"(exercise-{number})=\n\n### Exercise {number}: " in task.source and "**Answer:**" in task.source
        assert re.search(
            r"^(\*\[.+\]\(.+\), |{page}`.+ <.+>`, \*)(easy|medium|hard), about \d+ minutes\*$", task.source, re.M
        )
        assert "hide-cell" in solution.metadata["tags"] and "assert " in solution.source and solution.outputs
        assert said.source.startswith(":::{dropdown} ")


def test_edition_names_the_runs_behind_its_numbers(tmp_path):
    record = json.loads((ROOT / "results/full/classify/fold-1/run.json").read_text())
    said = shown(execute("16_edition", tmp_path / "16.ipynb", runs=["results/full"]))
    assert record["digest"][:12] in said and record["git"]["commit"][:10] in said
    with pytest.raises(PapermillExecutionError, match="results/none: holds no run.json"):
        execute("16_edition", tmp_path / "none.ipynb", runs=["results/full", "results/none"])


def test_page_of_what_was_tested_shows_the_figures_of_each_command(tmp_path):
    for name in ("fuzz", "memory", "threads"):
        for suffix in ("csv", "json"):
            shutil.copy(ROOT / f"results/tested/{name}.{suffix}", tmp_path)
    record = json.loads((tmp_path / "memory.json").read_text())
    stops = {"stage": ["in an epoch", "the end"], "stopped by": ["kill a kernel", ""], "epochs repeated": [1, 0]}
    pd.DataFrame(stops | {"tables": [1, 2], "equal": [1, 2]}).to_csv(tmp_path / "chaos.csv", index=False)
    chaos = {"kills": 17, "stopped by Ctrl-C or SIGTERM": 3, "runs continued to the end": 4, "tables compared": 39}
    chaos |= {"tables equal byte for byte": 38, "most epochs repeated after a stop": 1, "faults": 2}
    (tmp_path / "chaos.json").write_text(json.dumps(record | chaos))
    cluster = {"jobs": 24, "nodes": 2, "nodes lost": 1, "jobs rescheduled": 1, "tables": 20, "tables equal": 20}
    (tmp_path / "cluster.json").write_text(json.dumps(record | cluster))
    pd.DataFrame({"job": [1]}).to_csv(tmp_path / "cluster.csv", index=False)
    bench = {"what": ["train"], "unit": ["s"], "usual way": ["a loop"], "usual": ["over 90"], "ours": [30]}
    pd.DataFrame(bench | {"times as fast": ["over 3.0"]}).to_csv(tmp_path / "bench.csv", index=False)
    speed = {"a step of 16 slices, ms": {"forward": 50, "backward": 150}, "training, slices/s": {"ours": 80}}
    speed |= {"GFLOPS": {"training": 300, "product of float32 matrices": 400}}
    speed |= {"train to": {"epochs": 7, "validation patients": {"ours": {"Dice": 0.625, "accuracy": 1, "seconds": 30}}}}
    (tmp_path / "bench.json").write_text(json.dumps(record | speed))
    notebook = execute("15_tested", tmp_path / "15.ipynb", tested=str(tmp_path))
    said = shown(notebook)
    assert "After 7 epochs" in said and "0.625" in str(notebook.cells)
    assert "over 3.0" in str(notebook.cells) and "**200 ms**: forward (25%), backward (75%)" in said
    for words in ("**17** kills", "**38 of 39** tables", "2 faults", "**28,000** files", "**24** jobs on 2 nodes"):
        assert words in said


def test_explore(phantom_folder, tmp_path):
    notebook = execute("01_explore", tmp_path / "01.ipynb", data=str(phantom_folder), image_size=64)
    assert "phantom" in str(notebook.cells)


def test_classify_writes_predictions_and_their_record(trained):
    run, notebooks = trained
    table = pd.read_csv(run / "classify/fold-2/predictions.csv")
    assert list(table) == ["file", "pid", "fold", "label", *PROBABILITIES]
    assert table["fold"].eq(2).all() and table[PROBABILITIES].sum(axis=1).sub(1).abs().max() < 1e-4
    record = json.loads((run / "classify/fold-2/run.json").read_text())
    assert (record["parameters"]["fold"], record["parameters"]["epochs"], record["epochs"]) == (2, 1, 1)
    assert record["digest"][:12] in shown(notebooks["02_classify"])


def test_segment_scores_masks_at_native_size(trained):
    run, _ = trained
    table = pd.read_csv(run / "segment/fold-2/predictions.csv")
    assert list(table) == ["file", "pid", "fold", "label", "dice", "iou", "hd95_mm", "area_true", "area_pred"]
    assert table[["dice", "iou"]].stack().between(0, 1).all() and (table["area_true"] > 0).all()


def test_trained_fold_is_shown_again_without_training(trained, phantom_folder, tmp_path):
    run, _ = trained
    before = (run / "classify/fold-2/run.json").read_bytes()
    parameters = {"data": str(phantom_folder), "results": str(run / "classify"), "fold": 2, "epochs": 1, "threads": 1}
    notebook = execute("02_classify", tmp_path / "again.ipynb", **parameters)
    assert (run / "classify/fold-2/run.json").read_bytes() == before
    assert " left" not in shown(notebook)


@pytest.fixture(scope="session")
def trained_together(phantom_folder, tmp_path_factory):
    """A run of one fold by one network for both tasks: (folder of the run, executed notebook)."""
    run = tmp_path_factory.mktemp("together")
    parameters = {"data": str(phantom_folder), "results": str(run), "fold": 2, "epochs": 2, "threads": 1}
    parameters |= {
        "filters": 8,
        "image_size": 96,
        "crop_to": 64,
        "precision": "mixed_bfloat16",
        "tried": str(run / "tried.csv"),
        "change": "a test",
    }
    return run, execute("08_both", run / "08.ipynb", **parameters)


def test_one_network_writes_the_tables_of_both_tasks(trained_together, trained):
    run, notebook = trained_together
    for task in ("classify", "segment"):
        record = json.loads((run / task / "fold-2/run.json").read_text())
        assert record["digest"][:12] in shown(notebook) or task == "segment"
        table, alone = (pd.read_csv(folder / task / "fold-2/predictions.csv") for folder in (run, trained[0]))
        assert list(table) == list(alone) and table[["file", "label"]].equals(alone[["file", "label"]])
        assert len(pd.read_csv(run / task / "fold-2/history.csv")) == 2
    validation = pd.read_csv(run / "classify/fold-2/validation.csv", dtype={"pid": str})
    test = pd.read_csv(run / "classify/fold-2/predictions.csv", dtype={"pid": str})
    assert len(validation) and not set(validation["pid"]) & set(test["pid"])
    tried = pd.read_csv(run / "tried.csv")
    assert tried["part"].tolist() == ["validation", "test"] and tried["change"].eq("a test").all()
    assert tried["accuracy by slice"][1] == pytest.approx(
        (test[PROBABILITIES].to_numpy().argmax(1) + 1 == test["label"]).mean(), abs=1e-4
    )


def test_network_of_both_tasks_answers_alike_for_a_slice_and_its_mirror_image(trained_together):
    run, _ = trained_together
    image = np.random.default_rng(0).integers(256, size=(64, 64)).astype("uint8")
    (classifier,), (segmenter,) = (predict.load_models(run, task, [2]) for task in ("classify", "segment"))
    one, other = (predict.class_probabilities([classifier], view) for view in (image, image[:, ::-1]))
    assert one == pytest.approx(other, abs=1e-5)
    one, other = (predict.tumor_mask([segmenter], view) for view in (image, image[:, ::-1]))
    assert np.mean(one != other[:, ::-1]) < 0.01
    assert {layer.compute_dtype for layer in classifier.layers} == {"float32"}


def test_fold_whose_network_is_not_kept_is_shown_from_its_tables(trained_together, phantom_folder, tmp_path):
    run, notebook = trained_together
    shutil.copytree(run, copy := tmp_path / "run")
    parameters = {"data": str(phantom_folder), "results": str(copy), "fold": 2, "epochs": 2, "threads": 1}
    parameters |= {"filters": 8, "image_size": 96, "crop_to": 64, "precision": "mixed_bfloat16"}
    for task in ("classify", "segment"):
        (copy / task / "fold-2/model.keras").unlink()
    again = execute("08_both", tmp_path / "again.ipynb", **parameters)
    assert "trained already" in shown(again) and "not kept here" in shown(again)
    assert "not kept here" not in shown(notebook)
    scores = [[cell.outputs for cell in one.cells if "quick_scores" in cell.source] for one in (again, notebook)]
    assert scores[0] and scores[0][0][0]["data"] == scores[1][0][0]["data"]


@pytest.mark.parametrize("task, network", [("segment", "original"), ("classify", "residual")])
def test_settings_are_chosen_without_a_look_at_the_test_fold(phantom_folder, tmp_path, task, network):
    parameters = {"data": str(phantom_folder), "results": str(tmp_path), "epochs": 1, "threads": 1, "filters": 8}
    parameters |= {"scored": "validation", "tasks": [task], "network": network, "tried": str(tmp_path / "t.csv")}
    execute("08_both", tmp_path / "08.ipynb", **parameters)
    assert [path.parent.parent.name for path in tmp_path.rglob("run.json")] == [task]
    table, validation = (pd.read_csv(tmp_path / f"{task}/fold-1/{name}.csv") for name in ("predictions", "validation"))
    assert table.equals(validation) and pd.read_csv(tmp_path / "t.csv")["part"].tolist() == ["validation"]


def test_published_run_is_shown_beside_other_folds_seeds_and_settings(trained_together, trained, tmp_path):
    run, _ = trained_together
    execute("04_evaluate", tmp_path / "04.ipynb", run=str(run), others=[str(trained[0])], draws=20)
    for name, scored, seed in (("baseline", "validation", 1), ("other", "validation", 1), ("again", "test", 2)):
        for task in ("classify", "segment") if name != "other" else ("segment",):
            shutil.copytree(run / task, tmp_path / "trials" / name / task)
            path = tmp_path / "trials" / name / task / "fold-2/run.json"
            record = json.loads(path.read_text())
            record["parameters"] |= {"scored": scored, "seed": seed}
            path.write_text(json.dumps(record))
    folders = {"run": str(run), "family": str(trained[0]), "trials": str(tmp_path / "trials")}
    notebook = execute("09_published", tmp_path / "09.ipynb", **folders, draws=20)
    page = str(notebook.cells)
    assert "seed 1" in page and "seed 2" in page and "baseline" in page and "+0.000 (+0.000 to +0.000)" in page
    assert "1 looks at validation patients, 1 at test patients" in shown(notebook)
    alone = shown(execute("09_published", tmp_path / "alone.ipynb", run=str(run), draws=2))
    assert "no run on other folds was named" in alone and "no trials were named" in alone


def test_scores_come_out_the_same_from_tables_dataset_and_weights(trained_together, phantom_folder, tmp_path):
    shutil.copytree(trained_together[0], run := tmp_path / "run")
    execute("04_evaluate", tmp_path / "04.ipynb", run=str(run), draws=2)
    held_out = pd.read_csv(run / "classify/fold-2/predictions.csv")["file"]
    (data := tmp_path / "data").mkdir()
    for name in ("cvind", *held_out):
        shutil.copy(phantom_folder / f"{name}.mat", data)
    recompute = runpy.run_path(str(ROOT / "workflow/recompute.py"))["main"]
    rescore = runpy.run_path(str(ROOT / "workflow/rescore.py"))["rescore"]
    shutil.copy(run / "classify/fold-2/model.keras", tmp_path / "fold-2.keras")
    card = runpy.run_path(str(ROOT / "workflow/publish_models.py"))["card"](run, tmp_path)
    scores = json.loads((run / "scores.json").read_text())
    assert f"| mean Dice | {scores['segment']['mean Dice']['value']:.3f} |" in card and "| `fold-2.keras` | 2 |" in card
    assert recompute(data, run) == [] and rescore(str(phantom_folder), run, tmp_path)
    for task, column, other in (("classify", "label", lambda label: label % 3 + 1), ("segment", "dice", np.sqrt)):
        path = run / task / "fold-2/predictions.csv"
        table = pd.read_csv(path, dtype={"pid": str})
        table.assign(**{column: other(table[column])}).to_csv(path, index=False)
    found = "\n".join(recompute(data, run))
    assert "classify: slices, labels, patients or folds are not the dataset's" in found and "mean Dice is" in found
    assert not rescore(str(phantom_folder), run, tmp_path)


def test_failures_are_listed_and_shown_with_their_slices(trained_together, phantom_folder, tmp_path):
    run, _ = trained_together
    files = pd.read_csv(run / "segment/fold-2/predictions.csv").nsmallest(1, "dice")["file"]
    pd.DataFrame({"task": "segment", "file": files, "remark": "it hides"}).to_csv(tmp_path / "remarks.csv")
    folders = {"run": str(run), "data": str(phantom_folder)}
    folders |= {"remarks": str(tmp_path / "remarks.csv")}
    notebook = execute("10_failures", tmp_path / "10.ipynb", **folders)
    page = str(notebook.cells)
    assert "it hides" in page and "are called wrong" in page and drawn(notebook) >= 2
    assert "times as large" in page or "nothing drawn" in page
    shown_without = str(execute("10_failures", tmp_path / "10b.ipynb", run=str(run)).cells)
    assert "no slices were given" in shown_without


def test_trust_is_measured_and_shown_again_from_its_tables(trained_together, phantom_folder, tmp_path):
    shutil.copytree(trained_together[0], run := tmp_path / "run")
    (models := tmp_path / "models").mkdir()
    shutil.copy(run / "classify/fold-2/model.keras", models / "fold-2.keras")
    publish_models = runpy.run_path(str(ROOT / "workflow/publish_models.py"))
    publish_models["publish_references"](str(phantom_folder), run, models)
    given = {"run": str(run), "models": str(models), "each": 1, "draws": 10}
    measured = execute("11_trust", tmp_path / "11.ipynb", data=str(phantom_folder), **given)
    slices, foreign = (pd.read_csv(run / f"trust/{name}.csv") for name in ("slices", "foreign"))
    held_out = pd.read_csv(run / "segment/fold-2/predictions.csv")
    assert slices["file"].tolist() == held_out["file"].tolist() and foreign["kind"].nunique() == 12
    assert slices["dice"].to_numpy() == pytest.approx(held_out["dice"].to_numpy(), abs=2e-3)
    assert slices[["inside", "by chance"]].stack().between(0, 1).all() and (foreign["picture"] > 0).all()
    again = execute("11_trust", tmp_path / "again.ipynb", **given)
    (found,), (same,) = ([o for o in shown(n).splitlines() if "raise a false alarm" in o] for n in (measured, again))
    assert found == same
    shutil.copy(ROOT / "models/fold-2.keras", models)
    with pytest.raises(PapermillExecutionError, match="was measured with other networks than those in"):
        execute("11_trust", tmp_path / "other.ipynb", **given)


def test_evaluate_and_predict(trained, phantom_folder, tmp_path):
    run, _ = trained
    notebook = execute("04_evaluate", tmp_path / "04.ipynb", run=str(run), draws=20)
    scores = json.loads((run / "scores.json").read_text())
    made_from = scores["made_from"]["classify"]
    assert (made_from["folds"], made_from["protocol"], made_from["data"]["kind"]) == ([2], "official", "phantom")
    accuracy = scores["classify"]["accuracy by slice"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert "folds 2" in shown(notebook)
    file = int(pd.read_csv(run / "classify/fold-2/predictions.csv")["file"][0])
    notebook = execute("05_predict", tmp_path / "05.ipynb", run=str(run), data=str(phantom_folder), file=file)
    assert "the dataset says" in shown(notebook) and "fold 2" in shown(notebook)


def test_predict_refuses_a_slice_that_its_networks_may_have_seen(trained, phantom_folder, tmp_path):
    run, _ = trained
    held_out = set(pd.read_csv(run / "classify/fold-2/predictions.csv")["file"])
    seen = next(file for file in range(1, 200) if file not in held_out)
    with pytest.raises(PapermillExecutionError) as caught:
        execute("05_predict", tmp_path / "05.ipynb", run=str(run), data=str(phantom_folder), file=seen)
    assert f"no finished fold held slice {seen} out" in caught.value.evalue


def test_predict_takes_a_foreign_image(trained, tmp_path):
    run, _ = trained
    picture = tmp_path / "photo.png"
    Image.fromarray(np.arange(80 * 60, dtype=np.uint8).reshape(80, 60)).save(picture)
    notebook = execute("05_predict", tmp_path / "05.ipynb", run=str(run), image=str(picture))
    assert "Called **" in shown(notebook) and "the dataset says" not in shown(notebook)


@pytest.mark.parametrize(
    "name, parameters, named",
    [
        ("02_classify", {"epoch": 2}, "epoch: this notebook has no such parameter"),
        ("03_segment", {"fold": "three"}, "fold: is 'three' (str); expected int"),
        ("06_leakage", {"tasks": ["clasify"]}, "tasks: is 'clasify'; expected one of 'classify', 'segment'"),
        ("06_leakage", {"folds": []}, "folds: is []; expected a list of at least one value, none twice"),
        ("07_original", {"fill": "mirror"}, "fill: is 'mirror'; expected one of 'nearest', 'constant'"),
        ("02_classify", {"protocol": "random"}, "protocol: is 'random'; expected one of 'official', 'family', 'slice'"),
    ],
)
def test_wrong_parameter_stops_before_anything_is_computed(name, parameters, named, tmp_path):
    with pytest.raises(PapermillExecutionError) as caught:
        execute(name, tmp_path / "out.ipynb", results=str(tmp_path / "results"), **parameters)
    assert caught.value.ename == "ParameterError" and named in caught.value.evalue
    notebook = nbformat.read(tmp_path / "out.ipynb", 4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.get("execution_count")]
    assert len(ran) <= 3 and not (tmp_path / "results").exists()  # parameters, what was injected, the check


def test_evaluate_without_folds_says_what_to_run(tmp_path):
    with pytest.raises(PapermillExecutionError) as caught:
        execute("04_evaluate", tmp_path / "out.ipynb", run=str(tmp_path / "nothing"))
    assert "holds no finished fold; run the notebook that trains them (02_classify" in caught.value.evalue
    assert Path(tmp_path / "out.ipynb").exists()


TINY_LEAKAGE = {"epochs": 1, "segment_epochs": 1, "image_size": 64, "filters": 2, "nearest_image_size": 32, "draws": 5}


@pytest.fixture(scope="session")
def leakage(phantom_folder, tmp_path_factory):
    """Fold 1 of two protocols and both tasks: (results folder, executed notebook)."""
    results = tmp_path_factory.mktemp("leakage")
    which = {"protocols": ["slice", "official"], "folds": [1], "segment_folds": [1]}
    where = {"data": str(phantom_folder), "results": str(results), "threads": 1}
    return results, which, execute("06_leakage", results / "06.ipynb", **where, **which, **TINY_LEAKAGE)


def test_leakage_trains_each_protocol_and_audits_it(leakage):
    results, _, notebook = leakage
    for protocol in ("slice", "official"):
        table = pd.read_csv(results / protocol / "fold-1/predictions.csv")
        assert list(table) == ["file", "pid", "fold", "label", *PROBABILITIES]
        record = json.loads((results / "segment" / protocol / "fold-1/run.json").read_text())
        assert (record["parameters"]["protocol"], record["parameters"]["task"]) == (protocol, "segment")
    audit = {protocol: pd.read_csv(results / f"audit/{protocol}-1.csv") for protocol in ("slice", "official")}
    assert audit["slice"]["pid_seen"].mean() > 0.9 and audit["official"]["pid_seen"].mean() == 0
    assert audit["official"]["file"].is_unique and set(audit["official"]["nearest_label"]) <= {1, 2, 3}
    assert set(audit["official"]["nearest_pid"]).isdisjoint(audit["official"]["pid"])
    assert "percentage points" in shown(notebook)


def test_leakage_page_can_be_made_from_the_tables_alone(leakage, tmp_path):
    results, which, notebook = leakage
    kept = {path: path.read_bytes() for path in results.rglob("*.*") if path.is_file()}
    given = {"train": False, "data": "no/such/folder", "results": str(results), "draws": 5}
    again = execute("06_leakage", tmp_path / "06.ipynb", **given, **which)
    assert {path: path.read_bytes() for path in kept} == kept
    assert shown(again).count("percentage points") == shown(notebook).count("percentage points") > 0


def test_original_study_is_rebuilt(phantom_folder, tmp_path):
    given = {"epochs": 1, "segment_epochs": 1, "filters": 2, "draws": 5, "threads": 1, "results": str(tmp_path)}
    notebook = execute("07_original", tmp_path / "07.ipynb", data=str(phantom_folder), **given)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["classify"]) == {"single", "member-1", "member-2", "member-3", "ensemble"}
    assert set(scores["segment"]) == {"unet-bce", "unet-bce-dice"} and len(scores["runs"]) == 6
    tables = [pd.read_csv(tmp_path / f"member-{n}" / "predictions.csv") for n in (1, 2, 3)]
    mean = sum(table[PROBABILITIES] for table in tables) / 3
    right = (mean.to_numpy().argmax(1) + 1 == tables[0]["label"]).sum()
    assert scores["classify"]["ensemble"]["right"] == right and len(set(map(str, tables))) == 3
    assert (tmp_path / "ensemble.keras").exists() and list((tmp_path / "single/tensorboard").glob("*/events*"))
    assert "Overall accuracy" in shown(notebook) and "adding the Dice loss changes the mean Dice" in shown(notebook)


def test_leakage_page_without_its_tables_says_what_is_missing(tmp_path):
    with pytest.raises(PapermillExecutionError) as caught:
        execute("06_leakage", tmp_path / "out.ipynb", train=False, results=str(tmp_path))
    assert f"{tmp_path}: holds no task with all of its folds" in caught.value.evalue
