"""The encoder of EfficientNet-Lite0, whose ImageNet weights are published."""

from keras import layers

BLOCKS = (  # number, kernel size, stride, expansion and filters, as in EfficientNet-B0
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
)
N_FEATURES = 128  # of the coarsest map, the input of the classification head


def encode(image):
    """Return maps of 1/2, 1/4, 1/8 and 1/16 of the image's size (Tan and Le 2019).

    The blocks of 1/32 of the size are left out: a head of 128 pixels would have 4.
    """
    x, features = layers.ReLU(6.0)(convolve(image, 32, strides=2)), []
    for number, kernel_size, strides, expansion, filters in BLOCKS:
        if strides == 2:
            features.append(x)
        for n in range(number):
            x = _block(x, kernel_size, 1 if n else strides, expansion, filters)
    x = convolve(x, N_FEATURES, 1)
    return [*features, layers.ReLU(name="coarse_features")(x)]


def convolve(x, filters, size=3, strides=1):
    """Convolve, with padding and without bias, and normalize over the batch."""
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.97)(x)


def _block(x, kernel_size, strides, expansion, filters):
    """Expand the channels, convolve each by itself, and project them."""
    y = x
    if expansion > 1:
        y = layers.ReLU(6.0)(convolve(y, expansion * x.shape[-1], 1))
    y = layers.DepthwiseConv2D(kernel_size, strides, "same", use_bias=False)(y)
    y = layers.BatchNormalization(momentum=0.97)(y)
    y = convolve(layers.ReLU(6.0)(y), filters, 1)
    return layers.Add()([x, y]) if y.shape == x.shape else y
