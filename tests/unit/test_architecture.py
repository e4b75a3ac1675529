"""Diagrams of networks: blocks and arrows."""

import keras
import pytest
from keras import layers

from braintumor.models.compact import build_compact
from braintumor.models.joint import build_joint
from braintumor.models.original import build_cnn, build_unet
from braintumor.plots import architecture
from braintumor.plots.architecture import find_blocks


def test_blocks_of_a_unet_are_its_steps():
    blocks = find_blocks(build_unet(64, 4))
    sides = [block.shape[0] for block in blocks]
    assert sides == [64, 32, 16, 8, 4, 8, 16, 32, 64]
    assert [block.parents for block in blocks[5:]] == [{3, 4}, {2, 5}, {1, 6}, {0, 7}]


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


def test_nested_networks_are_blocks_side_by_side():
    image = layers.Input((64, 64, 1))
    model = keras.Model(image, [build_cnn(64)(image), build_unet(64, 4)(image)])
    assert [block.parents for block in find_blocks(model)] == [set(), set()]
