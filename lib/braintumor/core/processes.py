"""Who is at work: one process at a fold or a prepared set, one run in a project, and nothing that outlives its run."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Thread

import psutil

from braintumor.core.errors import BusyError

MARK = "BRAINTUMOR_RUN"  # in the environment of all processes of a run: the project that it runs in
PATIENCE = 60  # seconds that a run waits for the end of what a killed one has left
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # how file systems answer that know none


def claim(path, what):
    """Lock the file `path` for this process; returns it open. `release` unlocks it, and so does the process's end.

    `what` tells a second process what the first is doing, such as "fold 1 is being trained". The lock is the operating
    system's, so that none is left by a process that was killed. Raises BusyError while another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    last = time.monotonic() + PATIENCE
    while True:
        file = open(path, "a+")  # noqa: SIM115  (it stays open while the lock is held)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(file)
            file.close()
            if _alive(holder) or time.monotonic() > last:
                raise BusyError(_sentence(holder, what)) from None
            time.sleep(0.1)  # what is left of it is just being ended: see `alone`
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warnings.warn(f"{path}: this file system has no locks; see to it that {what} by one process", stacklevel=2)
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # the one before has just released it
    file.truncate(0)
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    text = json.dumps({"process": os.getpid(), "host": platform.node(), "since": now, "what": what})
    with suppress(OSError):  # on a full disk the lock holds without its text
        os.write(file.fileno(), text.encode())
    return file


def release(file):
    """Give up a lock of `claim`, and leave no file."""
    with suppress(FileNotFoundError):
        os.unlink(file.name)
    file.close()


def _read(file):
    file.seek(0)
    try:
        return json.load(file)
    except ValueError:  # in the moment between lock and text
        return {}


def _alive(holder):
    if holder.get("host") != platform.node():
        return True  # on another machine of a cluster, or not yet told
    try:
        return psutil.Process(holder["process"]).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _sentence(holder, what):
    if not holder:
        return f"{what} by another process; wait for its end, then try again"
    process, host = holder["process"], holder["host"]
    return (
        f"{holder['what']} by another process ({process} on {host}, since {holder['since']}); "
        f"wait for its end, or stop it (kill {process}), then give the same command again"
    )


@contextmanager
def alone(root, what):
    """Within the block this is the only run in the project `root`, and whatever it starts ends with it.

    However this process ends, by kill -9 too, a watchdog then ends all that is left of the run, kernels included, and
    only then is the lock free: a run that follows never meets what an earlier one still writes. Raises BusyError while
    another run is at work.
    """
    lock = claim(root / "results" / ".run.lock", what)
    end_left_over(root)  # whoever killed a run may have killed its watchdog too
    code = (
        f"import sys; sys.stdin.read(); from braintumor.core import processes; processes.end_left_over({str(root)!r})"
    )
    # in a session of its own: Ctrl-C and kill -9 of the whole group must not reach it
    watchdog = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[lock.fileno()], start_new_session=True
    )
    resource_tracker.ensure_running()  # before the mark: `pool` must find it alive when all else of the run is ended
    os.environ[MARK] = str(root)
    try:
        yield
    finally:
        del os.environ[MARK]
        watchdog.communicate()
        release(lock)


def left_over(root):
    """All processes, but this one, that runs in the project `root` have started on this machine."""
    return [process for process in psutil.process_iter() if _mark(process) == str(root)]


def end_left_over(root):
    """End `left_over` by kill -9: nothing that a run writes can be left half-written."""
    while left := left_over(root):
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _mark(process):
    try:
        return process.environ().get(MARK) if process.pid != os.getpid() else None
    except (psutil.Error, OSError):  # of another user, or already gone
        return None


@contextmanager
def pool(workers):
    """A ProcessPoolExecutor of `workers` processes (None: one a core) that leave Ctrl-C to this one and end with it."""
    workers = workers or os.cpu_count()
    resource_tracker.ensure_running()  # else it starts with the workers, and lets the signal through
    # spawn: a process forked after TensorFlow has started its threads can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent) as executor:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit this from their first moment on
        try:
            for _ in range(workers):
                executor.submit(int)  # starts one more, as none is idle yet
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            yield executor
        except BaseException:
            executor.shutdown(cancel_futures=True)  # else all that is asked for would be done first
            raise


def _end_with_parent():
    """In a process of a pool: it would wait for work for ever if its parent were killed."""

    def wait():
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
