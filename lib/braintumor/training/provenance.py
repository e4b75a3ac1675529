"""Where a number comes from: versions, processor, threads, git commit and memory."""

import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from braintumor.core.files import ROOT

PACKAGES = ("keras", "numpy", "scikit-learn", "h5py", "pandas")


def collect_environment(threads):
    """Describe this process for run.json; 0 threads are one per core."""
    import keras  # not above: report pages read records without it

    backend = keras.config.backend()
    packages = {name: version(name) for name in PACKAGES}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "packages": packages | {backend: sys.modules[backend].__version__},
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": threads or os.cpu_count(),
        "git": _git_state(),
        "peak_memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10)),
    }


def group_by_training(records):
    """Group run.json dicts by training; a joint network has one record per task."""
    groups = {}
    for record in records:
        key = [record[name] for name in ("notebook", "finished", "seconds")]
        key += [record["parameters"].get(name) for name in ("part", "fold")]
        groups.setdefault(tuple(key), []).append(record)
    return list(groups.values())


def short_commit(record):
    """Shorten the git commit of a run.json for display."""
    commit = record["git"]["commit"]
    changes = "" if record["git"]["clean"] else " and changes"
    return commit[:10] + changes if commit else "not from git"


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*: (.+)", text)
    return model[1] if model else platform.processor() or platform.machine()


def _git_state():
    command = ["git", "status", "--porcelain=v2", "--branch", "--", ":!results"]
    settings = {"cwd": ROOT, "text": True, "stderr": subprocess.DEVNULL}
    try:
        commit, *lines = subprocess.check_output(command, **settings).splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}  # a downloaded archive
    is_clean = all(line.startswith("#") for line in lines)
    return {"commit": commit.split()[-1], "clean": is_clean}
