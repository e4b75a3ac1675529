"""A small classifier for small slices and short runs."""

import keras
from keras import layers

from braintumor.models.original import N_CLASSES, check_size


def build_compact(image_size=64):
    """Build a small classifier with softmax output (batch, 3).

    Four steps of 3 x 3 convolutions with batch normalization, then global max pooling:
    about 290,000 parameters at any size, where the original CNN has one weight per
    position. It therefore needs far fewer patients.

    Parameters
    ----------
    image_size : int
        Pixels per side, 64 or more; the input is (batch, side, side, 1) in [0, 1].
    """
    check_size(image_size)
    network = keras.Sequential(
        [layers.Input((image_size, image_size, 1))], name="compact"
    )
    for step, n_convolutions in enumerate((1, 2, 2, 2)):
        if step:
            network.add(layers.MaxPooling2D(2))
        for _ in range(n_convolutions):
            filters = 16 * 2**step
            network.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
            # Keras' 0.99 lags behind in a run of a few hundred steps
            network.add(layers.BatchNormalization(momentum=0.9))
            network.add(layers.ReLU())
    network.add(layers.GlobalMaxPooling2D())
    network.add(layers.Dropout(0.3))
    network.add(layers.Dense(N_CLASSES, activation="softmax"))
    return network
