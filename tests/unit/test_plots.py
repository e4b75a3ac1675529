"""Figures: what they show, and their captions."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from jinja2 import UndefinedError
from keras import layers

from braintumor.core.templates import render
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS
from braintumor.models.compact import build_compact
from braintumor.models.joint import build_joint
from braintumor.models.original import build_cnn
from braintumor.plots import classification, slices
from braintumor.plots.architecture import find_blocks
from braintumor.plots.curves import plot_learning_curves
from braintumor.plots.intervals import plot_intervals
from braintumor.plots.style import captioned


def predictions(y_true, y_pred):
    """A predictions table with confidence 1, a patient per slice."""
    probabilities = np.eye(3)[np.array(y_pred) - 1]
    table = pd.DataFrame(probabilities, columns=PROBABILITY_COLUMNS)
    return table.assign(y_true=y_true, pid=[str(n) for n in range(len(y_true))])


def test_classification_plots_show_counts_recall_and_intervals():
    table = predictions([1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 3, 2])
    figure = classification.plot_confusion_matrix(table)
    texts = [text.get_text() for text in figure.figure.axes[0].texts]
    assert texts[:2] == ["1\n50.0%", "1\n50.0%"] and texts[8] == "0\n0.0%"
    assert "66.7% of 6 slices" in figure.caption
    assert "meningioma (50.0%), glioma (75.0%)." in figure.caption
    assert "glioma ([0, 3, 1])" in figure.alt
    table = predictions([1, 1, 2, 2], [1, 2, 2, 2])
    uniform = table.assign(prob_meningioma=0.4, prob_glioma=0.3, prob_pituitary=0.3)
    figure = classification.plot_reliability({"raw": table, "uniform": uniform})
    assert "raw (0.250)" in figure.caption and figure.figure.get_figwidth() <= 9
    upper, lower = figure.figure.axes[0], figure.figure.axes[2]
    assert [bar.get_height() for bar in lower.patches] == [4]
    low, high = upper.collections[0].get_segments()[0][:, 1]
    assert 0 <= low < 0.75 < high <= 1


@pytest.fixture
def history():
    columns = {"epoch": [1, 2, 3], "loss": [3, 2, 1.0], "val_loss": [3, 1.5, 2.5]}
    return pd.DataFrame(columns).assign(accuracy=0.5, val_accuracy=[0.2, 0.4, 0.6])


def test_curves_show_the_kept_epochs_within_the_page(history):
    for monitor, epoch in (("val_loss", 2), ("val_accuracy", 3)):
        plot = plot_learning_curves(history, {"loss": "cross-entropy"}, monitor)
        assert f"{monitor}: {epoch} of 3" in plot.caption
        assert plot.figure.axes[0].lines[-1].get_xdata() == [epoch]
    other = history.assign(val_loss=[1.0, 2.0, 3.0])
    both = pd.concat([history.assign(fold=1), other.assign(fold=2)], ignore_index=True)
    titles = {"loss": "cross-entropy", "accuracy": "accuracy by slice"}
    plot = plot_learning_curves(both, titles)
    assert "val_loss: 2, 1 of 3" in plot.caption
    assert "cross-entropy (1.250)" in plot.caption
    assert len(plot.figure.axes[0].lines) == 5 and plot.figure.get_figwidth() <= 9


@pytest.fixture
def masks():
    """A true and a predicted mask: 2 pixels in both, 1 added, 2 missed."""
    y_true, y_pred = np.zeros((2, 8, 8), bool)
    y_true[2, 2:6] = True
    y_pred[2, 4:7] = True
    return y_true, y_pred


def test_grid_outlines_masks_and_borders_within_the_page(masks):
    images, titles = np.zeros((7, 8, 8)), [f"slice {n}" for n in range(7)]
    outlined = slices.plot_slice_grid(images, titles, masks=[*masks, *[None] * 5])
    border = np.array([[1, 1], [5, 1], [5, 5.0]])
    bordered = slices.plot_slice_grid(images, titles, borders=[border] * 7, columns=5)
    assert [len(ax.collections) for ax in outlined.figure.axes[:3]] == [1, 1, 0]
    assert [len(ax.patches) for ax in bordered.figure.axes[:7]] == [1] * 7
    assert bordered.figure.get_figwidth() <= 9
    assert "outlined" in bordered.caption and "slice 0; slice 1" in bordered.alt


@pytest.mark.parametrize("images", [None, np.zeros((1, 16, 16))])
def test_outlines_show_both_borders_near_the_tumor(images):
    square = [[2, 2], [6, 2], [6, 6], [2, 2]]
    outline = {"side": 32, "file": 7, "y_true": 2, "dice": 0.4, "head": square}
    outline |= {"true": [square], "predicted": [square, square]}
    figure = slices.plot_outlines([outline], images)
    (ax,) = figure.figure.axes
    assert [len(line.get_xdata()) for line in ax.lines] == [4] * 4
    assert np.ptp(ax.get_xlim()) < ax.images[0].get_array().shape[0] / 2
    assert "glioma Dice 0.40, slice 7" in figure.alt


def test_intervals_have_a_panel_per_score_and_a_row_per_group():
    rows = [(score, group) for score in ("accuracy", "Dice") for group in "ABC"]
    table = pd.DataFrame(rows, columns=["score", "group"])
    table = table.assign(value=0.5, low=0.4, high=0.7, series="one")
    figure = plot_intervals(pd.concat([table, table.assign(series="two")]), 0)
    first, second = figure.figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["A", "B", "C"]
    assert second.get_title() == "Dice" and len(second.containers) == 2
    low, high = second.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((0.4, 0.7)) and "B two: 0.500" in figure.alt


def test_differences_show_overlap_and_errors(masks):
    y_true, y_pred = masks
    figure = slices.plot_mask_differences([y_true], [y_true * 1], [y_pred], ["a"])
    layers = [image.get_array() for image in figure.figure.axes[0].images[1:]]
    assert [int((layer[..., 3] > 0).sum()) for layer in layers] == [2, 1, 2]
    for layer, color in zip(layers, slices.DIFFERENCE_COLORS.values(), strict=True):
        assert tuple(layer.max(axis=(0, 1))) == slices.to_rgba(color, 0.65)
    assert "0.57" in figure.caption


# Captions and formats


@captioned
def plot_anything(image=False):
    figure, ax = plt.subplots()
    ax.imshow(np.eye(4)) if image else ax.plot([1, 2, 3])
    return figure, 'Half < "all"', "A line\nfrom 1 to 3"


def display(figure):
    """What IPython displays for a captioned figure, by MIME type."""
    return DisplayFormatter().format(figure)[0]


def test_figure_displays_as_html_with_caption_and_alt():
    data = display(plot_anything())
    assert data["text/plain"] == 'Half < "all"'
    assert "<figcaption>Half &lt; &#34;all&#34;</figcaption>" in data["text/html"]
    assert 'alt="A line from 1 to 3"' in data["text/html"]
    assert 'alt="Other"' in display(plot_anything(alt="Other"))["text/html"]
    assert not plt.get_fignums()
    for image, kind in ((False, "svg+xml"), (True, "png")):
        html = display(plot_anything(image))["text/html"]
        assert f'src="data:image/{kind};base64,' in html
        assert display(plot_anything(image))["text/html"] == html
    with pytest.raises(UndefinedError, match="source"):
        render("figure.html.j2", alt="a line", caption="A line", width=96)


# Diagrams of networks


@pytest.mark.parametrize("build", [build_cnn, build_compact, build_joint])
def test_every_layer_is_in_one_block(build):
    model = build(64)
    blocks = find_blocks(model)
    names = [layer.name for block in blocks for layer in block.layers]
    inputs = {x.name for x in model.layers if isinstance(x, layers.InputLayer)}
    assert sorted(names) == sorted({x.name for x in model.layers} - inputs)
    assert sum(block.n_parameters for block in blocks) == model.count_params()
    assert not blocks[0].parents and all(block.parents for block in blocks[1:])
