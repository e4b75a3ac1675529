"""Figures of class probabilities: what their captions say and what they show."""

import numpy as np
import pandas as pd
import pytest

from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.plots import classification


def predictions(y_true, y_pred):
    """A predictions table with certain predictions, a patient per slice."""
    probabilities = np.eye(3)[np.array(y_pred) - 1]
    table = pd.DataFrame(probabilities, columns=PROBABILITY_COLUMNS)
    return table.assign(y_true=y_true, pid=[str(n) for n in range(len(y_true))])


PLOTS = [classification.plot_confusion_matrix, classification.plot_confusion_matrices]


@pytest.mark.parametrize("plot", PLOTS)
def test_caption_names_the_class_with_the_lowest_recall(plot):
    """Glioma has more errors, meningioma the lower recall."""
    table = predictions([1, 1] + [2] * 8 + [3], [1, 2] + [2] * 5 + [3] * 3 + [3])
    figure = plot(table)
    assert "lowest for meningioma, 50.0%: 1 of 2 slices" in figure.caption
    assert "glioma: meningioma (0), glioma (5), pituitary tumor (3)" in figure.alt


def test_confusion_matrix_without_errors_or_without_a_class():
    caption = classification.plot_confusion_matrix(predictions([1, 2], [1, 2])).caption
    assert caption.startswith("All 2 slices")
    caption = classification.plot_confusion_matrix(predictions([1, 2], [1, 3])).caption
    assert "lowest for glioma, 0.0%" in caption


def test_roc_curves_leave_out_classes_without_slices():
    table = predictions([1, 1, 2, 2], [1, 2, 2, 2])
    figure = classification.plot_roc_curves(table)
    assert "meningioma (0.750), glioma (0.750)" in figure.alt
    assert "pituitary" not in figure.alt and len(figure.figure.axes[0].lines) == 3


def test_reliability_shows_counts_and_intervals():
    table = predictions([1, 1, 2, 2], [1, 2, 2, 2])
    unsure = table.assign(**dict.fromkeys(PROBABILITY_COLUMNS, [0.4, 0.3, 0.3, 0.3]))
    unsure["prob_pituitary"] = 0.3
    figure = classification.plot_reliability({"raw": table, "unsure": unsure})
    assert "raw (0.250)" in figure.caption and figure.figure.get_figwidth() <= 9
    upper, lower = figure.figure.axes[0], figure.figure.axes[2]
    assert [bar.get_height() for bar in lower.patches] == [4]
    (low, high) = upper.collections[0].get_segments()[0][:, 1]
    assert 0 <= low < 0.75 < high <= 1


def test_class_probabilities_name_the_predicted_class():
    figure = classification.plot_class_probabilities(np.array([0.1, 0.7, 0.2]))
    assert "glioma (70.0%)" in figure.caption and "meningioma (10.0%)" in figure.alt


def test_score_strip_names_the_lowest_class():
    table = pd.DataFrame({"tumor": ["glioma", "meningioma"], "dice": [0.5, 0.9]})
    figure = classification.plot_score_strip(table, "dice", "Dice")
    assert "lowest for glioma" in figure.caption and "glioma (0.50)" in figure.alt


@pytest.mark.parametrize("plot", [*PLOTS, classification.plot_roc_curves])
def test_texts_can_be_replaced(plot):
    figure = plot(predictions([1, 2, 3], [1, 2, 3]), caption="Mine.", alt="Plot.")
    assert (figure.caption, figure.alt) == ("Mine.", "Plot.")
