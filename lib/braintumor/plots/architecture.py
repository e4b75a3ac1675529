"""Networks as pictures, drawn from the Keras models themselves: their blocks, and how far a unit of them sees."""

from collections import Counter
from dataclasses import dataclass
from textwrap import wrap

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

BLUE = "#0072B2"
SETTINGS = {  # what tells a layer from its like; a kind that is not here is only named
    "Conv2D": "{filters} of {kernel_size}",
    "Conv2DTranspose": "{filters} of {kernel_size}",
    "MaxPooling2D": "{pool_size}",
    "GlobalMaxPooling2D": "",  # nothing to tell, but its place is before the Dense
    "GlobalAveragePooling2D": "",
    "UpSampling2D": "{size}",
    "Dense": "{units}",
    "Dropout": "{rate}",
}


@dataclass
class Block:
    """Layers in a row whose maps have one size: the layers, output shape, and the numbers of the blocks they take."""

    layers: list
    shape: tuple
    parents: list

    @property
    def parameters(self):
        return sum(layer.count_params() for layer in self.layers)


def blocks(model):
    """A network of Keras as a list of Blocks, each after those that it takes; the first is the input, without layers.

    A new block begins where the size of the maps changes, but not before the one that is left has weights: a pooling
    belongs to the convolutions after it. A network within the network is one block, and takes the input. Layers must
    have been called once.
    """
    found, made = [Block([], model.input_shape[1:], [])], {id(tensor): 0 for tensor in model.inputs}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        shape, above = layer.output.shape[1:], sorted({made.get(id(one), 0) for one in keras.tree.flatten(layer.input)})
        number = above[-1]
        if number == 0 or (shape[:-1] != found[number].shape[:-1] and found[number].parameters):
            alike = [n for n, b in enumerate(found) if b.parents == [number] and b.shape[:-1] == shape[:-1]]
            number = alike[0] if alike else len(found)
            found += [] if alike else [Block([], shape, [])]
        block = found[number]
        block.layers.append(layer)
        block.shape = shape
        block.parents = sorted({*block.parents, *above} - {number})
        made[id(layer.output)] = number
    return found


def architecture(model):
    """A network as boxes joined by arrows: down to coarser maps on the left, up to finer ones on the right.

    Each box has a block's output shape, parameters (the darker, the more) and layers.
    """
    found = blocks(model)
    places, lines = _places(found), [_lines(block) for block in found]
    rows = {row: 1.6 + max(len(lines[n]) for n in places if places[n][0] == row) for row, _ in places.values()}
    tops = {row: sum(height for other, height in rows.items() if other < row) for row in rows}
    boxes = {n: (1.15 * places[n][1], tops[places[n][0]], len(lines[n]) + 0.6) for n in places}
    columns = 1 + max(column for _, column in places.values())
    figure, ax = plt.subplots(figsize=(3.4 * columns, 0.2 * sum(rows.values())))
    most = max(block.parameters for block in found)
    for n, block in enumerate(found):
        x, y, height = boxes[n]
        color = plt.matplotlib.colors.to_rgba(BLUE, 0.06 + 0.4 * block.parameters / most)
        ax.add_patch(plt.Rectangle((x, y), 1, height, facecolor=color, edgecolor=BLUE, linewidth=0.8))
        for line, (text, style) in enumerate(lines[n]):
            ax.text(x + 0.03, y + line + 0.8, text, va="center", size=9.5, **style)
        if block.parameters:
            ax.text(x + 0.97, y + 0.8, f"{block.parameters:,}", va="center", ha="right", size=9.5)
        for parent in block.parents:
            _arrow(ax, boxes[parent], boxes[n])
    ax.set(xlim=(-0.02, 1.15 * columns - 0.13), ylim=(sum(rows.values()) - 0.8, -0.2))
    ax.set_axis_off()
    return figure


def described(model):
    """Caption and alternative text of `architecture`, for `figures.show`."""
    found = blocks(model)
    largest, total = max(found, key=lambda block: block.parameters), model.count_params()
    skips = sum(len(block.parents) - 1 for block in found[1:])
    across = f", with {skips} that lead across to a later box" if skips else ""
    return (
        f"{total:,} parameters in {len(found) - 1} blocks, {largest.parameters / total:.0%} of them in the one that "
        f"ends at {_by(largest.shape)}.",
        f"Diagram of boxes joined by arrows{across}. From the input: {', '.join(_by(block.shape) for block in found)}.",
    )


