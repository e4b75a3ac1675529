"""Stop a run again and again, at random moments of each of its stages, and see what comes out in the end.

    python tools/chaos.py [SEED]

A tiny run (tools/chaos.yaml) is made in a copy of the project: once undisturbed, then in passes that are stopped many
times, by kill -9, by Ctrl-C and by SIGTERM, and continued by the same command. Prints a line a stop, and writes
results/tested/chaos.csv and chaos.json. Exits with 1 if a table differs in a byte from the undisturbed run's, if a stop
cost more than one epoch, or if Ctrl-C or SIGTERM left no sentence, a lock or something running. It takes minutes, so it
is no part of the tests. Needs Linux or macOS.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import psutil
from results import keep

from braintumor.core.files import ROOT
from braintumor.core.processes import left_over
from braintumor.data.phantom import write_phantom
from braintumor.training.provenance import machine

RUN, EPOCHS = "chaos-phantom", 8
# The stages of a run, the last first, and what of the project is new while one is under way.
STAGES = {
    "building the book": "_build/new",
    "evaluating": f"book/runs/{RUN}/partial/04_evaluate.ipynb",
    "keeping the result": f"results/{RUN}/*/.fold-1-*/predictions.csv",
    "writing a checkpoint": f"results/{RUN}/*/.fold-1-*/.*.weights.h5",
    "in an epoch": f"results/{RUN}/*/.fold-1.lock",
    "starting notebooks": f"book/runs/{RUN}/run.yaml",
    "preparing": "data/prepared/*/.*.unfinished-*",
    "starting": "results/.run.lock",
}
KILLED_IN = [
    *("starting", "preparing", "starting notebooks", "in an epoch", "in an epoch", "writing a checkpoint"),
    *("in an epoch", "keeping the result", "evaluating", "building the book"),
]
STOPPED_IN = ["preparing", "in an epoch", "evaluating", "building the book"]
LINE = "{:22} {:>7}  {:17} {:>5} {:>3} {:>9} {:>7} {:>6}  {}"
SENTENCE = "braintumor: stopped; what was finished is kept, the same command goes on from there"


def copy_of_project(folder):
    """The project as it is here, committed or not, with the scores that prose names, no other results; and slices."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        wanted = not name.startswith(("results/", "models/")) or name == "results/full/scores.json"
        if wanted and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "tools/chaos.yaml", folder / "config")
    write_phantom(folder / "data/slices", patients=15, size=64, progress=False)


class Attempt:
    """The command, given once: the process, what it says, and which stage it is in."""

    def __init__(self, project):
        self.project, self.began = project, time.time() - 0.02  # a file's time can be that much behind
        self.output = project / "output.txt"
        command = [sys.executable, "-m", "braintumor.cli", "run", "--profile", "chaos", "--data", "data/slices"]
        environment = os.environ | {"PYTHONPATH": str(project / "lib"), "PYTHONUNBUFFERED": "1"}
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                command, cwd=project, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def stage(self):
        return next((stage for stage, path in STAGES.items() if any(map(self._new, self.project.glob(path)))), "")

    def _new(self, path):
        try:
            return path.stat().st_mtime > self.began
        except FileNotFoundError:
            return False

    def wait_for(self, stage):
        """Whether the run comes to a stage."""
        while self.process.poll() is None:
            if self.stage() == stage:
                return True
            time.sleep(0.002)
        return False


def kill_the_command(attempt):
    attempt.process.kill()


def kill_its_group(attempt):
    os.killpg(attempt.process.pid, signal.SIGKILL)


def kill_a_kernel(attempt):
    kernels = [process for process in left_over(attempt.project) if "ipykernel_launcher" in process.cmdline()]
    (kernels or [attempt.process])[0].kill()


def kill_everything(attempt):
    """As a power cut does."""
    watchdog = psutil.Process(attempt.process.pid).children()
    for process in [*watchdog, *left_over(attempt.project), attempt.process]:
        process.kill()


def ctrl_c(attempt):
    os.killpg(attempt.process.pid, signal.SIGINT)


def sigterm(attempt):
    attempt.process.terminate()


KILLS = [kill_the_command, kill_its_group, kill_a_kernel, kill_everything]


def tables(project):
    """What must be the same: the predictions of all folds that are finished, {path: bytes}."""
    return {path.relative_to(project): path.read_bytes() for path in (project / "results").glob("*/*/fold-1/*ions.csv")}


def kept_epochs(project):
    """Epochs that are kept, {task: number}."""
    kept = {"classify": 0, "segment": 0}
    for task in kept:
        for path in (project / f"results/{RUN}/{task}").glob("*fold-1*/history.csv"):
            kept[task] = len(pd.read_csv(path))
    return kept


def said_epochs(output):
    """The last epoch that was said to be done, {task: number}."""
    said = re.findall(rf"(classify|segment)-fold-1 \| epoch +(\d+)/{EPOCHS}", output)
    return {
        task: max([int(epoch) for name, epoch in said if name == task], default=0) for task in ("classify", "segment")
    }


