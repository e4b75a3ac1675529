"""Figures: what `show` displays, and what the drawings of networks say."""

import re

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from braintumor.evaluation.metrics import PROBABILITIES
from braintumor.models import original as models
from braintumor.plots import architecture as diagram
from braintumor.plots import figures


@pytest.fixture
def shown(monkeypatch):
    """shown(figure, caption, alt): what `show` displays, by kind."""
    displayed = []
    monkeypatch.setattr(figures, "display", lambda data, raw: displayed.append(data))

    def show(*given):
        figures.show(*given)
        return displayed.pop()

    return show


def line():
    figure, ax = plt.subplots()
    ax.plot([1, 2, 3], label="a")
    ax.legend()
    return figure


def test_figure_is_shown_with_its_texts(shown):
    data = shown(line(), 'Half < "all" & more', "A line from '1' to 3")
    assert data["text/plain"] == 'Half < "all" & more'
    assert "<figcaption>Half &lt; &quot;all&quot; &amp; more</figcaption>" in data["text/html"]
    assert 'alt="A line from &#x27;1&#x27; to 3"' in data["text/html"] and not plt.get_fignums()


def test_plots_are_vectors_and_pictures_are_not(shown):
    assert 'src="data:image/svg+xml;base64,' in shown(line(), "caption", "alt")["text/html"]
    pictures = figures.slice_grid(np.zeros((2, 8, 8)), ["one", "two"])
    assert 'src="data:image/png;base64,' in shown(pictures, "caption", "alt")["text/html"]


@pytest.mark.parametrize("make", [line, lambda: figures.slice_grid(np.zeros((2, 8, 8)), ["one", "two"])])
def test_same_figure_gives_the_same_bytes(shown, make):
    assert shown(make(), "caption", "alt") == shown(make(), "caption", "alt")


@pytest.mark.parametrize("texts", [("", "alt"), ("caption", " ")])
def test_figure_without_words_is_refused(texts):
    with pytest.raises(ValueError, match="needs a caption and an alternative text"):
        figures.show(line(), *texts)


def test_numbers_are_listed_with_their_names():
    assert figures.listed(pd.Series({"glioma": 0.714, "meningioma": 0.93})) == "glioma (0.71), meningioma (0.93)"


def test_kept_epoch_is_told():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [3.0, 1.5, 2.5]})
    caption, alt = figures.learned(history, {"loss": "loss"})
    assert caption == (
        "Of 3 epochs number 2 was kept. There, in training and in validation: loss: 2.000, 1.500."
    ) and alt.endswith("loss: 3.000, 1.500.")


def test_most_frequent_error_is_told():
    table = pd.DataFrame(np.eye(3)[[0, 0, 1, 1, 2]], columns=PROBABILITIES).assign(label=[1, 2, 2, 2, 3])
    caption, alt = figures.confused(table)
    assert caption == "4 of 5 slices are called right; the most frequent error, 1 of 1, is a glioma called meningioma."
    assert "glioma: meningioma (1), glioma (2), pituitary tumor (0)" in alt
    assert figures.confused(table.drop(index=1))[0] == "4 of 4 slices are called right."


def test_areas_under_curves_are_told_of_classes_that_have_both():
    table = pd.DataFrame([[0.9, 0.1, 0], [0.2, 0.8, 0]], columns=PROBABILITIES).assign(label=[1, 2])
    assert re.findall(r"[a-z]+ \(\d\.\d+\)", figures.ranked(table)[0]) == ["meningioma (1.000)", "glioma (1.000)"]


def test_diagram_names_every_block_and_its_shape():
    model = models.unet(64, 4)
    found = diagram.blocks(model)
    assert [block.shape for block in found[1:6]] == [(64, 64, 4), (32, 32, 8), (16, 16, 16), (8, 8, 32), (4, 4, 64)]
    assert [block.shape for block in found[6:]] == [(8, 8, 32), (16, 16, 16), (32, 32, 8), (64, 64, 1)]
    assert [block.parents for block in found[6:]] == [[4, 5], [3, 6], [2, 7], [1, 8]]
    assert sum(block.parameters for block in found) == model.count_params()
    words = " | ".join(text.get_text() for text in diagram.architecture(model).axes[0].texts)
    for shown in (
        "64 × 64 × 1   input",
        "4 × 4 × 64",
        "2 × Conv2D 64 of 3 × 3 relu",
        "MaxPooling2D 2 × 2",
        "Concatenate",
    ):
        assert shown in words
    caption, alt = diagram.described(model)
    assert caption.startswith(f"{model.count_params():,} parameters in 9 blocks") and "4 that lead across" in alt


def test_diagram_puts_every_layer_of_a_classifier_into_a_block():
    model = models.cnn(64)
    layers = [layer.name for block in diagram.blocks(model) for layer in block.layers]
    assert layers == [layer.name for layer in model.layers]
    assert diagram.blocks(model)[-1].shape == (3,)


def test_diagram_of_a_network_without_skips_names_its_layers_in_their_order():
    model = models.compact(64)
    words = [text.get_text() for text in diagram.architecture(model).axes[0].texts]
    pooling = words.index("GlobalMaxPooling2D")
    assert words[pooling : pooling + 3] == ["GlobalMaxPooling2D", "Dropout 0.3", "Dense 3 softmax"]
    assert diagram.described(model)[1].startswith("Diagram of boxes joined by arrows. From the input: 64 × 64 × 1, ")


@pytest.mark.parametrize("pooled, side", [(False, 5), (True, 6)])
def test_receptive_field_is_that_of_a_known_network(pooled, side):
    """Two convolutions of 3 x 3 see 5 x 5 pixels; a pooling of 2 x 2 after them sees one more in each direction."""
    inputs = keras.layers.Input((15, 15, 1))
    x = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones")(inputs)
    x = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones")(x)
    x = keras.layers.AveragePooling2D(2)(x) if pooled else x
    model = keras.Model(inputs, x)
    field = diagram.receptive_field(model, model.layers[-1], np.ones((2, 15, 15, 1), "float32"))
    rows, columns = np.nonzero(field)
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == side and field.shape == (15, 15) and field.max() == 1


def test_square_holds_the_share_that_is_asked_for():
    field = np.zeros((9, 9))
    field[4, 4], field[4, 1], field[4, 7] = 2, 1, 1
    assert (diagram.square(field, 0.5), diagram.square(field)) == (1, 7)


def test_curves_of_folds_tell_each_kept_epoch():
    history = pd.DataFrame({"fold": [1, 1, 2, 2], "epoch": [1, 2, 1, 2], "loss": 1.0, "val_loss": [2, 1, 3, 4]})
    caption, alt = figures.learned_by_fold(history, {"loss": "loss"})
    assert "fold: 1 (2), 2 (1), of 2" in caption and "loss: 1.000 to 3.000" in caption and "2 folds" in alt
    assert len(figures.fold_curves(history, {"loss": "loss"}).axes[0].lines) == 6
