"""Learning curves: the kept epoch and the text about it."""

import pandas as pd
import pytest

from braintumor.plots.curves import plot_learning_curves


@pytest.fixture
def history():
    columns = {"epoch": [1, 2, 3], "loss": [3, 2, 1.0], "val_loss": [3, 1.5, 2.5]}
    return pd.DataFrame(columns).assign(accuracy=0.5, val_accuracy=[0.2, 0.4, 0.6])


@pytest.mark.parametrize(("monitor", "epoch"), [("val_loss", 2), ("val_accuracy", 3)])
def test_caption_has_the_kept_epoch(history, monitor, epoch):
    plot = plot_learning_curves(history, {"loss": "cross-entropy"}, monitor)
    assert f"{monitor}: {epoch} of 3" in plot.caption
    assert plot.figure.axes[0].lines[-1].get_xdata() == [epoch]


def test_curves_of_folds_stay_within_the_page(history):
    other = history.assign(val_loss=[1.0, 2.0, 3.0])
    both = pd.concat([history.assign(fold=1), other.assign(fold=2)], ignore_index=True)
    titles = {"loss": "cross-entropy", "accuracy": "accuracy by slice"}
    plot = plot_learning_curves(both, titles)
    assert "val_loss: 2, 1 of 3" in plot.caption
    assert "cross-entropy (1.250)" in plot.caption
    assert len(plot.figure.axes[0].lines) == 5 and plot.figure.get_figwidth() <= 9
