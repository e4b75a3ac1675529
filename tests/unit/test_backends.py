"""TensorFlow, JAX and PyTorch train the joint network and agree on its predictions.

A backend that is not installed here can run in another Python, which the environment
names: JAX_PYTHON=/path/to/python TORCH_PYTHON=... pytest tests/unit/test_backends.py
"""

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest


def train_and_predict(folder, backend):
    """Predict with shared weights, then train two epochs; runs in its own process."""
    import keras

    from braintumor.data.preprocessing import to_network_input
    from braintumor.models.joint import build_joint, per_slice_loss
    from braintumor.training.augmentation import random_affine
    from braintumor.training.batches import format_targets, training_batches
    from braintumor.training.loop import configure_backend, fit

    assert keras.config.backend() == backend
    data = np.load(folder / "data.npz")
    targets = {task: data[task] for task in ("classify", "segment")}
    x, y = to_network_input(data["images"]), format_targets(targets)
    configure_backend(seed=0, threads=2)
    network = build_joint(64, 16)
    weights = folder / "network.weights.h5"
    if weights.exists():
        network.load_weights(weights)
    else:
        network.save_weights(weights)
    outputs = network.predict(x, verbose=0)
    warped, masks = random_affine(x, y["segment"], 0, 0, 0)
    losses = {"classify": "sparse_categorical_crossentropy", "segment": per_slice_loss}
    network.compile(keras.optimizers.AdamW(1e-3), losses)

    def batches(first_epoch):
        return training_batches(data["images"], targets, 8, 0, {}, first_epoch)

    fit(network, folder / backend, batches, 3, (x, y), 2)
    trained = network.predict(x, verbose=0)["classify"]
    results = outputs | {"warped": warped, "masks": masks, "trained": trained}
    np.savez(folder / f"{backend}.npz", **results)


@pytest.fixture(scope="module")
def run_backend(prepared, tmp_path_factory):
    """run_backend(backend): its arrays by name, computed once."""
    folder = tmp_path_factory.mktemp("backends")
    rows = slice(0, None, max(1, len(prepared.images) // 24))
    np.savez(
        folder / "data.npz",
        images=prepared.images[rows][:24],
        classify=prepared.index["label"].to_numpy()[rows][:24] - 1,
        segment=prepared.masks[rows][:24],
    )
    code = "import sys; from pathlib import Path; from test_backends import *; "
    code += "train_and_predict(Path(sys.argv[1]), sys.argv[2])"

    @cache
    def run_backend(backend):
        python = os.environ.get(f"{backend.upper()}_PYTHON", sys.executable)
        environment = os.environ | {"KERAS_BACKEND": backend}
        command, here = [python, "-c", code, folder, backend], Path(__file__).parent
        subprocess.run(command, cwd=here, env=environment, check=True)
        return dict(np.load(folder / f"{backend}.npz"))

    return run_backend


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend_trains_and_agrees_with_tensorflow(run_backend, backend):
    if not find_spec(backend) and f"{backend.upper()}_PYTHON" not in os.environ:
        pytest.skip(f"needs {backend}, or {backend.upper()}_PYTHON")
    first, results = run_backend("tensorflow"), run_backend(backend)
    for name in ("classify", "segment", "warped"):
        assert np.allclose(results[name], first[name], atol=1e-3), name
    # nearest-neighbor ties may round to either side
    assert np.mean(results["masks"] != first["masks"]) < 1e-3
    assert set(np.unique(results["masks"])) == {0, 1}
    assert np.isfinite(results["trained"]).all()
    assert np.abs(results["trained"] - results["classify"]).max() > 1e-3
