"""Does a sweep on a cluster that loses a node end with the tables of one machine? Run by `make cluster-test`, as root.

A real SLURM (Debian's) is started on this host, with two nodes of one core each, and takes the sweep beside this file
as jobs through workflow/profiles/slurm. When three of its folds are done, the second node goes as in a power cut: its slurmd and
all that it had started are killed. SLURM must give its job to the other node, and the sweep must end. The same sweep is
then run without SLURM, and each table of the two is compared byte by byte. Both run in clones of the last commit, in a
temporary folder that also holds all of SLURM: configuration, keys, state and logs. The figures go to results/tested.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nbformat
import pandas as pd
import psutil

from braintumor.core.files import ROOT, atomic, write_json
from braintumor.data.phantom import write_phantom
from braintumor.training.provenance import machine

NODES = ("n1", "n2")
CONF, MARK = Path("/etc/slurm/slurm.conf"), "BRAINTUMOR_CLUSTER_TEST"
PROFILE = Path(__file__).with_name("sweep.yaml")
RUN = f"{PROFILE.stem}-phantom"
# all of a run but the book, which is not tested here
CODE = """
import sys
from braintumor.workflow_engine import execution
execution.build_book = lambda profile: None
execution.run(sys.argv[1], sys.argv[2], 2, *sys.argv[3:])
"""
CONFIGURATION = """
ClusterName=braintumor
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SlurmdTimeout=20
MinJobAge=36000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory={memory}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory={memory}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def main():
    install()
    folder = Path(tempfile.mkdtemp(prefix="braintumor-cluster-"))
    write_phantom(folder / "phantom", patients=15, size=64, progress=False)
    clones = {}
    for name in ("cluster", "alone"):
        clones[name] = folder / name
        subprocess.run(["git", "clone", "--quiet", ROOT, clones[name]], check=True)
        shutil.rmtree(clones[name] / "results")  # without it a run has no pages of committed results
    of = {name: value for name, value in machine(1).items() if name in ("git", "processor", "threads")}
    with slurm(folder / "slurm"):
        began = time.monotonic()
        sweep = start(clones["cluster"], folder, "slurm")
        stop_in_the_middle(sweep, clones["cluster"], folder / "slurm")
        if sweep.wait():
            raise SystemExit(f"the sweep on the cluster failed; all is kept in {folder}")
        minutes = {"cluster": round((time.monotonic() - began) / 60, 1)}
        # asked while the cluster's configuration is there: without one SLURM does not even tell its version
        jobs, slurm_version = jobs_of(), asked("sinfo", "--version").split()[1]
    began = time.monotonic()
    if start(clones["alone"], folder).wait():
        raise SystemExit(f"the sweep on one machine failed; all is kept in {folder}")
    minutes["one machine"] = round((time.monotonic() - began) / 60, 1)
    tables, equal = compared(*(clone / "results" / RUN for clone in clones.values()))
    figures = {
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **of,
        "versions": {
            "slurm": slurm_version,
            **{name: version(name) for name in ("snakemake", "snakemake-executor-plugin-slurm")},
        },
        "nodes": len(NODES),
        "nodes lost": 1,
        "jobs": len(jobs),
        "jobs rescheduled": int((jobs["restarts"] > 0).sum()),
        "tables": tables,
        "tables equal": equal,
        "minutes": minutes,
        "seconds of a job beside its notebook": overhead(jobs, clones["cluster"]),
    }
    print(json.dumps(figures, indent=1))
    if equal < tables or not tables or not figures["jobs rescheduled"]:
        raise SystemExit(f"expected all tables equal and at least one job rescheduled; all is kept in {folder}")
    write_json(ROOT / "results/tested/cluster.json", figures)
    with atomic(ROOT / "results/tested/cluster.csv") as path:
        jobs.to_csv(path, index=False)
    shutil.rmtree(folder)


def install():
    """Debian's SLURM and munge, if they are not there."""
    if not shutil.which("slurmctld") or not shutil.which("munged"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "install", "-y", "-qq", "slurm-wlm", "munge"], env=quiet, check=True)


