"""The networks of the original study: CNN and U-Net."""

import keras
from keras import layers, losses, regularizers

N_CLASSES = 3


def build_cnn(image_size=512, channels=1, last_block="leaky_relu"):
    """Build the original study's classifier: 5,275,875 parameters at 512 x 512 x 1.

    Parameters
    ----------
    image_size, channels : int, of the input, which is in [0, 1]
    last_block : "leaky_relu" or "relu", the activation of the third block

    Returns
    -------
    keras.Model, uncompiled, with softmax output (batch, 3)
    """
    if last_block not in ("leaky_relu", "relu"):
        raise ValueError(f"last_block: got {last_block}, expected leaky_relu or relu.")
    l2, weak_l2 = regularizers.L2(0.01), regularizers.L2(1e-4)
    model = keras.Sequential(name="cnn")
    model.add(layers.Input((image_size, image_size, channels)))
    blocks = ((8, 0.1, (1, 2), None), (16, 0.2, (3, 2), l2), (32, 0.3, (2, 2), l2))
    for filters, dropout, pool_size, penalty in blocks:
        penalties = {"kernel_regularizer": penalty, "bias_regularizer": penalty}
        model.add(layers.Conv2D(filters, 3, **penalties))
        model.add(layers.Dropout(dropout))
        is_relu = filters == 32 and last_block == "relu"
        model.add(layers.ReLU() if is_relu else layers.LeakyReLU(negative_slope=0.1))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D(pool_size))
    model.add(layers.Flatten())
    model.add(layers.Dense(32, kernel_regularizer=weak_l2, bias_regularizer=l2))
    model.add(layers.LeakyReLU(negative_slope=0.1))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(N_CLASSES, activation="softmax"))
    return model


def build_unet(image_size=512, filters=16):
    """Build the original study's U-Net; it pads, unlike Ronneberger et al. (2015).

    Parameters
    ----------
    image_size : int, a multiple of 16; the input is in [0, 1]
    filters : int, of the first step; doubled at each of four steps down

    Returns
    -------
    keras.Model, uncompiled, with sigmoid output (batch, side, side, 1)
    """
    check_size(image_size)
    x = image = layers.Input((image_size, image_size, 1))
    skips = []
    for step in range(4):
        x = _convolve_twice(x, filters * 2**step)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = _convolve_twice(x, filters * 16)
    for step in reversed(range(4)):
        x = layers.Conv2DTranspose(filters * 2**step, 2, strides=2)(x)
        x = layers.Concatenate()([skips[step], x])
        x = _convolve_twice(x, filters * 2**step)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x), name="unet")


def _convolve_twice(x, filters):
    settings = {"activation": "relu", "kernel_initializer": "he_normal"}
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", **settings)(x)
    return x


def bce_dice_loss(y_true, y_pred):
    """Compute binary cross-entropy plus Dice loss, pooled over a batch of masks."""
    return losses.BinaryCrossentropy()(y_true, y_pred) + losses.Dice()(y_true, y_pred)


def check_size(image_size):
    """Raise ValueError if a network cannot halve slices of this size four times."""
    if image_size < 16 or image_size % 16:
        raise ValueError(f"image_size: got {image_size}, expected a multiple of 16.")
