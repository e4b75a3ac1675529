"""A small classifier for small slices and short runs."""

import keras
from keras import layers

from braintumor.models.original import N_CLASSES


def build_compact(image_size=64):
    """Build a small classifier, of about 290,000 parameters at any input size.

    Returns
    -------
    keras.Model, uncompiled : (batch, side, side, 1) in [0, 1] to softmax (batch, 3)
    """
    model = keras.Sequential(name="compact")
    model.add(layers.Input((image_size, image_size, 1)))
    for step, n_convolutions in enumerate((1, 2, 2, 2)):
        if step:
            model.add(layers.MaxPooling2D(2))
        for _ in range(n_convolutions):
            model.add(layers.Conv2D(16 * 2**step, 3, padding="same", use_bias=False))
            # Keras' 0.99 lags behind in a run of a few hundred steps
            model.add(layers.BatchNormalization(momentum=0.9))
            model.add(layers.ReLU())
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(N_CLASSES, activation="softmax"))
    return model