def receptive_field(model, layer, images):
    """How much the middle of a layer's maps depends on each pixel: (side, side) float32, the greatest value 1.

    The absolute gradient of that unit, all its channels together, by the input; its mean over `images` (n, side, side,
    1) float32 in [0, 1], since ReLU and pooling pass it on for some pixels of a slice only.
    """
    seen = keras.Model(model.inputs, layer.output)
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps = tf.cast(seen(images), tf.float32)
        middle = tf.reduce_sum(maps[:, maps.shape[1] // 2, maps.shape[2] // 2])
    field = np.abs(tape.gradient(middle, images).numpy()[..., 0]).mean(0)
    return field / max(field.max(), 1e-12)


def square(field, share=1.0):
    """The side in pixels of the smallest square around a field's centre of mass that holds a `share` of it, or the
    field's own where that is less."""
    places = np.indices(field.shape)
    centre = [(axis * field).sum() / field.sum() for axis in places]
    away = np.maximum(*(abs(axis - round(middle)) for axis, middle in zip(places, centre, strict=True)))
    within = np.array([field[away <= radius].sum() for radius in range(away.max() + 1)]) / field.sum()
    return min(2 * int(np.argmax(within >= share - 1e-6)) + 1, max(field.shape))


def _places(found):
    """Row and column of each block: one row down for coarser maps; for finer ones beside the block of the same size."""
    places = {0: (0, 0)}
    for n, block in enumerate(found[1:], start=1):
        row, column = places[max(block.parents)]
        finer = len(block.shape) == 3 and block.shape[0] > found[max(block.parents)].shape[0]
        if finer:
            same = [places[m][0] for m in range(1, n) if found[m].shape[:-1] == block.shape[:-1]]
            row, column = (same[0] if same else row - 1), max(column, 1)
        else:
            row += 1
        while (row, column) in places.values():
            column += 1
        places[n] = row, column
    return places


def _lines(block):
    """What stands in a box: (text, its style) of each line."""
    if not block.layers:
        return [(f"{_by(block.shape)}   input", {"weight": "bold"})]
    shown = Counter(_named(layer) for layer in block.layers if type(layer).__name__ in SETTINGS or layer.count_params())
    quiet = [kind for kind in dict.fromkeys(type(layer).__name__ for layer in block.layers) if kind not in SETTINGS]
    shown = {name: count for name, count in shown.items() if name not in quiet}
    lines = [(f"{count} × {name}" if count > 1 else name, {}) for name, count in shown.items()]
    lines += [(line, {"style": "italic", "color": "0.25"}) for line in wrap(", ".join(quiet), 34)]
    return [(_by(block.shape), {"weight": "bold"}), *lines]


def _named(layer):
    kind, config = type(layer).__name__, layer.get_config()
    if kind in ("Sequential", "Functional"):
        return layer.name
    text = SETTINGS.get(kind, "").format(**config).replace("(", "").replace(")", "").replace(", ", " × ")
    return f"{kind} {text} {'' if config.get('activation') in (None, 'linear') else config['activation']}".strip()


def _by(shape):
    return " × ".join(map(str, shape))


def _arrow(ax, start, end):
    """From one box (left, top, height) to another: down or up in a column, or across."""
    (x, y, height), (to_x, to_y, to_height) = start, end
    bend = "arc3"
    if x == to_x and to_y > y:
        ends = (x + 0.5, y + height), (to_x + 0.5, to_y)
    elif x == to_x:
        ends = (x + 0.5, y), (to_x + 0.5, to_y + to_height)
    elif to_y < y:
        ends, bend = ((x + 1, y + height / 2), (to_x + 0.5, to_y + to_height)), "angle,angleA=0,angleB=90"
    else:
        middle = y + min(height, to_height) / 2
        ends = (x + 1, middle), (to_x, middle if to_y == y else to_y + to_height / 2)
    shape = {"arrowstyle": "->", "color": "0.35", "connectionstyle": bend, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", ends[1], ends[0], arrowprops=shape)
