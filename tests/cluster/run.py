"""Does a sweep on a cluster that loses a node end with the tables of one machine? Run by `make cluster-test`, as root.

A real SLURM (Debian's) is started on this host, with two nodes of one core each, and takes the sweep beside this file
as jobs through profiles/slurm. When three of its folds are done, the second node goes as in a power cut: its slurmd and
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
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import nbformat
import pandas as pd
import psutil

from braintumor.files import ROOT, atomic, write_json
from braintumor.phantom import write_phantom
from braintumor.provenance import machine

NODES = ("n1", "n2")
PROFILE = Path(__file__).with_name("sweep.yaml")
RUN = f"{PROFILE.stem}-phantom"
# all of a run but the book, which is not tested here
CODE = """
import sys
from braintumor import execution
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
        for run in ("full", "leakage"):  # without them a run has no pages of committed results
            shutil.rmtree(clones[name] / "results" / run)
    with slurm(folder / "slurm") as (environment, nodes):
        began = time.monotonic()
        sweep = start(clones["cluster"], folder, environment, "slurm")
        stop_in_the_middle(sweep, clones["cluster"], nodes["n2"], environment)
        if sweep.wait():
            raise SystemExit(f"the sweep on the cluster failed; all is kept in {folder}")
        minutes = {"cluster": round((time.monotonic() - began) / 60, 1)}
        jobs = jobs_of(environment)
    began = time.monotonic()
    if start(clones["alone"], folder, os.environ).wait():
        raise SystemExit(f"the sweep on one machine failed; all is kept in {folder}")
    minutes["one machine"] = round((time.monotonic() - began) / 60, 1)
    tables, equal = compared(*(clone / "results" / RUN for clone in clones.values()))
    figures = {
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **{name: value for name, value in machine(1).items() if name in ("git", "processor", "threads")},
        "versions": {
            "slurm": subprocess.check_output(["sinfo", "--version"], text=True).split()[1],
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
    """A cluster in `folder`, ended afterwards: yields (environment of its commands, {node: its slurmd's process})."""
    for part in ("state", *NODES):
        (folder / part).mkdir(parents=True)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    memory = psutil.virtual_memory().total // 2**20 // 2
    path = folder / "slurm.conf"
    path.write_text(CONFIGURATION.format(folder=folder, host=socket.gethostname(), ports=ports, memory=memory))
    environment = os.environ | {"SLURM_CONF": str(path)}
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    keys = {name: folder / f"munge.{name}" for name in ("key", "socket", "pid", "log", "seed")}
    options = {"key": "key-file", "socket": "socket", "pid": "pid-file", "log": "log-file", "seed": "seed-file"}
    with ExitStack() as stack:
        daemons = {"munged": ["--foreground", "--force", *(f"--{options[name]}={keys[name]}" for name in keys)]}
        daemons |= {"slurmctld": ["-D"], **{node: ["-D", "-N", node] for node in NODES}}
        begun = {}
        for name, arguments in daemons.items():
            program = "slurmd" if name in NODES else name
            log = stack.enter_context(open(folder / f"{name}.out", "w"))
            # the mark finds all that a node has started, whatever it calls itself
            marked = environment | ({"SLURMD_NODENAME": name} if name in NODES else {})
            begun[name] = subprocess.Popen([program, *arguments], env=marked, stdout=log, stderr=log)
            stack.callback(end, environment, name if name in NODES else None, begun[name])
            time.sleep(1)
        wait_for(lambda: asked(environment, "sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", "two idle nodes")
        yield environment, {node: begun[node] for node in NODES}


def end(environment, node, daemon):
    """Kill a daemon of this cluster and, as a power cut would, all that ran on its `node` (None for the others).

    SLURM's own processes go first: they would report that a job had died, which is not what a node without power does.
    """
    doomed = [psutil.Process(daemon.pid)] if daemon.poll() is None else []
    mark = (environment["SLURM_CONF"], node)
    for process in psutil.process_iter() if node else []:
        with suppress(psutil.Error):  # it has ended
            own = process.environ()
            if (own.get("SLURM_CONF"), own.get("SLURMD_NODENAME")) == mark:
                doomed += [process, *(one for one in process.parents() if one.name() == "slurmstepd")]
    for process in sorted(doomed, key=lambda one: not one.name().startswith("slurm")):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    daemon.wait()


def start(clone, folder, environment, *cluster):
    """Begin the sweep in a clone, with its own code; on the cluster if that is named."""
    environment = environment | {"PYTHONPATH": str(clone / "lib")}
    arguments = [PROFILE, folder / "phantom", *(clone / "profiles" / one for one in cluster)]
    return subprocess.Popen([sys.executable, "-c", CODE, *map(str, arguments)], cwd=clone, env=environment)


def stop_in_the_middle(sweep, clone, slurmd, environment):
    """Wait until a third of the folds is done and the second node trains another, and take that node away."""

    def reached():
        if sweep.poll() is not None:
            raise SystemExit("the sweep ended before its middle")
        done = len(list((clone / "results" / RUN).glob("*/classify/fold-*/run.json")))
        training = list((clone / "results" / RUN).glob("*/classify/.fold-*"))
        busy = asked(environment, "squeue", "-h", "-t", "running", "-w", "n2", "-o", "%i")
        return done >= 3 and training and busy.strip()

    wait_for(reached, "the middle of the sweep", seconds=3600)
    print(
        f"node n2 is lost, with job {asked(environment, 'squeue', '-h', '-w', 'n2', '-o', '%i %k').strip()}", flush=True
    )
    end(environment, "n2", slurmd)


def jobs_of(environment):
    """The jobs that the cluster was given: a table of what each was, where it ran last, restarts, and seconds there."""
    rows = []
    for line in asked(environment, "scontrol", "-o", "show", "job").splitlines():
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


def asked(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def wait_for(reached, what, seconds=60):
    """Ask until `reached()`; TimeoutError naming `what` after so many seconds."""
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not reached in {seconds} s")
        time.sleep(1)


if __name__ == "__main__":
    main()
