"""A run: profiles, what is up to date, failures, the table of contents; and the command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

from braintumor import cli
from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT
from braintumor.workflow_engine import execution

pytestmark = pytest.mark.usefixtures("alone_here")


@pytest.fixture
def profile(tmp_path):
    """Path of a profile of one epoch of one fold; its run, test-NAME, is removed afterwards."""
    path = tmp_path / "pytest.yaml"
    content = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    content["classify"]["epochs"] = content["segment"]["epochs"] = 1
    del content["original"], content["both"]  # their notebooks have tests of their own, and take a minute
    path.write_text(yaml.safe_dump(content))
    yield path
    for folder in (ROOT / "results", ROOT / "book/runs"):
        shutil.rmtree(folder / "pytest-phantom", ignore_errors=True)


def changed(path, **values):
    content = yaml.safe_load(path.read_text()) | values
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value != "removed"}))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_profiles_are_good(path):
    profile = execution.read_profile(path) | {"data": "phantom", "name": "x"}
    for task in set(execution.TASKS) & set(profile):
        given = execution.fold_parameters(profile, task, 1)
        place = "results/x" if set(execution.TASKS) & set(profile) == {"both"} else f"results/x/{task}"
        assert execution.notebook_parameters(execution.TASKS[task], given)["results"] == place
    for name in profile.get("trials", {}):
        given = execution.trial_parameters(profile, name)
        assert execution.notebook_parameters("08_both", given)["results"] == f"results/x/{name}"
    for section in set(execution.STUDIES) & set(profile):
        given = execution.study_parameters(profile, section)
        assert execution.notebook_parameters(execution.STUDIES[section], given)["results"].startswith("results/x")


def test_original_profile_is_the_study_as_it_was():
    profile = execution.read_profile(ROOT / "config/original.yaml") | {"data": "phantom", "name": "x"}
    given = execution.study_parameters(profile, "original")
    parameters = execution.notebook_parameters("07_original", given)
    assert set(profile["original"]) | {"data", "results", "seed", "all_slices", "draws"} == set(parameters)
    training = ("image_size", "batch_size", "epochs", "lr_factor", "lr_patience", "lr_cooldown", "lr_floor")
    assert [parameters[name] for name in training] == [512, 10, 300, 0.3, 10, 10, 1e-5]
    generator = ("zoom_low", "zoom_high", "shear_degrees", "fill", "filters", "all_slices")
    assert [parameters[name] for name in generator] == [0.8, 1.2, 0.2, "nearest", 16, False]


def test_fold_of_both_tasks_is_up_to_date_only_with_both_records(tmp_path, monkeypatch, phantom_folder):
    monkeypatch.setattr(execution, "pages", lambda profile: execution.ROOT / "book/runs/x")
    profile = {"seed": 1, "protocol": "official", "folds": [1], "both": {"image_size": 64, "epochs": 1}}
    profile |= {"data": str(phantom_folder), "name": "x"}
    prepared = execution.open_data(profile["data"], 64)
    given = execution.notebook_parameters("08_both", execution.fold_parameters(profile, "both", 1))
    monkeypatch.setattr(execution, "ROOT", tmp_path)
    page = tmp_path / "book/runs/x/08_both-fold-1.ipynb"
    page.parent.mkdir(parents=True)
    page.touch()
    for task in ("classify", "segment"):
        assert execution.stale_pages(profile) == ["book/runs/x/08_both-fold-1.ipynb"]
        part = given | {"task": task, "results": f"results/x/{task}"}
        record = tmp_path / f"results/x/{task}/fold-1/run.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"digest": execution.run_digest("08_both", part, prepared)}))
    assert execution.stale_pages(profile) == []


def test_family_folds_and_trials_have_the_published_settings():
    """Their profiles repeat them, as a profile is one file; so a change of one must be a change of all."""
    full, family, trials = (
        execution.read_profile(ROOT / f"config/{n}.yaml") for n in ("full", "full-family", "trials")
    )
    assert {**family["both"], "change": None} == {**full["both"], "change": None}
    own = {"change": None, "epochs": None, "scored": None}
    assert trials["trials"]["baseline"] | own == full["both"] | own
    for seed in (2, 3):
        trial = trials["trials"][f"seed-{seed}"]
        assert trial | {"change": None} == full["both"] | {"change": None, "scored": "test", "seed": seed}


def test_leakage_profile_trains_each_fold_in_a_job_of_its_own():
    profile = execution.read_profile(ROOT / "config/leakage.yaml") | {"data": "phantom", "name": "leakage"}
    jobs = execution.leakage_jobs(profile)
    assert len(jobs) == 2 * 3 * 5
    folder, given = jobs["segment-family-4"]
    assert folder == ROOT / "results/leakage/segment/family/fold-4"
    assert (given["tasks"], given["protocols"], given["folds"]) == (["segment"], ["family"], [4])
    assert jobs["classify-slice-1"][0] == ROOT / "results/leakage/slice/fold-1"


@pytest.mark.parametrize(
    "stem, kind, slices, name",
    [
        ("quick", "phantom", 612, "quick-phantom"),
        ("quick", "figshare-jpeg", 3064, "quick-figshare"),
        ("quick", "folder", 3064, "quick-mine"),
        ("leakage", "figshare-jpeg", 3064, "leakage"),
        ("leakage", "figshare-jpeg", 90, "leakage-figshare"),  # a part of the data must not replace what is published
        ("leakage", "figshare", 3064, "leakage-figshare"),
        ("leakage", "phantom", 612, "leakage-phantom"),
    ],
)
def test_run_is_named_by_profile_and_data_and_a_published_one_by_its_profile(stem, kind, slices, name):
    about = {"kind": kind, "slices": slices, "source": "/data/mine"}
    assert execution.run_name(f"config/{stem}.yaml", about) == name


@pytest.mark.parametrize(
    "values, named",
    [
        ({"folds": "removed"}, "missing ['folds']"),
        ({"classify": "removed", "segment": "removed"}, "missing ['classify', 'segment'], unknown []"),
        ({"epochs": 3}, "unknown ['epochs']"),
        ({"protocol": "random"}, "protocol is 'random'; expected one of official, family, slice"),
        ({"folds": [1, 6]}, "folds is [1, 6]; expected a list of different numbers from 1 to 5"),
        ({"folds": [1, 1]}, "folds is [1, 1]"),
        (
            {"classify": {"image_size": 64, "folds": [0]}},
            "classify, folds is [0]; expected a list of different numbers",
        ),
        ({"seed": "one"}, "seed is 'one'; expected a whole number"),
        ({"segment": {"epochs": 1}}, "segment is {'epochs': 1}; expected the parameters of its notebook"),
        ({"original": [64]}, "original is [64]; expected the parameters of its notebook"),
        ({"trials": ["a"]}, "trials is ['a']; expected names, with parameters for each"),
        ({"trials": {"a": {"fold": 1}}}, "trials, a is {'fold': 1}; expected the parameters of its notebook"),
        ({"trials": {"../a": {"image_size": 64}}}, "trials, '../a': expected a name of letters, digits, _ and -"),
        ({"trials": {"{fold}": {"image_size": 64}}}, "trials, '{fold}': expected a name of letters"),
        ({"folds": [[1]]}, "folds is [[1]]; expected a list of different numbers"),
        ({"folds": [True]}, "folds is [True]; expected a list of different numbers"),
        ({"protocol": ["official"]}, "protocol is ['official']; expected one of"),
        ({"__import__('os').mkdir('x')": 1}, "unknown [\"__import__('os').mkdir('x')\"]"),
    ],
)
def test_bad_profile_is_refused(profile, values, named):
    with pytest.raises(ParameterError) as caught:
        execution.read_profile(changed(profile, **values))
    assert named in str(caught.value) and str(profile) in str(caught.value)


def test_profile_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(ParameterError, match="no such profile; there are .*quick"):
        execution.read_profile(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("folds: [1")
    with pytest.raises(ParameterError, match="is not YAML"):
        execution.read_profile(tmp_path / "bad.yaml")


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        b"seed: !!python/object/apply:os.mkdir [trapped]",
        b"!!python/object/new:os.mkdir [trapped]",
        b"seed: !include other.yaml",
        b"\xff\xfe\xfa",
        b"seed: 2001-13-45",
        b"[" * 5000,
        b"seed: \x00",
    ],
)
def test_profile_that_is_no_plain_yaml_is_refused_and_nothing_of_it_runs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ParameterError, match="is not YAML of plain values") as caught:
        execution.read_profile(tmp_path / "bad.yaml")
    assert str(caught.value).isprintable() and not (tmp_path / "trapped").exists()


def test_profile_whose_keys_are_no_names_is_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("7: 1\nb: 1\n2001-01-01: 1")
    with pytest.raises(ParameterError, match=r"unknown \[datetime.date\(2001, 1, 1\), 7, 'b'\]"):
        execution.read_profile(tmp_path / "bad.yaml")


@pytest.mark.parametrize("lines", [BOMB, "a: &a [*a]"], ids=["billions", "endless"])
def test_profile_of_a_few_lines_that_stand_for_billions_of_values_is_refused(tmp_path, lines):
    (tmp_path / "bad.yaml").write_text(lines)
    with pytest.raises(ParameterError, match="stands for over 10,000 values"):
        execution.read_profile(tmp_path / "bad.yaml")


def test_wrong_notebook_parameter_is_told_before_data_is_prepared(profile, tmp_path):
    changed(profile, classify={"image_size": 64, "epoch": 2})
    with pytest.raises(ParameterError, match="epoch: this notebook has no such parameter"):
        execution.run(profile, str(tmp_path / "no-data"), 1)


def left_to_do(pages):
    """The rules that a whole run would still apply: a dry run of Snakemake."""
    where = ["-s", ROOT / "workflow/Snakefile", "--directory", ROOT, "--configfile", pages / "run.yaml"]
    how = ["--cores", "1", "--nolock", "--rerun-triggers", "mtime", "params", "--dry-run"]
    command = [sys.executable, "-m", "snakemake", *where, *how]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return set(re.findall(r"^(?:local)?rule (\S+):$", done.stdout + done.stderr, re.M))


def test_only_what_is_missing_or_changed_runs(profile, phantom_folder, tmp_path, monkeypatch, only_pages):
    results, pages = ROOT / "results/pytest-phantom", ROOT / "book/runs/pytest-phantom"
    wanted = {"01_explore", "02_classify-fold-1", "03_segment-fold-1", "04_evaluate", "05_predict"}
    only_pages([pages / f"{page}.ipynb" for page in wanted])
    monkeypatch.setattr(execution, "build_book", lambda profile: profile["name"])
    # a name that a shell, YAML, Python or Snakemake would each take for more than a name
    data = shutil.copytree(phantom_folder, tmp_path / 'it\'s "my" {fold}: $(größe)\n#')

    def run():
        """The times at which each page and each fold were written."""
        assert execution.run(profile, str(data), 2) == "pytest-phantom"
        written = {path.stem: path.stat().st_mtime_ns for path in pages.glob("*.ipynb")}
        return written | {path.parent.parent.name: path.stat().st_mtime_ns for path in results.glob("*/*/run.json")}

    first = run()
    assert set(first) == wanted | {"classify", "segment"}
    expected = {"00_question", "13_measure", "16_edition"}
    expected |= {"06_leakage", "04_evaluate-published", "09_published", "10_failures"}  # committed tables
    expected |= {"11_trust", "14_exercises"}
    expected |= {"12_scale", "15_tested"} if (ROOT / "results/tested/cluster.json").exists() else set()
    assert left_to_do(pages) == expected | {"all"}
    assert json.loads((results / "scores.json").read_text())["classify"]

    assert run() == first  # nothing to do

    (pages / "03_segment-fold-1.ipynb").unlink()
    shutil.rmtree(results / "classify/fold-1")
    second = run()
    assert second["segment"] == first["segment"]  # shown again, not trained again
    assert second["03_segment-fold-1"] > first["03_segment-fold-1"]
    assert second["classify"] > first["classify"]  # trained again, though its page was there
    assert second["04_evaluate"] > first["04_evaluate"] and second["01_explore"] == first["01_explore"]


def test_pages_of_the_published_run_wait_for_a_fold_that_a_clone_trains_anew(tmp_path):
    for folder in ("notebooks", "lib"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for folder in ("results", "book"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("runs", "*.keras"))
    for task in ("classify", "segment"):
        shutil.rmtree(tmp_path / f"results/full/{task}/fold-1")
    run = execution.read_profile(ROOT / "config/full.yaml") | {"data": "phantom", "name": "full", "digest": "0"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run | {"real": False}))
    where = ["-s", ROOT / "workflow/Snakefile", "--directory", tmp_path, "--configfile", tmp_path / "run.yaml"]
    command = [sys.executable, "-m", "snakemake", *where, "--cores", "1", "--dry-run", "--rulegraph"]
    graph = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)', graph))
    after, found = {(names[one], names[other]) for one, other in re.findall(r"(\d+) -> (\d+)", graph)}, {"08_both"}
    for _ in names:
        found |= {page for before, page in after if before in found}
    assert set(names.values()) - found == {"00_question", "01_explore", "06_leakage", "13_measure", "15_tested"}


def test_study_whose_result_is_gone_is_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for notebook in execution.STUDIES.values():
        shutil.copy(ROOT / f"notebooks/{notebook}.ipynb", tmp_path / "notebooks")
    monkeypatch.setattr(execution, "notebook_parameters", lambda notebook, given: {"tasks": ["classify"]} | given)
    section = {"protocols": ["slice"], "folds": [1, 2], "image_size": 64}
    profile = {"name": "x", "data": "phantom", "seed": 1, "leakage": section, "original": {"image_size": 64}}
    pages = [f"parts/06_leakage-classify-slice-{fold}" for fold in (1, 2)] + ["07_original"]
    for page in pages:
        path = tmp_path / f"book/runs/x/{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made = [tmp_path / f"results/x/slice/fold-{fold}/run.json" for fold in (1, 2)]
    made += [tmp_path / f"results/x/original/{part}/run.json" for part in range(execution.ORIGINAL_PARTS)]
    for path in [*made, tmp_path / "results/x/original/scores.json"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert execution.stale_pages(profile) == []
    made[1].unlink()
    made[-1].unlink()
    assert execution.stale_pages(profile) == [f"book/runs/x/{page}.ipynb" for page in pages[1:]]


def write_notebook(path, *sources):
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, path)
    return str(path)


def test_failed_cell_is_named_and_the_partial_notebook_kept(tmp_path, capfd):
    notebook = write_notebook(tmp_path / "broken.ipynb", "print('fine')", "answer = 1 / 0")
    page, partial = tmp_path / "page.ipynb", tmp_path / "partial/page.ipynb"
    with pytest.raises(RuntimeError, match="broken.ipynb did not run to its end"):
        execution.execute_apart(notebook, str(page), str(partial), {})
    out, error = capfd.readouterr()
    assert "page | fine" in out
    assert "broken.ipynb failed in cell 2" in error and "answer = 1 / 0" in error and "ZeroDivisionError" in error
    assert str(partial) in error and "ZeroDivisionError" in partial.read_text() and not page.exists()


def test_parameter_of_named_choices_is_taken_without_a_warning(tmp_path, capfd):
    source = 'from typing import Literal\n\nsize: Literal["small", "large"] = "small"'
    notebook = write_notebook(tmp_path / "sized.ipynb", source, "print('it is', size)")
    cells = nbformat.read(notebook, 4)
    cells.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(cells, notebook)
    given = {"size": "large"}
    execution.execute_apart(notebook, str(tmp_path / "page.ipynb"), str(tmp_path / "partial.ipynb"), given)
    said = capfd.readouterr()
    assert "page | it is large" in said.out and "unknown" not in said.out + said.err


@pytest.mark.parametrize("error", ["BusyError", "FullDiskError"])
def test_busy_fold_and_full_disk_end_in_a_sentence(tmp_path, capfd, error):
    source = f"from braintumor.core.errors import {error}\nraise {error}('fold-1 cannot be trained now; wait')"
    notebook, page = write_notebook(tmp_path / "stopped.ipynb", source), tmp_path / "page.ipynb"
    with pytest.raises(RuntimeError, match="stopped.ipynb did not run to its end"):
        execution.execute_apart(notebook, str(page), str(tmp_path / "partial.ipynb"), {})
    said = capfd.readouterr().err
    assert "stopped.ipynb: fold-1 cannot be trained now; wait\n" in said
    assert "Traceback" not in said and not page.exists()


def test_notebooks_at_once_cannot_be_given_the_same_port(tmp_path, capfd):
    source = "import ipykernel.connect\nprint(ipykernel.connect.get_connection_info())"
    notebook = write_notebook(tmp_path / "ports.ipynb", source)
    execution.execute_apart(notebook, str(tmp_path / "page.ipynb"), str(tmp_path / "partial.ipynb"), {})
    assert '"transport": "ipc"' in (said := capfd.readouterr().out)
    sockets = Path(re.search('"ip": "(.+)/kernel"', said)[1])
    assert not sockets.exists()  # they are gone with the notebook's end


# As Snakemake does: in a thread, while the main thread only takes note of Ctrl-C.
IN_A_THREAD = """
import signal, sys, threading
from braintumor.workflow_engine.execution import execute_apart
signal.signal(signal.SIGINT, lambda *_: None)
thread = threading.Thread(target=execute_apart, args=(*sys.argv[1:], {}))
thread.start()
thread.join()
"""


def test_notebook_of_hours_ends_at_ctrl_c(tmp_path):
    sources = ("import os, time", "print('kernel', os.getpid())", "time.sleep(3600)")
    notebook = write_notebook(tmp_path / "long.ipynb", *sources)
    page, partial = tmp_path / "page.ipynb", tmp_path / "partial.ipynb"
    command = [sys.executable, "-c", IN_A_THREAD, notebook, str(page), str(partial)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    kernel = psutil.Process(int(next(line for line in job.stdout if "kernel" in line).split()[-1]))
    os.killpg(job.pid, signal.SIGINT)
    _, error = job.communicate(timeout=60)
    assert "long.ipynb: stopped" in error and "nbclient" not in error and not page.exists()
    kernel.wait(timeout=60)  # else TimeoutExpired: it lives on


@pytest.mark.parametrize(
    ("imported", "call"),
    [("print('there', flush=True); time.sleep(60)", ""), ("", "ends()")],
)
def test_command_in_a_process_of_its_own_ends_at_ctrl_c_without_a_traceback(imported, call):
    ends = """
