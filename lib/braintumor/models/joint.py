"""The published network: one residual encoder for classification and segmentation."""

import keras
from keras import layers, losses

from braintumor.models import efficientnet
from braintumor.models.efficientnet import convolve
from braintumor.models.original import N_CLASSES, check_size

TASKS = ("classify", "segment")


def build_joint(
    image_size, filters=32, tasks=TASKS, air_threshold=0.0, encoder="residual"
):
    """Build an encoder with a classification head and a U-Net decoder.

    The class is predicted from the maxima and means of the coarsest map, the mask by a
    decoder with skip connections. Outputs are {"classify": (batch, 3), "segment":
    (batch, side, side, 1)}.

    Parameters
    ----------
    image_size : int, a multiple of 16; the input is in [0, 1]
    filters : int, of the finest map; coarser ones have 2 and 4 times as many
    tasks : tuple, the outputs to build
    air_threshold : float, below which the input counts as 0
    encoder : "residual" (He et al. 2016) or "efficientnet", see `efficientnet.encode`
    """
    check_size(image_size)
    image = layers.Input((image_size, image_size, 1))
    # without the noise of air, which tells scanners apart
    visible = layers.ReLU(threshold=air_threshold)(image) if air_threshold else image
    if encoder == "efficientnet":
        features = efficientnet.encode(visible)
    else:
        features = _encode(visible, filters)
    poolings = layers.GlobalMaxPooling2D(), layers.GlobalAveragePooling2D()
    pooled = [pooling(features[-1]) for pooling in poolings]
    pooled = layers.Concatenate(name="pooled_features")(pooled)
    pooled = layers.Dropout(0.3)(pooled)
    outputs, settings = {}, {"dtype": "float32"}  # also in mixed precision
    if "classify" in tasks:
        head = layers.Dense(N_CLASSES, "softmax", name="classify", **settings)
        outputs["classify"] = head(pooled)
    if "segment" in tasks:
        maps = _decode(features, filters)
        head = layers.Conv2D(1, 1, activation="sigmoid", name="segment", **settings)
        outputs["segment"] = head(maps)
    return keras.Model(image, outputs, name="joint")


def build_from_parameters(parameters):
    """Build the network of the parameters in a run.json, a dict, with both outputs."""
    return build_joint(
        parameters["head_size"],
        parameters["filters"],
        air_threshold=parameters["air_threshold"],
        encoder=parameters["network"],
    )


def _encode(image, filters):
    """Return the maps of the four residual stages, from fine to coarse."""
    x = layers.ReLU()(convolve(image, filters // 2))
    x = layers.ReLU()(convolve(x, filters, strides=2))
    features = []
    for stage, width in enumerate((filters, 2 * filters, 4 * filters, 4 * filters)):
        x = _residual_block(x, width, strides=2 if stage else 1)
        x = _residual_block(x, width, name="coarse_features" if stage == 3 else None)
        features.append(x)
    return features


def _decode(features, filters):
    """Upsample the coarsest map to the input's size, with skip connections."""
    x = features[-1]
    for factor, skip in zip((4, 2, 1), reversed(features[:-1]), strict=True):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = layers.Concatenate()([skip, x])
        for _ in range(2):
            x = layers.ReLU()(convolve(x, factor * filters))
    return layers.UpSampling2D(interpolation="bilinear")(x)


def _residual_block(x, filters, strides=1, name=None):
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = convolve(x, filters, 1, strides)
    y = layers.ReLU()(convolve(x, filters, strides=strides))
    y = layers.Add()([shortcut, convolve(y, filters)])
    return layers.ReLU(name=name)(y)


def per_slice_loss(y_true, y_pred):
    """Compute binary cross-entropy plus the mean Dice loss of the slices in a batch."""
    # with one Dice over the batch a small tumor that is missed would hardly count
    dice = losses.Dice(axis=(1, 2, 3))
    return losses.BinaryCrossentropy()(y_true, y_pred) + dice(y_true, y_pred)


def to_float16_weights(network):
    """Copy a network with weights as published, in float16, computing in float32."""

    def to_float32(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(network, clone_function=to_float32, recursive=True)
    copy.set_weights([weight.astype("float16") for weight in network.get_weights()])
    return copy


def load_onnx_weights(network, path):
    """Give a network of `build_joint` the weights of an ONNX file of this project.

    A file of fewer layers, such as an encoder's, gives weights to the first ones.
    """
    import onnx  # only here: predictions need it not

    tensors = onnx.load(path).graph.initializer
    halves = [t for t in tensors if t.data_type == onnx.TensorProto.FLOAT16]
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in halves]
    for layer in network.layers:
        n = len(layer.weights)
        weights, arrays = arrays[:n], arrays[n:]
        if weights:
            layer.set_weights([to_keras_axes(layer, w) for w in weights])


def to_keras_axes(layer, weights):
    """Transpose a kernel of ONNX or PyTorch to Keras' axes; others stay as they are."""
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    axes = (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
    return weights.transpose(axes) if weights.ndim == 4 else weights
