"""Diagrams of networks, plotted from the Keras models themselves."""

from collections import Counter
from dataclasses import dataclass

import keras
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from braintumor.plots.style import CLASS_COLORS, captioned


@dataclass
class Block:
    """Consecutive layers whose maps have one size, and the numbers of their inputs."""

    layers: list
    parents: set

    @property
    def shape(self):
        return self.layers[-1].output.shape[1:]

    @property
    def n_parameters(self):
        return sum(layer.count_params() for layer in self.layers)


def find_blocks(model):
    """Group layers with maps of one size into Blocks; a pooling begins the next one."""
    blocks, children, made_by = [], {}, {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inputs = keras.tree.flatten(layer.input)
        parents = {made_by.get(id(x), -1) for x in inputs}
        if isinstance(model, keras.Sequential):  # its tensors are not those of layers
            parents = {len(blocks) - 1}
        number, size = max(parents), layer.output.shape[1:-1]
        block = blocks[number] if number >= 0 else None
        if not block or (block.shape[:-1] != size and block.n_parameters):
            number = children.setdefault((number, size), len(blocks))
            blocks += [Block([], set())] if number == len(blocks) else []
        blocks[number].layers.append(layer)
        blocks[number].parents |= parents - {number, -1}
        made_by[id(layer.output)] = number
    return blocks


def receptive_field_size(model, layer):
    """Compute the side in pixels of the receptive field of a layer's maps."""
    fields = {}  # of each tensor: side and step in pixels
    for current in model.layers:
        inputs = keras.tree.flatten(current.input)
        side, step = max([fields[id(x)] for x in inputs], default=(1, 1))
        kernel, stride = _kernel_and_stride(current)
        fields[id(current.output)] = side + (kernel - 1) * step, step * stride
    return round(fields[id(layer.output)][0])


def _kernel_and_stride(layer):
    """Input rows per output row, and input rows from one output row to the next."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        kernel, stride = layer.kernel_size[0], layer.strides[0]
        return -(-kernel // stride), 1 / stride
    kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1,)))
    return kernel[0], getattr(layer, "strides", (1,))[0]


@captioned
def plot_architecture(model):
    """Plot a network as a list of blocks, with arrows from the inputs of each."""
    blocks, color = find_blocks(model), CLASS_COLORS["meningioma"]
    figure, ax = plt.subplots(figsize=(8, 0.6 * len(blocks)))
    ax.set(xlim=(0, 1), ylim=(len(blocks), 0))
    ax.set_axis_off()
    shapes = [" × ".join(map(str, block.shape)) for block in blocks]
    sizes = [block.n_parameters for block in blocks]
    for n, block in enumerate(blocks):
        shade = to_rgba(color, 0.06 + 0.4 * sizes[n] / max(sizes))
        box = plt.Rectangle((0, n + 0.1), 0.8, 0.7, facecolor=shade, edgecolor=color)
        ax.add_patch(box)
        title = f"{shapes[n]}, {sizes[n]:,} parameters"
        ax.text(0.01, n + 0.3, title, va="center", size=9, weight="bold")
        counts = Counter(map(_format_layer, block.layers))
        names = [f"{k} × {name}" if k > 1 else name for name, k in counts.items()]
        ax.text(0.01, n + 0.6, ", ".join(names), va="center", size=8)
        for parent in block.parents:
            x, bend = (0.4, 0) if parent == n - 1 else (0.8, -0.3)
            style = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
            style["connectionstyle"] = f"arc3,rad={bend}"
            ax.annotate("", (x, n + 0.1), (x, parent + 0.8), arrowprops=style)
    share, listed = max(sizes) / sum(sizes), ", ".join(shapes)
    caption = (
        f"{sum(sizes):,} parameters, {share:.0%} of them in the darkest block. A block "
        "shows its output shape and its layers; arrows join it to its inputs."
    )
    alt = f"List of {len(blocks)} blocks with arrows. Output shapes in order: {listed}."
    return figure, caption, alt


def _format_layer(layer):
    """A layer's kind with filters or units, and kernel; a network's name."""
    if isinstance(layer, keras.Model):
        return layer.name
    config, words = layer.get_config(), [type(layer).__name__]
    words += [str(config[k]) for k in ("filters", "units", "rate") if k in config]
    sizes = [config[k] for k in ("kernel_size", "pool_size") if k in config]
    return " ".join(words + ["×".join(map(str, size)) for size in sizes])
