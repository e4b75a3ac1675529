"""One process at a fold, one run in a project, and nothing that outlives its run."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from braintumor.core import processes
from braintumor.core.errors import BusyError
from braintumor.core.files import atomic_folder

CLAIM = """
import sys, time
from pathlib import Path
from braintumor.core import processes
lock = processes.claim(Path(sys.argv[1]), "fold 1 is being trained")
print("claimed", flush=True)
sys.stdin.read()
processes.release(lock)
"""
# A run: it starts a child in a session of its own, as Jupyter starts kernels, which starts another.
RUN = """
import subprocess, sys, time
from pathlib import Path
from braintumor.core import processes
child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
with processes.alone(Path(sys.argv[1]), "a run is being made"):
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    print("at work", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(code, *arguments):
    """Run code in another process; returns it once it has printed a line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline()
    return process


def wait_until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def has_ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody has asked how it ended
    except psutil.NoSuchProcess:
        return True


def test_second_process_is_told_who_is_at_work_until_the_first_is_through(tmp_path):
    path = tmp_path / "results/.fold-1.lock"
    first = start(CLAIM, path)
    with pytest.raises(BusyError, match=rf"fold 1 is being trained by another process \({first.pid} on .*, since 20"):
        processes.claim(path, "fold 1 is being trained")
    first.communicate("")
    assert not path.exists()
    processes.release(processes.claim(path, "fold 1 is being trained"))


def test_lock_of_a_killed_process_is_no_lock(tmp_path):
    path = tmp_path / ".fold-1.lock"
    first = start(CLAIM, path)
    first.kill()
    first.wait()
    assert json.loads(path.read_text())["process"] == first.pid
    lock = processes.claim(path, "fold 1 is being trained")
    assert json.loads(path.read_text())["process"] == os.getpid()
    processes.release(lock)


def test_lock_without_a_text_is_told_too(tmp_path):
    path = tmp_path / ".fold-1.lock"
    lock = processes.claim(path, "fold 1 is being trained")
    path.write_text("")
    with pytest.raises(BusyError, match="fold 1 is being trained by another process; wait"):
        processes.claim(path, "fold 1 is being trained")
    processes.release(lock)


def test_file_system_without_locks_is_told_and_does_not_stop_a_run(tmp_path, monkeypatch):
    def unknown(file, flags):
        raise OSError(processes.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(processes.fcntl, "flock", unknown)
    with pytest.warns(UserWarning, match="no locks; see to it that fold 1 is being trained by one process"):
        processes.release(processes.claim(tmp_path / ".lock", "fold 1 is being trained"))


@pytest.mark.parametrize("end", ["in its own time", signal.SIGTERM, signal.SIGKILL], ids=str)
def test_nothing_outlives_its_run(tmp_path, end):
    run = start(RUN, tmp_path, 1 if end == "in its own time" else 600)
    wait_until(lambda: len(processes.left_over(tmp_path)) == 2)
    started = processes.left_over(tmp_path)
    if end != "in its own time":
        run.send_signal(end)
    run.wait()
    # a run that follows does not begin before
    with processes.alone(tmp_path, "a run is being made"):
        assert all(map(has_ended, started))
    assert not (tmp_path / "results/.run.lock").exists()


def test_run_whose_watchdog_was_killed_too_is_ended_by_the_next(tmp_path):
    run = start(RUN, tmp_path, 600)
    wait_until(lambda: len(processes.left_over(tmp_path)) == 2)
    started = processes.left_over(tmp_path)
    watchdog = next(child for child in psutil.Process(run.pid).children() if child not in started)
    for process in (watchdog, run):
        process.kill()
    run.wait()
    assert started == processes.left_over(tmp_path)
    with processes.alone(tmp_path, "a run is being made"):
        assert all(map(has_ended, started))


def test_second_run_in_a_project_ends_at_once(tmp_path):
    run = start(RUN, tmp_path, 600)
    said = rf"a run is being made by another process \({run.pid} on"
    with pytest.raises(BusyError, match=said), processes.alone(tmp_path, "a run is being made"):
        raise AssertionError("two runs at once")
    assert len(processes.left_over(tmp_path)) > 0
    run.kill()
    run.wait()
    with processes.alone(tmp_path, "a run is being made"):
        pass


def test_folder_that_a_killed_process_left_unfinished_goes(tmp_path):
    left = tmp_path / ".set.unfinished-abcd"
    left.mkdir()
    (left / "images.npy").touch()
    (tmp_path / ".other.unfinished-abcd").mkdir()
    with atomic_folder(tmp_path / "set", "set is being prepared") as folder:
        (folder / "index").touch()
        again = atomic_folder(tmp_path / "set", "set is being prepared")
        with pytest.raises(BusyError, match="set is being prepared by another process"), again:
            raise AssertionError("two at once")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.unfinished-abcd", "set"]


# A run that is stopped while it waits for the end of its processes: what it shares with them lives as long as itself.
STOPPED = """
import multiprocessing, sys
from pathlib import Path
from braintumor.core import processes
if __name__ == "__main__":
    with processes.alone(Path(sys.argv[1]), "a run is being made"), processes.pool(1) as executor:
        shared = multiprocessing.get_context("spawn").Lock()
        executor.submit(int).result()
    print("stopped")
"""


def test_what_a_run_shares_with_its_processes_is_given_up_without_a_word(tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    command = [sys.executable, tmp_path / "stopped.py", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.stderr) == ("stopped\n", "")


@pytest.fixture
def drawing(tmp_path):
    """The command, drawing a phantom in two processes."""
    command = [sys.executable, "-m", "braintumor.cli", "data", "phantom", str(tmp_path / "phantom"), "--size", "256"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob(".phantom.unfinished-*/*.mat")))
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_command_that_is_stopped_ends_in_a_sentence(drawing, tmp_path, how):
    if how == signal.SIGINT:
        os.killpg(drawing.pid, how)  # all processes are told, as at a terminal
    else:
        drawing.send_signal(how)
    said = drawing.communicate()[1]
    assert "braintumor: stopped; what was finished is kept, the same command goes on from there" in said
    assert drawing.returncode == 130 and "Traceback" not in said and not list(tmp_path.iterdir())


def test_worker_processes_end_with_a_killed_command(drawing):
    children = psutil.Process(drawing.pid).children()
    drawing.kill()
    wait_until(lambda: all(map(has_ended, children)))
