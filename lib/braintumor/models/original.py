"""The networks as functions: the original study's, and a compact classifier for small slices and short runs."""

from keras import Model as KerasModel
from keras import Sequential, layers, losses, ops, regularizers

CLASSES = 3


def cnn(size=512, channels=1, last_block="leaky_relu"):
    """The original study's classifier: (batch, size, size, channels) in [0, 1] to softmax (batch, 3).

    Three blocks of a 3 x 3 convolution without padding, dropout, LeakyReLU, batch normalisation and pooling, with
    8, 16 and 32 filters; then a dense layer of 32. 5,275,875 parameters at 512 x 512 x 1, of which 5,269,536
    lie between the last pooling and the dense layer. `last_block` "relu" is the third member of the study's ensemble:
    ReLU in the last of the three blocks. Weights start as Keras' default (Glorot and Bengio 2010, uniform).
    Raises ValueError for a size under 64, or another `last_block`.
    """
    _check_size(size)
    if last_block not in ("leaky_relu", "relu"):
        raise ValueError(f"last_block {last_block!r}: expected 'leaky_relu' or 'relu'")
    penalty = regularizers.L2(0.01)
    blocks = []
    for filters, dropout, pool, l2 in (
        (8, 0.1, (1, 2), None),
        (16, 0.2, (3, 2), penalty),
        (32, 0.3, (2, 2), penalty),
    ):
        blocks += [
            layers.Conv2D(filters, 3, kernel_regularizer=l2, bias_regularizer=l2),
            layers.Dropout(dropout),
            layers.ReLU() if filters == 32 and last_block == "relu" else layers.LeakyReLU(negative_slope=0.1),
            layers.BatchNormalization(),
            layers.MaxPooling2D(pool),
        ]
    return Sequential(
        [
            layers.Input((size, size, channels)),
            *blocks,
            layers.Flatten(),
            layers.Dense(32, kernel_regularizer=regularizers.L2(1e-4), bias_regularizer=penalty),
            layers.LeakyReLU(negative_slope=0.1),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(CLASSES, activation="softmax"),
        ],
        name="cnn",
    )


def ensemble(members):
    """The mean softmax of trained classifiers as one network, which is saved, loaded and asked as one.

    `members` take inputs of one shape; so does the ensemble. Each must have a name of its own, and keeps its
    weights: none is copied.
    """
    inputs = layers.Input(members[0].input_shape[1:])
    return KerasModel(inputs, layers.Average()([member(inputs) for member in members]), name="ensemble")


def compact(size=64):
    """A small classifier for short runs: (batch, size, size, 1) in [0, 1] to softmax (batch, 3).

    Four steps of 3 x 3 convolutions with batch normalisation, then the greatest response anywhere in the slice: about
    290,000 parameters at any size, where `cnn` learns a weight for every place. It needs far fewer patients for that.
    Raises ValueError for a size under 64.
    """
    _check_size(size)
    blocks = []
    for step, convolutions in enumerate((1, 2, 2, 2)):
        blocks += [layers.MaxPooling2D(2)] if step else []
        for _ in range(convolutions):
            blocks += [
                layers.Conv2D(16 * 2**step, 3, padding="same", use_bias=False),
                layers.BatchNormalization(momentum=0.9),  # 0.99 lags behind in a run of a few hundred steps
                layers.ReLU(),
            ]
    head = [layers.GlobalMaxPooling2D(), layers.Dropout(0.3), layers.Dense(CLASSES, activation="softmax")]
    return Sequential([layers.Input((size, size, 1)), *blocks, *head], name="compact")


def unet(size=512, filters=16, dropout=0.0):
    """The original study's U-Net: (batch, size, size, 1) in [0, 1] to the tumor's probability (batch, size, size, 1).

    Four steps down and up, He-normal 3 x 3 convolutions, 2 x 2 transposed convolutions of stride 2 (Ronneberger et al.
    2015, with padding and without batch normalisation). 1,940,817 parameters with 16 filters, 31,030,593 with 64.
    Raises ValueError for a size under 64 or not divisible by 16.
    """
    _check_size(size)
    if size % 16:
        raise ValueError(f"image size {size}: the U-Net halves it four times; expected a multiple of 16")

    def two_convolutions(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    x = inputs = layers.Input((size, size, 1))
    skips = []
    for step in range(4):
        skips.append(two_convolutions(x, filters * 2**step))
        x = layers.MaxPooling2D(2)(skips[-1])
        x = layers.Dropout(dropout)(x) if dropout else x
    x = two_convolutions(x, filters * 16)
    for step in reversed(range(4)):
        x = layers.Conv2DTranspose(filters * 2**step, 2, strides=2)(x)
        x = layers.Concatenate()([skips[step], x])
        x = layers.Dropout(dropout)(x) if dropout else x
        x = two_convolutions(x, filters * 2**step)
    return KerasModel(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x), name="unet")


