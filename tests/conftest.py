"""What several test files share: a small phantom, drawn and prepared once, and TensorFlow set up as in a run."""

import pytest

from braintumor.dataset import prepare
from braintumor.phantom import write_phantom


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
    from braintumor import training

    training.start(seed=0, threads=2)
