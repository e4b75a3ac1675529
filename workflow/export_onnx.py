"""Write a joint network as ONNX, with its weights as they are, in float16.

The weights keep Keras' names and order, so that Keras can load them as well:
`braintumor.models.joint.load_onnx_weights`. ONNX Runtime computes in float32.
"""

import json

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from braintumor.core.files import atomic_write
from braintumor.inference.predictor import network_name

OPSET = 17


class _Graph:
    """Nodes and initializers of a graph; axes are batch, channel, row, column."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def add(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add_weight(self, name, values):
        """Store an array as float16, and return its name in float32."""
        values = np.ascontiguousarray(values, np.float16)
        self.initializers.append(numpy_helper.from_array(values, name))
        return self.add("Cast", [name], f"{name}/float32", to=TensorProto.FLOAT)

    def add_constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(values, name))
        return name


def export_onnx(network, path):
    """Write a network of `build_joint` with both outputs, "features" and "gradcam".

    Input is "image" (n, 1, side, side). Grad-CAM (Selvaraju et al. 2017) weights the
    coarsest maps by their mean gradients. The logits are linear in each map's maximum
    and mean, so these gradients are the sums of both weights, but for a factor.
    """
    graph, side = _Graph(), network.input_shape[1]
    names = _add_layers(graph, network)
    coarse = network.get_layer("coarse_features").output
    kernel = network.get_layer("classify").get_weights()[0]
    kernel = kernel.reshape(2, coarse.shape[-1], -1).sum(axis=0).T[..., None, None]
    kernel = graph.add_constant("gradcam/kernel", kernel)
    weighted = graph.add("Conv", [names[coarse.name], kernel], "gradcam/sum")
    graph.add("Relu", [weighted], "gradcam")
    pooled = names[network.get_layer("pooled_features").output.name]
    graph.add("Identity", [pooled], "features")
    shapes = {
        "classify": ["n", network.output["classify"].shape[-1]],
        "segment": ["n", 1, side, side],
        "features": ["n", 2 * coarse.shape[-1]],
        "gradcam": ["n", network.output["classify"].shape[-1], *coarse.shape[1:3]],
    }
    _write_graph(graph, network, shapes, path)


def export_encoder(network, path):
    """Write a network with one map as its output."""
    graph = _Graph()
    name = _add_layers(graph, network)[network.output.name]
    shape = ["n", network.output.shape[-1], *network.output.shape[1:3]]
    _write_graph(graph, network, {name: shape}, path)


def _add_layers(graph, network):
    """Add all layers; returns the graph's name of each of Keras' tensors."""
    names = {network.inputs[0].name: "image"}
    for layer in network.layers:
        if not isinstance(layer, layers.InputLayer):
            inputs = [names[x.name] for x in keras.tree.flatten(layer.input)]
            names[layer.output.name] = _add_layer(graph, layer, inputs)
    return names


def _write_graph(graph, network, shapes, path):
    """Write a graph with outputs of these `shapes`."""
    side = network.input_shape[1]
    inputs, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ({"image": ["n", 1, side, side]} | shapes).items()
    )
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, network.name, [inputs], outputs, graph.initializers
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(path) as temporary:
        onnx.save(model, temporary)


def export_networks(paths, models):
    """Export the joint networks beside run.json files: {name: record}."""
    records = {}
    for path in paths:
        record, source = json.loads(path.read_text()), path.with_name("model.keras")
        # both tasks have the same network; an ensemble has none of its own
        if record["parameters"]["task"] == "classify" and source.exists():
            name = network_name(record["parameters"])
            network = keras.models.load_model(source, compile=False)
            export_onnx(network, models / f"{name}.onnx")
            records[name] = record
    return records


def _add_layer(graph, layer, inputs):
    """Add a layer and its weights; returns the name of its output."""
    names = [weight.name for weight in layer.weights]
    name, weights = layer.name, dict(zip(names, layer.get_weights(), strict=True))
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
        axes = (2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1)
        kernel = weights.pop("kernel").transpose(axes)
        inputs += [graph.add_weight(f"{name}/kernel", kernel)]
        inputs += [graph.add_weight(f"{name}/{n}", w) for n, w in weights.items()]
        options = {"auto_pad": "SAME_UPPER", "strides": list(layer.strides)}
        options |= {"group": len(kernel)} if is_depthwise else {}
        output = graph.add("Conv", inputs, f"{name}/conv", **options)
        is_sigmoid = layer.activation is keras.activations.sigmoid
        return graph.add("Sigmoid", [output], name) if is_sigmoid else output
    if isinstance(layer, layers.BatchNormalization):
        order = ("gamma", "beta", "moving_mean", "moving_variance")
        inputs += [graph.add_weight(f"{name}/{n}", weights[n]) for n in order]
        return graph.add("BatchNormalization", inputs, name, epsilon=layer.epsilon)
    if isinstance(layer, layers.Dense):
        inputs += [graph.add_weight(f"{name}/{n}", w) for n, w in weights.items()]
        return graph.add("Softmax", [graph.add("Gemm", inputs, f"{name}/logits")], name)
    if isinstance(layer, layers.ReLU):
        if layer.threshold:
            return graph.add("ThresholdedRelu", inputs, name, alpha=layer.threshold)
        if layer.max_value:
            limits = np.float32(0), np.float32(layer.max_value)
            inputs += [graph.add_constant(f"{name}/{x}", x) for x in limits]
            return graph.add("Clip", inputs, name)
        return graph.add("Relu", inputs, name)
    if isinstance(layer, layers.UpSampling2D):
        scales = graph.add_constant(f"{name}/scales", np.float32([1, 1, 2, 2]))
        return graph.add("Resize", [*inputs, "", scales], name, mode="linear")
    if isinstance(layer, layers.Dropout):
        return inputs[0]
    if isinstance(layer, layers.Concatenate):
        return graph.add("Concat", inputs, name, axis=1)
    if isinstance(layer, layers.GlobalMaxPooling2D | layers.GlobalAveragePooling2D):
        kind = type(layer).__name__.removesuffix("Pooling2D") + "Pool"
        return graph.add("Flatten", [graph.add(kind, inputs, f"{name}/pool")], name)
    if isinstance(layer, layers.Add):
        return graph.add("Add", inputs, name)
    raise TypeError(f"{name}: got {type(layer).__name__}, expected one of joint.py")
