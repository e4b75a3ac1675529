"""Diagrams of networks, plotted from the Keras models themselves."""

from collections import Counter
from dataclasses import dataclass

import keras
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba

from braintumor.data.labels import CLASS_COLORS
from braintumor.plots.style import captioned


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
        parents = {made_by.get(id(x), -1) for x in keras.tree.flatten(layer.input)}
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


@captioned
def plot_architecture(model):
    """Plot a network as a list of blocks, with arrows from the inputs of each."""
    blocks, color = find_blocks(model), CLASS_COLORS["meningioma"]
    figure, ax = plt.subplots(figsize=(8, 0.6 * len(blocks)))
    ax.set(xlim=(0, 1), ylim=(len(blocks), 0))
    ax.set_axis_off()
    shapes = [" × ".join(map(str, block.shape)) for block in blocks]
    sizes = [block.n_parameters for block in blocks]
    style = {"arrowstyle": "->", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    for n, block in enumerate(blocks):
        shade = to_rgba(color, 0.06 + 0.4 * sizes[n] / max(sizes))
        ax.add_patch(plt.Rectangle((0, n + 0.1), 0.8, 0.7, fc=shade, ec=color))
        title = f"{shapes[n]}, {sizes[n]:,} parameters"
        ax.text(0.01, n + 0.3, title, va="center", size=9, weight="bold")
        counts = Counter(map(_format_layer, block.layers)).items()
        names = ", ".join(f"{k} × {name}" if k > 1 else name for name, k in counts)
        ax.text(0.01, n + 0.6, names, va="center", size=8)
        for parent in block.parents:
            x, bend = (0.4, 0) if parent == n - 1 else (0.8, -0.3)
            arrow = style | {"connectionstyle": f"arc3,rad={bend}"}
            ax.annotate("", (x, n + 0.1), (x, parent + 0.8), arrowprops=arrow)
    share = max(sizes) / sum(sizes)
    caption = f"{sum(sizes):,} parameters, {share:.0%} of them in the darkest block. "
    caption += "A block shows its output shape and layers; arrows come from its inputs."
    return figure, caption, f"{len(blocks)} blocks with arrows: {', '.join(shapes)}."


def _format_layer(layer):
    """Format a layer: its kind, filters or units, and kernel; or a network's name."""
    if isinstance(layer, keras.Model):
        return layer.name
    config, words = layer.get_config(), [type(layer).__name__]
    words += [str(config[k]) for k in ("filters", "units", "rate") if k in config]
    sizes = [config[k] for k in ("kernel_size", "pool_size") if k in config]
    return " ".join(words + ["×".join(map(str, size)) for size in sizes])
