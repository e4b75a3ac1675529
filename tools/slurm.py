"""A SLURM of two nodes on this host, one core each, in one folder (Debian, root)."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
from results import find_processes

NODES = ("n1", "n2")
MARK = "BRAINTUMOR_CLUSTER_TEST"  # environment variable of all processes of the cluster
CONF = Path("/etc/slurm/slurm.conf")  # where jobs find it: they drop SLURM_CONF
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
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {node}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {node}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def install_slurm():
    """Install Debian's SLURM and munge where they are missing."""
    if not (shutil.which("slurmctld") and shutil.which("munged")):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        install = ["apt-get", "install", "-y", "-qq", "slurm-wlm", "munge"]
        subprocess.run(install, env=environment, check=True)


@contextmanager
def run_slurm(folder):
    """Run the cluster; yields once both nodes are idle, and kills all of it at last."""
    for name in ("state", *NODES):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    options = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
    options |= {"log-file": "log", "seed-file": "seed"}
    files = [f"--{name}={folder}/munge.{end}" for name, end in options.items()]
    daemons = {"munged": ["munged", "--foreground", "--force", *files]}
    daemons |= {"slurmctld": ["slurmctld", "-D"]}
    daemons |= {node: ["slurmd", "-D", "-N", node] for node in NODES}
    write_configuration(folder)
    try:
        for name, command in daemons.items():
            with (folder / f"{name}.out").open("w") as log:
                environment = mark_environment(folder, name)
                subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            time.sleep(1)
        idle = ("sinfo", "-h", "-t", "idle", "-o", "%D")
        wait_for(lambda: read_output(*idle).strip() == "2", "two idle nodes")
        yield
    finally:
        kill_processes(folder)
        CONF.unlink()


def write_configuration(folder):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    node = f"CPUs=1 RealMemory={psutil.virtual_memory().total // 2**21}"
    values = {"folder": folder, "host": socket.gethostname()}
    try:
        with CONF.open("x") as file:
            file.write(CONFIGURATION.format(**values, ports=ports, node=node))
    except FileExistsError:
        raise SystemExit(f"{CONF} exists: this host has a SLURM, left alone") from None


def mark_environment(folder, node=""):
    """Return an environment by which `kill_processes` finds a process tree."""
    environment = os.environ | {MARK: str(folder)}
    return environment | ({"SLURMD_NODENAME": node} if node in NODES else {})


def kill_processes(folder, node=None):
    """Kill all processes of the cluster, or, as a power cut would, of one node.

    SLURM's are killed first: they would report that a job has died, which a node
    without power does not do.
    """
    doomed = set()
    for process in find_processes(MARK, folder):
        with suppress(psutil.Error):  # it has ended
            if node in (None, process.environ().get("SLURMD_NODENAME")):
                parents = process.parents()
                doomed |= {process, *(p for p in parents if p.name() == "slurmstepd")}
    for process in sorted(doomed, key=lambda p: not p.name().startswith("slurm")):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def list_jobs():
    """Return the jobs of the cluster: rule, last node, state, restarts, seconds."""
    rows = []
    for line in read_output("scontrol", "-o", "show", "job").splitlines():
        job = dict(word.split("=", 1) for word in line.split() if "=" in word)
        hours, minutes, seconds = map(int, job["RunTime"].split(":"))
        row = {"job": int(job["JobId"]), "rule": job["Comment"]}
        row |= {"node": job["NodeList"], "state": job["JobState"]}
        row |= {"restarts": int(job["Restarts"])}
        rows.append(row | {"seconds": 3600 * hours + 60 * minutes + seconds})
    return pd.DataFrame(rows)


def read_output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_for(condition, what, seconds=60):
    """Wait until `condition()` holds; raise TimeoutError naming `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not reached in {seconds} s")
        time.sleep(1)
