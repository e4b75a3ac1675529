"""Networks whose weights were rounded to 16 bits are stored in as many, and answer as before."""

import runpy
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from braintumor.core.files import ROOT
from braintumor.evaluation import masks as predict

publish_models = runpy.run_path(str(ROOT / "workflow/publish_models.py"))


def test_archive_is_half_as_large_and_answers_alike(tmp_path, monkeypatch):
    keras.utils.set_random_seed(1)
    image = layers.Input((32, 32, 1))
    x = layers.BatchNormalization()(layers.Conv2D(64, 3)(layers.Conv2D(64, 3)(image)))
    model = keras.Model(image, {"a": layers.Dense(3)(layers.GlobalMaxPooling2D()(x)), "b": layers.Conv2D(1, 1)(x)})
    model.set_weights([weight.astype("float16") for weight in model.get_weights()])  # as notebook 08 does
    for fold in range(1, 6):
        folder = tmp_path / f"results/full/classify/fold-{fold}"
        folder.mkdir(parents=True)
        model.save(folder / "model.keras")
    monkeypatch.setitem(publish_models["publish"].__globals__, "ROOT", tmp_path)
    publish_models["publish"]("results/full")
    small = keras.models.load_model(tmp_path / "models/fold-3.keras", compile=False)
    assert {weight.dtype for weight in small.weights} == {"float32"}
    image = np.random.default_rng(0).random((4, 32, 32, 1))
    before, after = model.predict(image, verbose=0), small.predict(image, verbose=0)
    for name in before:
        assert np.array_equal(after[name], before[name])
    sizes = [
        zipfile.ZipFile(path).getinfo("model.weights.h5").compress_size
        for path in (folder / "model.keras", tmp_path / "models/fold-3.keras")
    ]
    assert sizes[1] < 0.55 * sizes[0]

    monkeypatch.setattr(predict, "ROOT", tmp_path)  # a clone has no model.keras in the run's folder
    (found,) = predict.load_models("results/full", "a", [3])
    assert np.array_equal(found.predict(image, verbose=0), after["a"])
    with pytest.raises(ValueError, match="full-family"):
        predict.load_models("results/full-family", "a", [3])
