"""Fixtures of several test files: a phantom, its prepared set, a backend, a browser."""

import pytest

from braintumor.data.phantom import write_phantom
from braintumor.data.prepared import prepare_data
from braintumor.training.loop import configure_backend


def pytest_collection_modifyitems(items):
    """Start with the longest file, so that two workers end at the same time."""
    items.sort(key=lambda item: item.path.name != "test_runs.py")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """15 synthetic patients at 64 pixels (a few slices at 32); tests only read it."""
    folder = tmp_path_factory.mktemp("phantom") / "set"
    return write_phantom(folder, n_patients=15, size=64, n_jobs=1)


@pytest.fixture(scope="session")
def prepared(phantom_folder, tmp_path_factory):
    """The phantom, prepared at 64 pixels."""
    out = tmp_path_factory.mktemp("prepared") / "64"
    return prepare_data(phantom_folder, out, 64)


@pytest.fixture(scope="session", autouse=True)
def deterministic():
    """Two threads and deterministic operations, set before any test uses them."""
    configure_backend(seed=0, threads=2)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Open a headless window: ``with chromium(390) as browser``."""
    from browser import NO_BROWSER, programs, window

    if not all(programs()):
        pytest.skip(NO_BROWSER)
    return lambda width: window(width, tmp_path_factory.mktemp("browser"))
