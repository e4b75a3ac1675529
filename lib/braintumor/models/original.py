"""The networks of the original study: CNN, U-Net and ensemble, as functions."""

import keras
from keras import layers, losses, regularizers

N_CLASSES = 3
MIN_SIZE = 64


def build_cnn(image_size=512, channels=1, last_block="leaky_relu"):
    """Build the original study's classifier, with softmax output (batch, 3).

    Three blocks of a 3 x 3 convolution without padding, dropout, activation, batch
    normalization and pooling, then a dense layer. It has 5,275,875 parameters at
    512 x 512 x 1; 5,269,536 of them are in the first dense layer.

    Parameters
    ----------
    image_size : int
        Pixels per side, 64 or more; the input is in [0, 1].
    channels : int
        Input channels; the original ensemble used 3.
    last_block : {"leaky_relu", "relu"}
        Activation of the third block; "relu" is the third member of the ensemble.
    """
    check_size(image_size)
    if last_block not in ("leaky_relu", "relu"):
        raise ValueError(
            f"last_block: got {last_block!r}, expected 'leaky_relu' or 'relu'."
        )
    l2 = regularizers.L2(0.01)
    blocks = [
        *_cnn_block(8, 0.1, (1, 2), None, "leaky_relu"),
        *_cnn_block(16, 0.2, (3, 2), l2, "leaky_relu"),
        *_cnn_block(32, 0.3, (2, 2), l2, last_block),
    ]
    head = [
        layers.Flatten(),
        layers.Dense(32, kernel_regularizer=regularizers.L2(1e-4), bias_regularizer=l2),
        layers.LeakyReLU(negative_slope=0.1),
        layers.BatchNormalization(),
        layers.Dropout(0.3),
        layers.Dense(N_CLASSES, activation="softmax"),
    ]
    image = layers.Input((image_size, image_size, channels))
    return keras.Sequential([image, *blocks, *head], name="cnn")


def _cnn_block(filters, dropout, pool_size, l2, activation):
    return [
        layers.Conv2D(filters, 3, kernel_regularizer=l2, bias_regularizer=l2),
        layers.Dropout(dropout),
        layers.ReLU() if activation == "relu" else layers.LeakyReLU(negative_slope=0.1),
        layers.BatchNormalization(),
        layers.MaxPooling2D(pool_size),
    ]


def build_ensemble(members):
    """Build a network that averages the softmax outputs of trained classifiers.

    Parameters
    ----------
    members : list of keras.Model
        Networks with one input shape and distinct names; their weights are shared.
    """
    image = layers.Input(members[0].input_shape[1:])
    mean = layers.Average()([member(image) for member in members])
    return keras.Model(image, mean, name="ensemble")


def build_unet(image_size=512, filters=16, dropout=0.0):
    """Build the original study's U-Net, with sigmoid output (batch, side, side, 1).

    Four steps down and up with padding and without batch normalization. It has
    1,940,817 parameters with 16 filters and 31,030,593 with 64.

    Parameters
    ----------
    image_size : int
        Pixels per side, 64 or more and a multiple of 16; the input is in [0, 1].
    filters : int
        Filters of the first convolution; they double at each step down.
    dropout : float
        Dropout rate after each pooling and concatenation.

    References
    ----------
    Ronneberger et al. (2015), U-Net: convolutional networks for biomedical image
    segmentation.
    """
    check_size(image_size)
    if image_size % 16:
        raise ValueError(f"image_size: got {image_size}, expected a multiple of 16.")
    x = image = layers.Input((image_size, image_size, 1))
    skips = []
    for step in range(4):
        x = _two_convolutions(x, filters * 2**step)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Dropout(dropout)(x) if dropout else x
    x = _two_convolutions(x, filters * 16)
    for step in reversed(range(4)):
        x = layers.Conv2DTranspose(filters * 2**step, 2, strides=2)(x)
        x = layers.Concatenate()([skips[step], x])
        x = layers.Dropout(dropout)(x) if dropout else x
        x = _two_convolutions(x, filters * 2**step)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x), name="unet")


def _two_convolutions(x, filters):
    for _ in range(2):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
    return x


def bce_dice_loss(y_true, y_pred):
    """Compute binary cross-entropy plus Dice loss, pooled over a batch of masks.

    References
    ----------
    Milletari et al. (2016), V-Net: fully convolutional neural networks for volumetric
    medical image segmentation (here without squares in the denominator).
    """
    return losses.BinaryCrossentropy()(y_true, y_pred) + losses.Dice()(y_true, y_pred)


def check_size(image_size):
    """Raise ValueError if slices are too small for the networks of this package."""
    if image_size < MIN_SIZE:
        raise ValueError(f"image_size: got {image_size}, expected {MIN_SIZE} or more.")
