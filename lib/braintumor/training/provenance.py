"""Where a number comes from: the record kept beside every fold, and the lines that open every page."""

import ast
import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import nbformat
from IPython.display import HTML, Markdown

from braintumor.core.files import ROOT
from braintumor.data.prepared import KINDS

PACKAGES = ("keras", "tensorflow", "numpy", "scikit-learn", "h5py", "pandas")
TRAINING_CODE = (
    "data/splits",
    "training/augmentation",
    "models/original",
    "training/loop",
    "evaluation/masks",
    "evaluation/metrics",
)
# what cells that train import, by the names that the modules had before they came into packages; see _as_before
BEFORE = {
    "data.prepared": "dataset",
    "data.splits": "splits",
    "evaluation.masks": "predict",
    "evaluation.metrics": "metrics",
    "evaluation.scores": "evaluate",
    "models.original": "models",
    "plots.figures": "figures",
    "training.augmentation": "pipeline",
    "training.loop": "training",
    "training.provenance": "provenance",
}
FOLDS_FROM = {
    "cvind": "from cvind.mat",
    "given": "as given in slices.csv",
    "made": "made by family, since the data names none",
}
# parameters that do not change what is computed; data has a digest
SHOW_ONLY = ("data", "results", "threads", "tried", "change")


def run_digest(notebook, parameters, data):
    """SHA-256 of what decides a fold's result: parameters, the data's pixels, and the code that trains.

    The code is that of the notebook's cells tagged `train` (and `train-TASK`, where the parameters name a task), and
    of what they reach in lib/'s modules for training; without comments, docstrings and layout. So neither a reworded
    sentence nor a network that this fold does not use asks for hours of training.
    """
    decisive = {name: value for name, value in parameters.items() if name not in SHOW_ONLY}
    tags = {"train", f"train-{parameters.get('task')}"}
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
    code = [_as_before(_plain(cell.source)) for cell in cells if tags & set(cell.metadata.get("tags", []))]
    content = json.dumps(
        [notebook, decisive, data.about["digest"], [ast.dump(tree) for tree in code], _reached(code)], sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _reached(code):
    """The definitions in TRAINING_CODE whose names occur in `code` (syntax trees), or in one that is reached: texts.

    By name alone: one too many is harmless, and nothing has to be run to know it. How data are read and prepared is not
    among it (their pixels have a digest of their own), nor how FoldRun writes what it is given.
    """
    known = {}
    for module in TRAINING_CODE:
        for node in _plain((Path(__file__).parents[1] / f"{module}.py").read_text()).body:
            for name in _defined(node):
                known.setdefault(name, []).append(node)
    reached, waiting = set(), list(code)
    while waiting:
        names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(waiting.pop())}
        for name in names & set(known):
            found = known.pop(name)
            waiting += found
            reached |= {ast.dump(node) for node in found}
    return sorted(reached)


def _defined(node):
    """The names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _plain(source):
    """The syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]
    return tree


def _as_before(tree):
    """The syntax tree of a cell, its imports of the package as they read before the modules came into packages: digests
    of folds trained until then have them so, and a module's place changes nothing of what is computed.
    """
    others, modules, parts, first = [], [], {}, 0
    for node in tree.body:
        place = (node.module or "").removeprefix("braintumor.") if isinstance(node, ast.ImportFrom) else ""
        if place in BEFORE:
            parts[BEFORE[place]] = node.names
        elif place and all(f"{place}.{one.name}" in BEFORE for one in node.names):
            modules += [BEFORE[f"{place}.{one.name}"] for one in node.names]
        else:
            others.append(node)
            continue
        first = first or len(others)
    before = [ast.ImportFrom("braintumor", [ast.alias(name) for name in sorted(modules)], 0)] if modules else []
    before += [ast.ImportFrom(f"braintumor.{name}", parts[name], 0) for name in sorted(parts)]
    tree.body = [*others[:first], *before, *others[first:]]
    return tree


def _is_text(line):
    return isinstance(line, ast.Expr) and isinstance(getattr(line.value, "value", None), str)


