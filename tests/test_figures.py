"""Figures: what `show` displays, and what the drawings of networks say."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from braintumor import figures
from braintumor.metrics import PROBABILITIES


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
    assert figures.listed(pd.Series({"glioma": 0.714, "meningioma": 0.93})) == "glioma 0.71, meningioma 0.93"


def test_kept_epoch_is_told():
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [3.0, 1.5, 2.5]})
    caption, alt = figures.learned(history, {"loss": "loss"})
    assert caption == (
        "Of 3 epochs number 2 was kept. There, in training and in validation: loss: 2.000, 1.500."
    ) and alt.endswith("loss: 3.000, 1.500.")


def test_most_frequent_error_is_told():
    table = pd.DataFrame(np.eye(3)[[0, 0, 1, 1, 2]], columns=PROBABILITIES).assign(label=[1, 2, 2, 2, 3])
    caption, alt = figures.confused(table)
    assert (
        caption == "4 of 5 slices are called right; the most frequent error is a glioma called meningioma (1 of them)."
    )
    assert "of glioma: meningioma 1, glioma 2, pituitary tumor 0" in alt
    assert figures.confused(table.drop(index=1))[0] == "4 of 4 slices are called right."


def test_areas_under_curves_are_told_of_classes_that_have_both():
    table = pd.DataFrame([[0.9, 0.1, 0], [0.2, 0.8, 0]], columns=PROBABILITIES).assign(label=[1, 2])
    assert re.findall(r"[a-z]+ \d\.\d+", figures.ranked(table)[0]) == ["meningioma 1.000", "glioma 1.000"]
