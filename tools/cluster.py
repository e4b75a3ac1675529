"""Compare a sweep on a cluster that loses a node with one machine.

`make cluster-test`, on Debian as root. A SLURM of two nodes on this host runs the sweep
of cluster.yaml by workflow/profiles/slurm. When three folds are finished, the second
node is lost as in a power cut. SLURM must reschedule its job, and the sweep must end.
The same sweep is then run without SLURM, and the tables are compared byte for byte.
Both run in clones of the last commit. Writes cluster.csv and cluster.json.
"""

import json
import shutil
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
import slurm
from results import clone_project, save_results, snakemake
from slurm import read_output

from braintumor.data.phantom import write_phantom
from braintumor.training.provenance import collect_environment

PROFILE = Path(__file__).with_suffix(".yaml")
RUN = f"results/{PROFILE.stem}-slices"
SEEDS = ("seed-1", "seed-2")
TABLES = ("predictions.csv", "validation.csv", "scores.json")


def start_sweep(project, *options):
    """Start the sweep in a clone; the pages and the book are not made."""
    scores = [f"{RUN}/{seed}/joint/scores.json" for seed in SEEDS]
    data = project.parent / "slices"
    command = snakemake(project, PROFILE, data, scores, *options)
    command["env"][slurm.MARK] = str(project.parent / "slurm")
    return subprocess.Popen(**command)


def lose_node(sweep, project):
    """Kill node n2 when three folds are finished and it trains another."""

    def is_reached():
        if sweep.poll() is not None:
            raise SystemExit("The sweep ended before its middle.")
        finished = list((project / RUN).glob("*/joint/classify/fold-*/run.json"))
        training = list((project / RUN).glob("*/joint/classify/.fold-*"))
        busy = read_output("squeue", "-h", "-t", "running", "-w", "n2", "-o", "%i")
        return len(finished) >= 3 and training and busy.strip()

    slurm.wait_for(is_reached, "the middle of the sweep", seconds=3600)
    job = read_output("squeue", "-h", "-w", "n2", "-o", "%i %k").strip()
    print(f"node n2 is lost, with job {job}", flush=True)
    slurm.kill_processes(project.parent / "slurm", "n2")


def measure_overhead(jobs, project):
    """Return the median seconds of a fold's job that are not its notebook's."""
    pages = (project / RUN).glob("*/pages/labs/04_joint-fold-*.ipynb")
    notebooks = [nbformat.read(page, 4).metadata["papermill"] for page in pages]
    durations = sorted(notebook["duration"] for notebook in notebooks)
    is_fold = jobs["rule"].str.startswith("rule_train_joint") & jobs["restarts"].eq(0)
    seconds = jobs["seconds"][is_fold].median() - durations[len(durations) // 2]
    return round(float(seconds), 1)


def compare_tables(first, second):
    """Count the tables of two runs, and those that are equal byte for byte."""

    def read_tables(run):
        paths = [path for path in run.rglob("*") if path.name in TABLES]
        return {path.relative_to(run): path.read_bytes() for path in paths}

    tables = [read_tables(run) for run in (first, second)]
    names = tables[0].keys() | tables[1].keys()
    return len(names), sum(tables[0].get(n) == tables[1].get(n) for n in names)


def main():
    slurm.install_slurm()
    folder = Path(tempfile.mkdtemp(prefix="braintumor-cluster-"))
    write_phantom(folder / "slices", 15, size=64)
    cluster, machine = (clone_project(folder / name) for name in ("cluster", "machine"))
    minutes = {}
    with slurm.run_slurm(folder / "slurm"):
        started = time.monotonic()
        sweep = start_sweep(cluster, "--profile", "workflow/profiles/slurm")
        lose_node(sweep, cluster)
        if sweep.wait():
            raise SystemExit(f"The sweep on the cluster failed; see {folder}.")
        minutes["cluster"] = round((time.monotonic() - started) / 60, 1)
        jobs, slurm_version = slurm.list_jobs(), read_output("sinfo", "--version")
    started = time.monotonic()
    if start_sweep(machine, "--cores", "2").wait():
        raise SystemExit(f"The sweep on one machine failed; see {folder}.")
    minutes["one machine"] = round((time.monotonic() - started) / 60, 1)
    n_tables, n_equal = compare_tables(cluster / RUN, machine / RUN)
    packages = ("snakemake", "snakemake-executor-plugin-slurm")
    versions = {name: version(name) for name in packages}
    record = collect_environment(threads=1) | {
        "versions": {"slurm": slurm_version.split()[1]} | versions,
        "nodes": 2,
        "nodes lost": 1,
        "jobs": len(jobs),
        "jobs rescheduled": int((jobs["restarts"] > 0).sum()),
        "tables": n_tables,
        "tables equal": n_equal,
        "minutes": minutes,
        "seconds of a job beside its notebook": measure_overhead(jobs, cluster),
    }
    print(json.dumps(record, indent=1))
    if n_equal < n_tables or not n_tables or not record["jobs rescheduled"]:
        raise SystemExit(f"Tables differ, or no job was rescheduled; see {folder}.")
    save_results("cluster", jobs, record)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
