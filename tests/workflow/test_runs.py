"""Runs of the workflow: interruption, two at once, failures, what is run again."""

import os
import re
import signal
import time
from contextlib import suppress

import nbformat
import psutil
import pytest

pytestmark = pytest.mark.slow
TARGET = "results/{}/joint/classify/fold-1/predictions.csv"
TABLES = [
    f"{task}/fold-1/{name}.csv"
    for task in ("classify", "segment")
    for name in ("predictions", "validation")
]


def target(project):
    return TARGET.format(project.results.name)


def read_tables(project):
    return {name: (project.results / "joint" / name).read_bytes() for name in TABLES}


def count_epochs(project):
    """Count the epochs that the unfinished training has kept."""
    kept = project.results.glob("joint/**/epoch-*.weights.h5")
    return max((int(re.search(r"epoch-(\d+)", p.name)[1]) for p in kept), default=0)


def wait_for_epoch(project, process, epoch):
    """Wait until the training has kept an epoch."""
    deadline = time.monotonic() + 120
    while count_epochs(project) < epoch:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no epoch was kept in time"
        time.sleep(0.02)


def find_kernels(process):
    kernels = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            kernels += [child] if "ipykernel_launcher" in child.cmdline() else []
    return kernels


@pytest.fixture(scope="module")
def expected(make_project, tmp_path_factory):
    """A project whose run was never stopped, and the tables of the run."""
    project = make_project(tmp_path_factory.mktemp("whole"))
    code, output = project.run(target(project))
    assert code == 0, output
    return project, read_tables(project)


@pytest.fixture(scope="module")
def stopped(make_project, tmp_path_factory):
    """A run that was killed, interrupted and finished: {what was done: its output}."""
    project, outputs = make_project(tmp_path_factory.mktemp("stopped")), {}
    process = project.start(target(project))
    while not find_kernels(process):
        time.sleep(0.02)
    outputs["second run"] = project.run(target(project))[1]
    wait_for_epoch(project, process, 1)
    for kernel in find_kernels(process):
        kernel.kill()
    outputs["killed"], _ = process.communicate(timeout=120)
    assert process.returncode != 0
    process = project.start(target(project))
    wait_for_epoch(project, process, count_epochs(project) + 1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    outputs["interrupted"], _ = process.communicate(timeout=60)
    assert process.returncode != 0
    outputs["left alive"] = psutil.wait_procs(family, timeout=10)[1]
    code, output = project.run(target(project))
    assert code == 0, output
    outputs["tables"] = read_tables(project)
    return outputs


def test_stopped_run_reports_why_and_goes_on_with_the_same_bytes(stopped, expected):
    assert "lock" in stopped["second run"].lower()
    assert "04_joint.ipynb: the kernel died" in stopped["killed"]
    assert "Traceback" not in stopped["interrupted"]
    assert not stopped["left alive"]
    assert stopped["tables"] == expected[1]


def test_failed_cell_is_named_and_its_page_is_kept(project):
    path = project.folder / "notebooks" / "labs" / "04_joint.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.insert(4, nbformat.v4.new_code_cell("raise OSError('no space')"))
    nbformat.write(notebook, path)
    code, output = project.run(target(project))
    assert code != 0
    assert re.search(r"04_joint\.ipynb failed in cell \d+", output)
    assert "OSError: no space" in output
    page = project.results / "pages" / "partial" / "04_joint-fold-1.ipynb"
    assert "OSError" in page.read_text()


def test_only_what_changed_is_run_again(expected):
    project, tables = expected
    code, output = project.run(target(project))
    assert code == 0
    assert "Nothing to be done" in output
    project.write_profile(seed=2)
    code, output = project.run(target(project), "--dry-run")
    assert code == 0
    assert "train_joint" in output
    assert read_tables(project) == tables