def undisturbed(project):
    """The run from beginning to end: its tables, and the mean seconds that it stays in each stage."""
    attempt, stays = Attempt(project), defaultdict(list)
    last, since = "", time.time()
    while attempt.process.poll() is None:
        if (stage := attempt.stage()) != last:
            stays[last].append(time.time() - since)
            last, since = stage, time.time()
        time.sleep(0.002)
    stays[last].append(time.time() - since)
    if attempt.process.returncode:
        sys.exit(attempt.output.read_text() + "\nthe undisturbed run failed")
    missing = set(STAGES) - set(stays)
    if missing:
        sys.exit(f"stages that were not seen in the undisturbed run: {missing}")
    return tables(project), {stage: sum(stays[stage]) / len(stays[stage]) for stage in STAGES}


def stop(project, stage, wait, way, whole):
    """Give the command, stop it `wait` seconds after it has come to `stage`; what was found, as a row."""
    attempt = Attempt(project)
    met = attempt.wait_for(stage)
    time.sleep(wait if met else 0)
    seconds, found = time.time() - attempt.began, attempt.stage()
    training = {path.parent.name for path in project.glob(STAGES["in an epoch"]) if attempt._new(path)}
    if ended := attempt.process.poll() is not None:
        found = "at its end"
    else:
        way(attempt)
    code = attempt.process.wait()
    output, kept = attempt.output.read_text(), kept_epochs(project)
    said, there = said_epochs(output), tables(project)
    repeated = {task: max(0, said[task] - kept[task]) + (task in training and kept[task] < EPOCHS) for task in kept}
    equal = sum(content == whole[path] for path, content in there.items())
    faults = [] if equal == len(there) else ["tables differ"]
    faults += ["more than one epoch is lost"] if max(repeated.values()) > 1 else []
    if way in (ctrl_c, sigterm) and not ended:
        faults += (
            [] if (code, SENTENCE in output, "Traceback" in output) == (130, True, False) else ["no clear sentence"]
        )
        faults += ["something is left running"] if left_over(attempt.project) else []
        faults += ["a lock is left"] if (project / STAGES["starting"]).exists() else []
    if "no clear sentence" in faults:
        print(output)
    return shown(found, seconds, None if ended else way, kept, max(repeated.values()), len(there), equal, faults)


def shown(stage, seconds, way, kept, repeated, there, equal, faults):
    """A row of the table, printed."""
    row = {"stage": stage, "seconds": round(seconds, 1), "stopped by": way.__name__.replace("_", " ") if way else ""}
    row |= {f"{task} epochs kept": kept[task] for task in kept}
    row |= {"epochs repeated": repeated, "tables": there, "equal": equal, "fault": "; ".join(faults)}
    print(LINE.format(*row.values()), flush=True)
    return row


def from_nothing(project):
    for folder in (f"results/{RUN}", "book/runs", "data/prepared", "_build", ".snakemake"):
        shutil.rmtree(project / folder, ignore_errors=True)


def one_pass(project, stages, ways, draw, whole, stays):
    """One run that is stopped in each of `stages` and then left alone: a row for each stop, and one for the end."""
    from_nothing(project)
    rows = []
    for stage in stages:
        wait, way = draw.uniform(0, stays[stage]), draw.choice(ways)
        rows.append(stop(project, stage, wait, way, whole))
        if not rows[-1]["stopped by"]:  # it had come to its end: once more, from the start
            from_nothing(project)
            rows.append(stop(project, stage, wait, way, whole))
    last = Attempt(project)
    code, there, kept = last.process.wait(), tables(project), kept_epochs(project)
    equal = sum(content == whole[path] for path, content in there.items())
    faults = [] if code == 0 and equal == len(whole) else ["the last command did not end with the same tables"]
    if faults:
        print(last.output.read_text())
    rows.append(shown("the end", time.time() - last.began, None, kept, 0, len(there), equal, faults))
    return rows


def main(seed):
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch).resolve() / "project"
        copy_of_project(project)
        whole, stays = undisturbed(project)
        print("seconds in each stage:", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stays.items()))
        print(LINE.format("stage", "seconds", "stopped by", "kept", "", "repeated", "tables", "equal", ""))
        passes = [(KILLED_IN, KILLS), (KILLED_IN, KILLS), (STOPPED_IN, [ctrl_c]), (STOPPED_IN, [sigterm])]
        rows = [row for given in passes for row in one_pass(project, *given, draw, whole, stays)]
    table = pd.DataFrame(rows)
    kills = table["stopped by"].str.startswith("kill ")
    record = {
        "seed": seed,
        "kills": int(kills.sum()),
        "stopped by Ctrl-C or SIGTERM": int((~kills & table["stopped by"].ne("")).sum()),
        "runs continued to the end": int(table["stage"].eq("the end").sum()),
        "tables compared": int(table["tables"].sum()),
        "tables equal byte for byte": int(table["equal"].sum()),
        "most epochs repeated after a stop": int(table["epochs repeated"].max()),
        "faults": int(table["fault"].ne("").sum()),
    }
    print(*(f"{name}: {value}" for name, value in record.items()), sep="\n")
    keep("chaos", table, record | machine(threads=1))
    return 1 if record["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
