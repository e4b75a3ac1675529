"""Learning curves: the kept epoch and the text about it."""

import pandas as pd
import pytest

from braintumor.plots.curves import plot_fold_curves, plot_learning_curves


@pytest.fixture
def history():
    columns = {"epoch": [1, 2, 3], "loss": [3, 2, 1.0], "val_loss": [3, 1.5, 2.5]}
    return pd.DataFrame(columns).assign(accuracy=0.5, val_accuracy=[0.2, 0.4, 0.6])


@pytest.mark.parametrize(("monitor", "epoch"), [("val_loss", 2), ("val_accuracy", 3)])
def test_caption_names_the_kept_epoch(history, monitor, epoch):
    plot = plot_learning_curves(history, {"loss": "cross-entropy"}, monitor)
    assert f"Epoch {epoch} of 3" in plot.caption
    assert plot.figure.axes[0].lines[-1].get_xdata() == [epoch]


def test_curves_stay_within_the_page_and_texts_can_be_replaced(history):
    titles = {"loss": "a", "accuracy": "b", "error": "c"}
    history = history.assign(error=0.5, val_error=0.5)
    plot = plot_learning_curves(history, titles, caption="Mine.", alt="Lines.")
    assert plot.figure.get_figwidth() <= 9
    assert (plot.caption, plot.alt) == ("Mine.", "Lines.")


def test_fold_curves_report_the_range_over_folds(history):
    other = history.assign(val_loss=[1.0, 2.0, 3.0])
    both = pd.concat([history.assign(fold=1), other.assign(fold=2)], ignore_index=True)
    plot = plot_fold_curves(both, {"loss": "cross-entropy"})
    assert "cross-entropy 1.000–1.500" in plot.caption
    assert "1 (2), 2 (1)" in plot.alt
    assert len(plot.figure.axes[0].lines) == 5


def test_loss_axis_has_plain_decimals(history):
    small = pd.concat([history.assign(fold=1)]).assign(loss=0.9, val_loss=[0.9, 0.6, 1])
    plot = plot_fold_curves(small, {"loss": "loss"})
    plot.figure.draw_without_rendering()
    texts = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert "0.7" in texts and not [text for text in texts if "10^" in text]
