"""Diagrams of networks, plotted from the Keras models themselves."""

from collections import Counter
from dataclasses import dataclass
from textwrap import wrap

import keras
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from braintumor.plots.style import CLASS_COLORS, captioned

BLUE = CLASS_COLORS["meningioma"]
LINE_LENGTH = 36  # characters that fit into a box


@dataclass
class Block:
    """Consecutive layers whose maps have one size, and the numbers of their inputs."""

    layers: list
    shape: tuple
    parents: list

    @property
    def n_parameters(self):
        return sum(layer.count_params() for layer in self.layers)


def find_blocks(model):
    """Group the layers of a network into Blocks; the first is the input.

    A block begins where the size of the maps changes, unless the current one has no
    weights: a pooling belongs to the convolutions after it. A nested network is one
    block. Parents come before their children.
    """
    blocks = [Block([], model.input_shape[1:], [])]
    made_by = {id(tensor): 0 for tensor in model.inputs}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        shape, inputs = layer.output.shape[1:], keras.tree.flatten(layer.input)
        parents = {made_by.get(id(tensor), 0) for tensor in inputs}
        number = max(parents)
        is_resized = shape[:-1] != blocks[number].shape[:-1]
        if number == 0 or (is_resized and blocks[number].n_parameters):
            number = _find_child(blocks, number, shape)
        block = blocks[number]
        block.layers.append(layer)
        block.shape = shape
        block.parents = sorted(parents.union(block.parents) - {number})
        made_by[id(layer.output)] = number
    return blocks


def _find_child(blocks, parent, shape):
    """Number of the block with this parent and size of maps; it is added if missing."""
    for number, block in enumerate(blocks):
        if block.parents == [parent] and block.shape[:-1] == shape[:-1]:
            return number
    blocks.append(Block([], shape, []))
    return len(blocks) - 1


def receptive_field_size(model, layer):
    """Compute the side in pixels of a layer's theoretical receptive field.

    It follows from kernels and strides alone (of rows) and ignores the border.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, without nested networks.
    layer : keras.layers.Layer
        One of its layers whose output is (batch, rows, columns, channels).
    """
    fields = {id(tensor): (1, 1) for tensor in model.inputs}  # size, step in pixels
    for current in model.layers:
        inputs = [fields[id(x)] for x in keras.tree.flatten(current.input)]
        if inputs:
            kernel, stride = _kernel_and_stride(current)
            step = inputs[0][1]
            size = max(size for size, _ in inputs) + (kernel - 1) * step
            fields[id(current.output)] = size, step * stride
        if current is layer and len(layer.output.shape) == 4:
            return round(fields[id(layer.output)][0])
    raise ValueError(f"layer: got {layer.name!r}, expected a layer of {model.name!r}.")


def _kernel_and_stride(layer):
    """Input rows per output row, and input rows from one output row to the next."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        kernel, stride = layer.kernel_size[0], layer.strides[0]
        return -(-kernel // stride), 1 / stride
    if isinstance(layer, keras.layers.UpSampling2D):
        return 2 if layer.interpolation == "bilinear" else 1, 1 / layer.size[0]
    kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1,)))
    return kernel[0], getattr(layer, "strides", (1,))[0]


@captioned
def plot_architecture(model):
    """Plot a network as boxes joined by arrows: down to coarser maps, up to finer ones.

    Each box shows a block's output shape, parameters (the darker, the more) and layers.
    """
    blocks = find_blocks(model)
    places, texts = _place(blocks), [_describe(block) for block in blocks]
    tops, height = {}, 0
    for row in sorted({row for row, _ in places}):
        tops[row] = height
        n_lines = [
            len(t) for t, place in zip(texts, places, strict=True) if place[0] == row
        ]
        height += 1.6 + max(n_lines)
    width = 1.15 * (1 + max(column for _, column in places))
    figure, ax = plt.subplots(figsize=(3.2 * width, 0.2 * height))
    ax.set(xlim=(-0.02, width - 0.13), ylim=(height - 0.8, -0.2))
    ax.set_axis_off()
    most, boxes = max(block.n_parameters for block in blocks), []
    for block, text, (row, column) in zip(blocks, texts, places, strict=True):
        color = to_rgba(BLUE, 0.06 + 0.4 * block.n_parameters / most)
        x, y = 1.15 * column, tops[row]
        box = plt.Rectangle((x, y), 1, len(text) + 0.6, facecolor=color, edgecolor=BLUE)
        boxes.append(ax.add_patch(box))
        for n, line in enumerate(text):
            weight = "normal" if n else "bold"
            ax.text(x + 0.03, y + n + 0.8, line, va="center", size=9, weight=weight)
        for parent in block.parents:
            _plot_arrow(ax, boxes[parent], box)
    return figure, *_caption_and_alt(blocks, model.count_params())


def _plot_arrow(ax, start, end):
    style = {"arrowstyle": "->", "color": "0.35", "patchA": start, "patchB": end}
    style |= {"shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end.get_center(), start.get_center(), arrowprops=style)


def _place(blocks):
    """(row, column) of each block: coarser maps below, finer ones beside their size."""
    places = [(0, 0)]
    for block in blocks[1:]:
        parent = max(block.parents)
        row, column = places[parent][0] + 1, places[parent][1]
        side = block.shape[0]
        if len(block.shape) == 3 and side > blocks[parent].shape[0]:
            sides = [b.shape[0] for b in blocks[1 : len(places)]]
            row = places[1 + sides.index(side)][0] if side in sides else row - 2
            column = max(column, 1)
        while (row, column) in places:
            column += 1
        places.append((row, column))
    return places


def _describe(block):
    """Lines of a box: output shape and parameters, then the layers."""
    shape = _format_shape(block.shape)
    if not block.layers:
        return [f"{shape}, input"]
    counts = Counter(_format_layer(layer) for layer in block.layers)
    names = [f"{n} × {name}" if n > 1 else name for name, n in counts.items()]
    names = [name.replace(" ", "\xa0") for name in names]  # wrap between names only
    parameters = f"{shape}, {block.n_parameters:,} parameters"
    return [parameters, *wrap(", ".join(names), LINE_LENGTH)]


def _format_layer(layer):
    """A layer's kind with filters or units, kernel and activation; a network's name."""
    if isinstance(layer, keras.Model):
        return layer.name
    config, words = layer.get_config(), [type(layer).__name__]
    for name in ("filters", "units", "rate"):
        if name in config:
            words.append(str(config[name]))
    for name in ("kernel_size", "pool_size", "size"):
        if name in config:
            words.append(f"({_format_shape(config[name])})")
    if config.get("activation", "linear") != "linear":
        words.append(config["activation"])
    return " ".join(words)


def _format_shape(shape):
    return " × ".join(map(str, shape))


def _caption_and_alt(blocks, total):
    largest = max(blocks, key=lambda block: block.n_parameters)
    n_skips = sum(len(block.parents) - 1 for block in blocks[1:])
    skips = f", with {n_skips} skip connections" if n_skips else ""
    return (
        f"{total:,} parameters in {len(blocks) - 1} blocks, "
        f"{largest.n_parameters / total:.0%} of them in the block with output "
        f"{_format_shape(largest.shape)}. Darker boxes have more parameters.",
        f"Diagram of boxes joined by arrows{skips}. Output shapes from the input on: "
        f"{', '.join(_format_shape(block.shape) for block in blocks)}.",
    )
