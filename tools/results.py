"""What the programs in tools/ share: results, clones of the project, Snakemake."""

import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from braintumor.core.files import ROOT, atomic_write, write_json

TESTING = ROOT / "results/published/testing"


def save_results(name, table, record):
    """Write a program's table and its record, with the time: NAME.csv, NAME.json."""
    with atomic_write(TESTING / f"{name}.csv") as path:
        table.to_csv(path, index=False)
    finished = f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"
    write_json(TESTING / f"{name}.json", {"finished": finished} | record)


def clone_project(folder):
    """Clone the last commit into a folder; return the folder."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


def snakemake(project, config, data, targets, *options):
    """Return arguments of subprocess.run to make targets with the project's code."""
    settings = ["--configfile", config, "--config", f"profile={config.stem}"]
    settings += [f"data={data}", "--snakefile", "workflow/Snakefile"]
    python = [sys.executable, "-m", "snakemake", *targets, "--rerun-incomplete"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PYTHONPATH": str(project / "lib"), "PATH": path}
    command = list(map(str, [*python, *settings, *options]))
    return {"args": command, "cwd": project, "env": os.environ | environment}


def find_processes(mark, value):
    """List the running processes whose environment variable `mark` has a value."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            is_marked = process.environ().get(mark) == str(value)
            processes += [process] if is_marked and process.status() != "zombie" else []
    return processes
