"""TensorFlow, JAX and PyTorch train the joint network and agree on its predictions.

A backend that is not installed here can run in another Python, which the environment
names: JAX_PYTHON=/path/to/python TORCH_PYTHON=... pytest tests/unit/test_backends.py
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax", "torch")


def find_python(backend):
    """The Python that has a backend, or None."""
    if importlib.util.find_spec(backend):
        return sys.executable
    return os.environ.get(f"{backend.upper()}_PYTHON")


def needs_python(backend):
    reason = f"{backend} is not installed, and {backend.upper()}_PYTHON is not set"
    skip = pytest.mark.skipif(find_python(backend) is None, reason=reason)
    return pytest.param(backend, marks=skip)


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
def outputs(prepared, tmp_path_factory):
    """Arrays of each backend that is there: {backend: {name: array}}."""
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
    arrays = {}
    for backend in BACKENDS:
        if python := find_python(backend):
            command = [python, "-c", code, folder, backend]
            environment = os.environ | {"KERAS_BACKEND": backend}
            here = Path(__file__).parent
            subprocess.run(command, cwd=here, env=environment, check=True)
            arrays[backend] = dict(np.load(folder / f"{backend}.npz"))
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("backend", [needs_python(name) for name in BACKENDS[1:]])
def test_backend_trains_and_agrees_with_tensorflow(outputs, backend):
    results, first = outputs[backend], outputs["tensorflow"]
    for name in ("classify", "segment", "warped"):
        assert np.allclose(results[name], first[name], atol=1e-3), name
    # nearest-neighbor ties may round to either side
    assert np.mean(results["masks"] != first["masks"]) < 1e-3
    assert set(np.unique(results["masks"])) == {0, 1}
    assert np.isfinite(results["trained"]).all()
    assert np.abs(results["trained"] - results["classify"]).max() > 1e-3