def machine(threads):
    """Versions, processor, threads, git commit and peak memory of this process so far."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": threads or os.cpu_count(),
        "git": _git(),
        "peak_memory_mb": _peak_memory_mb(),
    }


def _version(name):
    return version("tensorflow-cpu" if name == "tensorflow" and _has("tensorflow-cpu") else name)


def _has(name):
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain", ":!results")}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}  # a downloaded archive, not a clone


def _peak_memory_mb():
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if platform.system() == "Darwin" else 2**10))


def data_banner(about):
    """A plain banner that says which data a page shows; `about` is a prepared set's, or run.json's, data record."""
    color = "#E69F00" if about["kind"] == "phantom" else "#0072B2"
    return HTML(
        f'<div class="data-banner" style="border-left: 6px solid {color}; padding: .4em 1em">'
        f"<strong>Data on this page: {KINDS[about['kind']]}.</strong><br>"
        f"{about['slices']:,} slices, prepared at {about['size']} pixels a side; folds {FOLDS_FROM[about['folds']]}; "
        f"digest of the pixels {about['digest'][:12]}.</div>"
    )


def run_line(record):
    """One line of Markdown from a run.json: what made the numbers on this page."""
    given = record["parameters"]
    took = f"{_counted(record['epochs'], 'epoch')} in {record['seconds'] / 60:.1f} min"
    where = f"{_counted(record['threads'], 'thread')} ({record['processor']}), {record['peak_memory_mb']:,} MB"
    note = f" ({record['note']})" if "note" in record else ""  # what else a reader should know of how it was made
    return Markdown(
        f"*This page's numbers: run `{record['digest'][:12]}`, {given['protocol']} split, {_what(record)}, "
        f"seed {given['seed']}, {took} on {where}, Keras {record['packages']['keras']}, "
        f"commit `{commit(record)}`, {record['finished']}{note}.*"
    )


def trainings(records):
    """The run.json dicts of each training: a list of lists, of one record or of the two of a network for both tasks."""
    found = {}
    for record in records:
        given = record["parameters"]
        which = record["notebook"], given.get("part"), given.get("fold"), record["finished"], record["seconds"]
        found.setdefault(which, []).append(record)
    return list(found.values())


def run_table(records):
    """What made the numbers on a page of several runs: Markdown, a sentence of what they share and a row for each.

    The two records of a network for both tasks are one row. Of one run it is `run_line`.
    """
    if len(records) == 1:
        return run_line(records[0])

    def shared(values):
        return ", ".join(dict.fromkeys(map(str, values)))

    lines = ["| | run | epochs | minutes | MB | commit | finished |", "|---|---|--:|--:|--:|---|---|"]
    found, notes = trainings(records), {}
    for what, several in zip(_names([several[0] for several in found]), found, strict=True):
        runs = ", ".join(f"`{record['digest'][:12]}`" for record in several)
        memory, first = max(record["peak_memory_mb"] for record in several), several[0]
        lines.append(
            f"| {what} | {runs} | {first['epochs']} | {first['seconds'] / 60:.1f} | {memory:,} | `{commit(first)}` "
            f"| {first['finished'].removesuffix(' UTC')} |"
        )
        if "note" in first:
            notes.setdefault(first["note"], []).append(what)
    split, seed = (shared(record["parameters"][name] for record in records) for name in ("protocol", "seed"))
    where = shared(f"{_counted(record['threads'], 'thread')} ({record['processor']})" for record in records)
    versions = shared(record["packages"]["keras"] for record in records)
    told = f"*This page's numbers: {split} split, seed {seed}, {where}, Keras {versions}.*"
    noted = [f"*{'; '.join(names)}: {note}.*\n" for note, names in notes.items()]
    return Markdown("\n".join([told, "", *lines, "", *noted]))


def _names(records):
    """What tells each training from the others: notebook and fold, and what else differs, if these are not enough."""
    names = [f"{record['notebook']}, {_what(record).replace('tested on ', '')}" for record in records]
    for parameter in ("change", "protocol", "task"):
        values = [record["parameters"].get(parameter) for record in records]
        if len(set(names)) < len(names) and len(set(values)) > 1:
            names = [f"{name}, {value}" if value else name for name, value in zip(names, values, strict=True)]
    return names


def _what(record):
    given = record["parameters"]
    return given["part"] if "part" in given else f"tested on fold {given['fold']}"


def commit(record):
    """The code of a run.json, or of `machine`, in a few characters."""
    full, clean = record["git"]["commit"], record["git"]["clean"]
    return full[:10] + ("" if clean else " and changes") if full else "not from git"


def _counted(number, what):
    return f"{number} {what}" + ("" if number == 1 else "s")