import time
def ends():
    try:
        print('there', flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print('in its own way')
"""
    code = """
import contextlib, sys
from braintumor.workflow_engine.execution import _python
with contextlib.suppress(KeyboardInterrupt):
    _python(*sys.argv[1:])
"""
    command = [sys.executable, "-c", code, ends + imported, call]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert job.stdout.readline() == "there\n"
    os.killpg(job.pid, signal.SIGINT)
    out, error = job.communicate(timeout=60)
    assert (out, error) == ("in its own way\n" if call else "", "")


def test_contents_leave_out_missing_pages_and_lift_their_sections(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "ROOT", tmp_path)
    for name in ("a.md", "c.ipynb"):
        (tmp_path / name).touch()
    chapters = [{"file": "a"}, {"file": "b", "sections": [{"file": "c"}, {"file": "d"}]}]
    assert execution._existing(chapters) == [{"file": "a"}, {"file": "c"}]
    assert execution._existing([{"file": "a"}, {"file": "c"}], others=("c",)) == [{"file": "a"}]


def test_command_checks_draws_and_exports(tmp_path, capsys):
    assert cli.main(["data", "phantom", str(tmp_path / "p"), "--patients", "15", "--size", "64"]) == 0
    (tmp_path / "p/3.mat").unlink()
    (tmp_path / "p/5.mat").write_bytes(b"cut")
    assert cli.main(["data", "check", str(tmp_path / "p")]) == 1
    said = capsys.readouterr().out
    assert "5.mat: cannot be read as a MATLAB v7.3" in said and "missing  1 of" in said and ": 3\n" in said
    assert cli.main(["data", "check", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().out
    (tmp_path / "p/5.mat").unlink()
    assert cli.main(["data", "export-png", str(tmp_path / "p"), str(tmp_path / "png")]) == 0
    assert (tmp_path / "png/1/1.matlabel=1.png").exists()


def test_command_ends_foreseen_errors_in_one_sentence(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert cli.main(["data", "phantom", str(tmp_path / "full")]) == 1
    assert cli.main(["run", "--profile", "none"]) == 1
    error = capsys.readouterr().err
    assert "not empty" in error.lower() or str(tmp_path / "full") in error
    assert "no such profile" in error and "Traceback" not in error


def test_missing_numbers_are_told_as_ranges():
    assert cli._ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