def head_box(image):
    """The square around the head: slices (batch, size, size, 1) in [0, 1] to (batch, 3), left, top and side in pixels.

    Rows and columns count as head where at least two of their 64 blocks are brighter than 0.08 on average; a margin
    of 1/32 of the slice is added. A slice with nothing bright is one square. Made of Keras' operations, as are
    `cut_out` and `put_back`, so that a saved network finds the head by itself.
    """
    size = image.shape[1]
    bright = ops.cast(ops.average_pool(image, size // 64) > 0.08, "float32")[..., 0]
    (left, right), (top, bottom) = (_first_and_last(ops.sum(bright, axis=axis) >= 2, size // 64) for axis in (1, 2))
    side = ops.minimum(ops.maximum(right - left, bottom - top) + size // 32, float(size))
    corner = [
        ops.minimum(ops.maximum((start + end - side) / 2, 0.0), size - side)
        for start, end in ((left, right), (top, bottom))
    ]
    return ops.stack([*corner, side], axis=1)


def whole_box(image):
    """A box like `head_box` that is the whole of each slice."""
    nothing = 0 * ops.mean(image, axis=(1, 2))
    return ops.concatenate([nothing, nothing, nothing + image.shape[1]], axis=1)


def grown(box, factor):
    """Boxes from `head_box` with the same centre and `factor` times the side; they may reach out of the slice."""
    # column by column: Keras' add takes (2, 1) for a bias of the last axis of (2, 2), and so would mix up two slices
    left, top, side = (box[:, axis : axis + 1] for axis in range(3))
    margin = side * (1 - factor) / 2
    return ops.concatenate([left + margin, top + margin, side * factor], axis=1)


def _first_and_last(counts, block):
    """Where a row of bools (batch, blocks) is true first, and where for the last time, in pixels."""
    blocks = ops.cast(counts, "float32")
    first = ops.argmax(blocks, axis=1)
    last = blocks.shape[1] - ops.argmax(ops.flip(blocks, axis=1), axis=1)
    return [ops.cast(place, "float32") * block for place in (first, last)]


def cut_out(image, box, size):
    """The square `box` of each slice, from `head_box`, at `size` pixels a side, which is not more than the slice's.

    What the box holds from outside the slice is black.
    """
    scale = box[:, 2] / size
    return _moved(image, scale, *(box[:, axis] + (scale - 1) / 2 for axis in (0, 1)))[:, :size, :size]


def put_back(mask, box, size):
    """The opposite of `cut_out`: a mask of the square `box` as one of the whole slice, `size` a side, 0 around it."""
    scale, missing = box[:, 2] / mask.shape[1], size - mask.shape[1]
    mask = ops.pad(mask, ((0, 0), (0, missing), (0, missing), (0, 0)))
    return _moved(mask, 1 / scale, *((0.5 - box[:, axis]) / scale - 0.5 for axis in (0, 1)))


def _moved(images, scale, left, top):
    zero = ops.zeros_like(scale)
    transform = ops.stack([scale, zero, left, zero, scale, top, zero, zero], axis=1)
    return ops.image.affine_transform(images, transform, interpolation="bilinear", fill_mode="constant")


def head_cutter(size, cut):
    """Slices and masks (batch, size, size) uint8 to those of the head alone, (batch, cut, cut) uint8: a network.

    Raises ValueError if `cut` is more than `size`, or not a multiple of 16.
    """
    if cut % 16 or not 0 < cut <= size:
        raise ValueError(f"head cut out at {cut} pixels: expected a multiple of 16, at most the slice's {size}")
    image, mask = (layers.Input((size, size), dtype="uint8") for _ in range(2))
    slices, masks = (ops.cast(one, "float32")[..., None] for one in (image, mask))
    box = head_box(slices / 255)
    slices, masks = (cut_out(one, box, cut)[..., 0] for one in (slices, masks))
    return KerasModel([image, mask], [ops.cast(ops.round(slices), "uint8"), ops.cast(masks >= 0.5, "uint8")])


def bce_dice(true, predicted):
    """The loss of masks: binary cross-entropy plus Dice loss, 1 - Dice of all pixels of a batch together.

    Takes masks and probabilities (batch, size, size, 1), gives one number. The cross-entropy judges each pixel, most of
    which are no tumor; the Dice loss (Milletari et al. 2016, here without squares) does not count those.
    """
    return losses.BinaryCrossentropy()(true, predicted) + losses.Dice()(true, predicted)


def _check_size(size):
    if size < 64:
        raise ValueError(f"image size {size}: expected 64 pixels or more")
