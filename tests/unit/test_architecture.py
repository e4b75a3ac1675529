"""Diagrams of networks: blocks and arrows."""

import pytest
from keras import layers

from braintumor.models.compact import build_compact
from braintumor.models.joint import build_joint
from braintumor.models.original import build_cnn, build_unet
from braintumor.plots import architecture
from braintumor.plots.architecture import find_blocks


@pytest.mark.parametrize("build", [build_cnn, build_compact, build_joint])
def test_every_layer_is_in_one_block(build):
    model = build(64)
    blocks = find_blocks(model)
    found = [layer.name for block in blocks for layer in block.layers]
    inputs = {x.name for x in model.layers if isinstance(x, layers.InputLayer)}
    assert sorted(found) == sorted({x.name for x in model.layers} - inputs)
    assert sum(block.n_parameters for block in blocks) == model.count_params()
    assert not blocks[0].parents and all(block.parents for block in blocks[1:])


def test_diagram_shows_shapes_layers_and_arrows():
    plot = architecture.plot_architecture(build_unet(64, 4))
    texts = plot.figure.axes[0].texts
    shown = " | ".join(text.get_text() for text in texts)
    assert "4 × 4 × 64, 55,424 parameters" in shown
    assert "MaxPooling2D 2×2, 2 × Conv2D 64 3×3" in shown
    assert len([text for text in texts if text.get_text() == ""]) == 12  # arrows
    assert "121,653 parameters" in plot.caption and "9 blocks" in plot.alt
