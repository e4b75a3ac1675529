"""Stop a run at random moments, go on, and compare its predictions (`make chaos`).

    python tools/chaos.py [SEED]

A clone of the last commit makes a tiny run (tools/chaos.yaml) undisturbed, then again
and again, each time stopped at random moments and continued by the same command after
`snakemake --unlock`. Writes chaos.csv and chaos.json; exits with 1 if a table differs
in a byte, if finished epochs are trained again, or if a stopped run leaves a process
or, by Ctrl-C or SIGTERM, a lock. Some 20 minutes. Needs Linux or macOS.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
from results import clone_project, find_processes, save_results, snakemake

from braintumor.data.phantom import write_phantom
from braintumor.training.provenance import collect_environment

N_STOPS = 28
RUN = "results/chaos-slices/single"
MARK = "BRAINTUMOR_CHAOS"  # environment variable of all processes of a run


class Attempt:
    """One call of Snakemake in a project, which may be a continued run."""

    def __init__(self, project):
        self.project, self.output = project, project.parent / "output.txt"
        self.started = time.perf_counter()
        config = Path(__file__).with_suffix(".yaml")
        options = (config, project.parent / "slices", [f"{RUN}/scores.json"])
        unlock = snakemake(project, *options, "--cores", "1", "--unlock")
        subprocess.run(**unlock, capture_output=True, check=True)
        command = snakemake(project, *options, "--cores", "2")
        command["env"][MARK] = str(project)
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                **command, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def stage(self):
        """The rule that Snakemake started last."""
        rules = re.findall(r"^(?:local)?rule (\w+):", self.output.read_text(), re.M)
        return rules[-1].replace("_", " ") if rules else "starting"

    @property
    def epochs(self):
        """The finished epochs: a list of (page, epoch)."""
        return re.findall(r"^(\S+) \| epoch +(\d+)/", self.output.read_text(), re.M)

    def find_processes(self):
        return find_processes(MARK, self.project)


def kill_snakemake_and_jobs(attempt):
    os.killpg(attempt.process.pid, signal.SIGKILL)


def kill_a_kernel(attempt):
    for process in attempt.find_processes():
        if "ipykernel_launcher" in process.cmdline():
            return process.kill()
    kill_snakemake_and_jobs(attempt)


def kill_everything(attempt):
    """Kill all processes of the run, as a power cut does."""
    for process in attempt.find_processes():
        process.kill()


def interrupt(attempt):
    os.killpg(attempt.process.pid, signal.SIGINT)


def terminate(attempt):
    attempt.process.terminate()


# kill -9, then Ctrl-C and SIGTERM
KILLS = (kill_snakemake_and_jobs, kill_a_kernel, kill_everything)
REQUESTS = (interrupt, terminate)


def read_tables(project):
    """Return {path: bytes} of all tables of finished folds."""
    paths = (project / RUN).glob("*/fold-1/*ions.csv")
    return {path.relative_to(project): path.read_bytes() for path in paths}


def stop_run(project, expected, duration, epochs, rng):
    """Start or continue a run and stop it at a random moment: a row of the table.

    `epochs` counts the finished epochs of the run so far.
    """
    attempt = Attempt(project)
    with suppress(subprocess.TimeoutExpired):
        attempt.process.wait(rng.uniform(0, duration))
    has_ended = attempt.process.poll() is not None
    way, faults = rng.choice(KILLS + REQUESTS), []
    stage = "the end" if has_ended else attempt.stage
    if not has_ended:
        way(attempt)
        attempt.process.wait()
        _, left = psutil.wait_procs(attempt.find_processes(), timeout=30)
        if left:
            kill_everything(attempt)
            faults.append("a process is left")
        if way in REQUESTS and any(project.glob(".snakemake/locks/*")):
            faults.append("a lock is left")
    elif attempt.process.returncode:
        sys.exit(f"{attempt.output.read_text()}\nA continued run failed.")
    repeated = sum(epochs[epoch] > 0 for epoch in attempt.epochs)
    epochs.update(attempt.epochs)
    tables = read_tables(project)
    n_equal = sum(content == expected[path] for path, content in tables.items())
    if n_equal < (len(expected) if has_ended else len(tables)):
        faults.append("tables differ")
    if repeated > 1:
        faults.append("finished epochs are repeated")
    return {
        "stage": stage,
        "seconds": round(time.perf_counter() - attempt.started, 1),
        "stopped by": "" if has_ended else way.__name__.replace("_", " "),
        "epochs repeated": repeated,
        "tables": len(tables),
        "equal": n_equal,
        "fault": "; ".join(faults),
    }


def main(seed):
    rng, rows, n_stops = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        project = clone_project(Path(folder).resolve() / "project")
        write_phantom(project.parent / "slices", 15, size=64)
        attempt = Attempt(project)
        attempt.process.wait()
        duration, expected = time.perf_counter() - attempt.started, read_tables(project)
        if attempt.process.returncode or not expected:
            sys.exit(f"{attempt.output.read_text()}\nThe undisturbed run failed.")
        while n_stops < N_STOPS:
            subprocess.run(["git", "clean", "-fdxq"], cwd=project, check=True)
            epochs = Counter()
            while True:
                rows.append(stop_run(project, expected, duration, epochs, rng))
                print(*rows[-1].values(), sep="\t", flush=True)
                if not rows[-1]["stopped by"]:
                    break
                n_stops += 1
    table = pd.DataFrame(rows)
    is_kill = table["stopped by"].str.startswith("kill")
    record = {
        "seed": seed,
        "kills": int(is_kill.sum()),
        "stopped by Ctrl-C or SIGTERM": n_stops - int(is_kill.sum()),
        "runs continued to the end": int(table["stopped by"].eq("").sum()),
        "tables compared": int(table["tables"].sum()),
        "tables equal byte for byte": int(table["equal"].sum()),
        "most epochs repeated after a stop": int(table["epochs repeated"].max()),
        "faults": int(table["fault"].ne("").sum()),
    }
    print(record)
    save_results("chaos", table, record | collect_environment(threads=1))
    return 1 if record["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
