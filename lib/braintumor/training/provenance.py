"""Where a number comes from: versions, processor, threads, git commit and memory."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from braintumor.core.files import ROOT

PACKAGES = ("keras", "numpy", "scikit-learn", "h5py", "pandas")


def collect_environment(threads):
    """Describe this process for run.json: versions, processor, threads, commit, memory.

    `threads` is the notebook's parameter; 0 is one per core.
    """
    import keras  # not above: report pages read records without it

    backend = keras.config.backend()
    return {
        "packages": {name: _version(name) for name in (*PACKAGES, backend)},
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": threads or os.cpu_count(),
        "git": _git(),
        "peak_memory_mb": _peak_memory_mb(),
    }


def group_by_training(records):
    """Group run.json dicts by training: a list of lists.

    A joint network has one record per task; they share notebook, fold and time.
    """
    groups = {}
    for record in records:
        key = [record[name] for name in ("notebook", "finished", "seconds")]
        key += [record["parameters"].get(name) for name in ("part", "fold")]
        groups.setdefault(tuple(key), []).append(record)
    return list(groups.values())


def short_commit(record):
    """Shorten the git commit of a run.json for display."""
    commit = record["git"]["commit"]
    if not commit:
        return "not from git"
    return commit[:10] + ("" if record["git"]["clean"] else " and changes")


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return version(f"{name}-cpu")  # tensorflow-cpu provides tensorflow


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line for line in lines if line.startswith("model name")]
        return models[0].split(":", 1)[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _git():
    def git(*arguments):
        return subprocess.check_output(
            ["git", *arguments], cwd=ROOT, text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        changes = git("status", "--porcelain", ":!results")
        return {"commit": git("rev-parse", "HEAD"), "clean": not changes}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}  # a downloaded archive


def _peak_memory_mb():
    if platform.system() == "Windows":
        return round(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10))
