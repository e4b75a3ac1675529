"""What several test files share: a small phantom, drawn and prepared once, TensorFlow set up as in a run, a browser."""

import fcntl
import signal

import pytest
from browser import NO_BROWSER, programs, window

from braintumor.core.files import ROOT
from braintumor.data.phantom import write_phantom
from braintumor.data.prepared import prepare

# a shell's background job ignores Ctrl-C, and so would all that tests start and stop by it
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """15 drawn patients at 64 px (a few slices at 32), in figshare's layout; tests only read it."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "set", patients=15, size=64, progress=False)


@pytest.fixture(scope="session")
def prepared(phantom_folder, tmp_path_factory):
    """The phantom, prepared at its own size."""
    return prepare(phantom_folder, tmp_path_factory.mktemp("prepared") / "64", 64, workers=1, progress=False)


@pytest.fixture(scope="session")
def deterministic():
    """Two threads and deterministic kernels; TensorFlow takes the threads only before its first operation."""
    from braintumor.training import loop as training

    training.start(seed=0, threads=2)


@pytest.fixture
def alone_here():
    """Tests that start a run in this project wait for one another, for `make test` has two processes: a second run is
    refused.
    """
    with open(ROOT / "results/.tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def only_pages(monkeypatch):
    """only_pages(paths): a run makes these pages and what they need, not those of committed results, which take
    minutes.
    """
    from braintumor.workflow_engine import execution

    def narrow(pages):
        targets, python = [page.relative_to(execution.ROOT) for page in pages], execution._python
        monkeypatch.setattr(
            execution, "_python", lambda imported, call, *given: python(imported, call, *targets, *given)
        )

    return narrow


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Opens a window of some width without a screen: `with chromium(390) as browser`; skips where there is none."""
    if not all(programs()):
        pytest.skip(NO_BROWSER)
    return lambda width: window(width, tmp_path_factory.mktemp("browser"))