@contextmanager
def slurm(folder):
    """A cluster in `folder`; yields once both nodes are idle. Afterwards all that runs in it and for it is killed."""
    for part in ("state", *NODES):
        (folder / part).mkdir(parents=True)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    memory = psutil.virtual_memory().total // 2**20 // 2
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--foreground", "--force", *(f"--{name}={folder}/munge.{end}" for name, end in files.items())]
    try:
        with CONF.open("x") as file:  # jobs drop SLURM_CONF from their environment, so it must stand where all look
            file.write(CONFIGURATION.format(folder=folder, host=socket.gethostname(), ports=ports, memory=memory))
    except FileExistsError:
        raise SystemExit(f"{CONF} is there: this host has a SLURM of its own, which is left alone") from None
    try:
        daemons = {"munged": munge, "slurmctld": ["slurmctld", "-D"]}
        for name, command in (daemons | {node: ["slurmd", "-D", "-N", node] for node in NODES}).items():
            with (folder / f"{name}.out").open("w") as log:
                subprocess.Popen(command, env=marked(folder, name), stdout=log, stderr=log)
            time.sleep(1)
        wait_for(lambda: asked("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", "two idle nodes")
        yield
    finally:
        end(folder)
        CONF.unlink()


def marked(folder, node=""):
    """An environment by which `end` finds a process, and what that starts in its turn."""
    return os.environ | {MARK: str(folder)} | ({"SLURMD_NODENAME": node} if node in NODES else {})


def end(folder, node=None):
    """Kill all processes of the cluster in `folder`, or, as a power cut would, all on one `node` of it.

    SLURM's own go first: they would report that a job had died, which is not what a node without power does.
    """
    doomed = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            own = process.environ()
            if own.get(MARK) == str(folder) and node in (None, own.get("SLURMD_NODENAME")):
                doomed |= {process, *(one for one in process.parents() if one.name() == "slurmstepd")}
    for process in sorted(doomed, key=lambda one: not one.name().startswith("slurm")):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def start(clone, folder, *cluster):
    """Begin the sweep in a clone, with its own code; on the cluster whose profile is named."""
    environment = marked(folder / "slurm") | {"PYTHONPATH": str(clone / "lib")}
    arguments = [PROFILE, folder / "phantom", *(clone / "profiles" / one for one in cluster)]
    return subprocess.Popen([sys.executable, "-c", CODE, *map(str, arguments)], cwd=clone, env=environment)


def stop_in_the_middle(sweep, clone, cluster):
    """Wait until three folds are done and the second node trains another, and take that node away."""

    def reached():
        if sweep.poll() is not None:
            raise SystemExit("the sweep ended before its middle")
        done = len(list((clone / "results" / RUN).glob("*/classify/fold-*/run.json")))
        training = list((clone / "results" / RUN).glob("*/classify/.fold-*"))
        busy = asked("squeue", "-h", "-t", "running", "-w", "n2", "-o", "%i")
        return done >= 3 and training and busy.strip()

    wait_for(reached, "the middle of the sweep", seconds=3600)
    print(f"node n2 is lost, with job {asked('squeue', '-h', '-w', 'n2', '-o', '%i %k').strip()}", flush=True)
    end(cluster, "n2")


def jobs_of():
    """The jobs that the cluster was given: a table of what each was, where it ran last, restarts, and seconds there."""
    rows = []
    for line in asked("scontrol", "-o", "show", "job").splitlines():
        said = dict(word.split("=", 1) for word in line.split() if "=" in word)
        hours, minutes, seconds = map(int, said["RunTime"].split(":"))
        of = {"job": int(said["JobId"]), "rule": said["Comment"], "node": said["NodeList"], "state": said["JobState"]}
        rows.append(of | {"restarts": int(said["Restarts"]), "seconds": 3600 * hours + 60 * minutes + seconds})
    return pd.DataFrame(rows)


def overhead(jobs, clone):
    """Seconds of a fold's job that are not its notebook's: medians of both, of the jobs that ran once."""
    pages = (clone / "book/runs" / RUN).glob("*/08_both-fold-*.ipynb")
    notebooks = [nbformat.read(page, 4).metadata["papermill"]["duration"] for page in pages]
    folds = jobs[jobs["rule"].str.startswith("rule_08_both") & jobs["restarts"].eq(0)]
    return round(folds["seconds"].median() - median(notebooks), 1)


def compared(one, other):
    """How many tables two runs hold, and how many are the same byte for byte; times are in neither."""
    names = ("predictions.csv", "validation.csv", "scores.json")
    found = sorted({path.relative_to(run) for run in (one, other) for path in run.rglob("*") if path.name in names})
    same = [
        (one / path).exists() and (other / path).exists() and (one / path).read_bytes() == (other / path).read_bytes()
        for path in found
    ]
    return len(found), sum(same)


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(reached, what, seconds=60):
    """Ask until `reached()`; TimeoutError naming `what` after so many seconds."""
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not reached in {seconds} s")
        time.sleep(1)


if __name__ == "__main__":
    main()
