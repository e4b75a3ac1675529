"""Figures of class probabilities: their captions and what they show."""

import numpy as np
import pandas as pd

from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.plots import classification


def predictions(y_true, y_pred):
    """A predictions table with confidence 1, a patient per slice."""
    probabilities = np.eye(3)[np.array(y_pred) - 1]
    table = pd.DataFrame(probabilities, columns=PROBABILITY_COLUMNS)
    return table.assign(y_true=y_true, pid=[str(n) for n in range(len(y_true))])


def test_confusion_matrix_shows_counts_and_recall():
    table = predictions([1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 2])
    figure = classification.plot_confusion_matrix(table)
    texts = [text.get_text() for text in figure.figure.axes[0].texts]
    assert texts[:2] == ["1\n50.0%", "1\n50.0%"] and texts[8] == "0\n0.0%"
    assert "66.7% of 6 slices" in figure.caption
    assert "meningioma (50.0%), glioma (75.0%)." in figure.caption
    assert "glioma ([0, 3, 1])" in figure.alt


def test_reliability_shows_counts_and_intervals():
    table = predictions([1, 1, 2, 2], [1, 2, 2, 2])
    uniform = table.assign(prob_meningioma=0.4, prob_glioma=0.3, prob_pituitary=0.3)
    figure = classification.plot_reliability({"raw": table, "uniform": uniform})
    assert "raw (0.250)" in figure.caption and figure.figure.get_figwidth() <= 9
    upper, lower = figure.figure.axes[0], figure.figure.axes[2]
    assert [bar.get_height() for bar in lower.patches] == [4]
    low, high = upper.collections[0].get_segments()[0][:, 1]
    assert 0 <= low < 0.75 < high <= 1


def test_score_strip_has_mean_and_median():
    table = pd.DataFrame({"tumor": ["glioma", "meningioma"], "dice": [0.5, 0.9]})
    figure = classification.plot_score_strip(table, "dice", "Dice")
    assert "glioma (0.50)" in figure.caption and "glioma (0.50)" in figure.alt
