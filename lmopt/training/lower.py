"""Graph to tf_keras: one layer per node, named after it and holding its weights as the IR does."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Node
from lmopt.training.backend import keras, tf
from lmopt.training.lower_landmark import LANDMARK_LOWERINGS
from lmopt.training.weights import require_trainable, with_arrays

Tensor = Any
Lowering = Callable[[Node, Sequence[Tensor], Mapping[str, Any], bool], Tensor]

BATCH_NORM_MOMENTUM = 0.99
FIXED_WEIGHTS = frozenset({"mean", "variance", "value"})
"""Parameters that no gradient changes: statistics and constants."""

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
}


def _activate(node: Node, x: Tensor, weights: Mapping[str, Any]) -> Tensor:
    op: Any = node.op
    if "bias" in weights:
        x = tf.nn.bias_add(x, weights["bias"])
    return _ACTIVATIONS[op.activation](x)


def _conv2d(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    kernel = _spread(w["kernel"], op.dilation)
    if op.groups == 1:
        return _activate(node, tf.nn.conv2d(operands[0], kernel, op.stride, op.padding.upper()), w)
    # TensorFlow has no gradient of a grouped convolution on CPUs.
    parts = [
        tf.nn.conv2d(x, k, op.stride, op.padding.upper())
        for x, k in zip(
            tf.split(operands[0], op.groups, axis=-1),
            tf.split(kernel, op.groups, axis=-1),
            strict=True,
        )
    ]
    return _activate(node, tf.concat(parts, -1), w)


def _conv2d_transpose(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    op: Any = node.op
    shape = (tf.shape(operands[0])[0], *node.results[0].shape[1:])
    kernel = tf.transpose(w["kernel"], (0, 1, 3, 2))
    y = tf.nn.conv2d_transpose(operands[0], kernel, shape, op.stride, op.padding.upper())
    return _activate(node, y, w)


def _depthwise(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    x, kernel = operands[0], _spread(w["kernel"], op.dilation)
    vertical, horizontal = op.stride
    if vertical == horizontal:
        strides = (1, vertical, horizontal, 1)
        return _activate(node, tf.nn.depthwise_conv2d(x, kernel, strides, op.padding.upper()), w)
    # TensorFlow has no unequal strides here: every window is computed, then some are picked.
    if op.padding == "same":
        margins = [_same_margin(x, kernel, op.stride, axis) for axis in (0, 1)]
        x = tf.pad(x, [[0, 0], *margins, [0, 0]])
    y = tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID")
    return _activate(node, y[:, ::vertical, ::horizontal], w)


def _spread(kernel: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Returns a kernel with its dilation as zeros: TensorFlow has no dilated gradient on CPUs."""
    if dilation == (1, 1):
        return kernel
    (height, width, *channels), (down, across) = kernel.shape, dilation
    cells = tf.reshape(kernel, (height, 1, width, 1, *channels))
    spaced = tf.pad(cells, [[0, 0], [0, down - 1], [0, 0], [0, across - 1], [0, 0], [0, 0]])
    full = tf.reshape(spaced, (height * down, width * across, *channels))
    return full[: (height - 1) * down + 1, : (width - 1) * across + 1]


def _same_margin(x: Tensor, kernel: Tensor, strides: tuple[int, int], axis: int) -> list[int]:
    """Returns the zeros before and after that TensorFlow's SAME padding adds."""
    size, reach, stride = int(x.shape[axis + 1]), int(kernel.shape[axis]), strides[axis]
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return [total // 2, total - total // 2]


def _dense(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    return _activate(node, tf.tensordot(operands[0], w["kernel"], 1), w)


def _batch_norm(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], training: bool
) -> Tensor:
    op: Any = node.op
    x = operands[0]
    mean, variance = w["mean"], w["variance"]
    if not training:
        scale = w["gamma"] * tf.math.rsqrt(variance + op.epsilon)
        return x * scale + (w["beta"] - mean * scale)
    image = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    y, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        image, w["gamma"], w["beta"], epsilon=max(op.epsilon, 1.001e-5), is_training=True
    )
    mean.assign_sub((mean - batch_mean) * (1.0 - BATCH_NORM_MOMENTUM))
    variance.assign_sub((variance - batch_variance) * (1.0 - BATCH_NORM_MOMENTUM))
    return y if x.shape.rank == 4 else tf.reshape(y, tf.shape(x))


def _unary(compute: Callable[[Tensor], Tensor]) -> Lowering:
    return lambda node, operands, w, training: compute(operands[0])


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Lowering:
    return lambda node, operands, w, training: _activate(node, compute(*operands), w)


def _pool(compute: Callable[..., Tensor]) -> Lowering:
    def lower(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
        op: Any = node.op
        return compute(operands[0], op.size, op.stride, op.padding.upper())

    return lower


def _leaky_relu(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.where(operands[0] > 0, operands[0], op.alpha * operands[0])


def _prelu(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    return tf.where(operands[0] > 0, operands[0], w["alpha"] * operands[0])


def _mean(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.reduce_mean(operands[0], axis=(1, 2), keepdims=op.keepdims)


def _concat(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.concat(list(operands), op.axis)


def _reshape(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    return tf.reshape(operands[0], (-1, *node.results[0].shape[1:]))


def _pad(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.pad(operands[0], [[0, 0], [op.top, op.bottom], [op.left, op.right], [0, 0]])


def _slice(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    cuts = [
        slice(begin, None if size == -1 else begin + (size - 1) * stride + 1, stride)
        for begin, size, stride in zip(op.begin, op.size, op.stride, strict=True)
    ]
    return operands[0][(slice(None), *cuts)]


def _transpose(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.transpose(operands[0], op.order)


def _mirror_pad(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    widths = [[0, 0], [op.top, op.bottom], [op.left, op.right], [0, 0]]
    return tf.pad(operands[0], widths, mode=op.mode.upper())


def _blocks(compute: Callable[[Tensor, int], Tensor]) -> Lowering:
    def lower(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
        op: Any = node.op
        return compute(operands[0], op.block)

    return lower


def _resize(compute: Callable[..., Tensor]) -> Lowering:
    def lower(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
        op: Any = node.op
        return compute(
            images=operands[0],
            size=list(op.size),
            align_corners=op.align_corners,
            half_pixel_centers=op.half_pixel_centers,
        )

    return lower


def _sum(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    op: Any = node.op
    return tf.reduce_sum(operands[0], axis=op.axes, keepdims=op.keepdims)


def _refuse(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    raise PassError(
        f"{node.op.kind} cannot be trained",
        where=f"%{node.name}",
        hint="train the float graph: put training passes before quantize-* and to-float16",
    )


LOWERINGS: Mapping[str, Lowering] = {
    "input": _unary(tf.identity),
    "constant": lambda node, operands, w, training: tf.convert_to_tensor(w["value"]),
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise,
    "dense": _dense,
    "batch_norm": _batch_norm,
    "relu": _unary(tf.nn.relu),
    "relu6": _unary(tf.nn.relu6),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "sigmoid": _unary(tf.sigmoid),
    "tanh": _unary(tf.tanh),
    "hard_swish": _unary(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "add": _binary(tf.add),
    "sub": _binary(tf.subtract),
    "mul": _binary(tf.multiply),
    "max_pool2d": _pool(tf.nn.max_pool2d),
    "avg_pool2d": _pool(tf.nn.avg_pool2d),
    "mean": _mean,
    "concat": _concat,
    "reshape": _reshape,
    "pad": _pad,
    "resize_bilinear": _resize(tf.raw_ops.ResizeBilinear),
    "resize_nearest": _resize(tf.raw_ops.ResizeNearestNeighbor),
    **LANDMARK_LOWERINGS,
    "quantize": _refuse,
    "dequantize": _refuse,
    "conv2d_transpose": _conv2d_transpose,
    "softmax": _unary(tf.nn.softmax),
    "exp": _unary(tf.exp),
    "sqrt": _unary(tf.sqrt),
    "rsqrt": _unary(tf.math.rsqrt),
    "square": _unary(tf.square),
    "abs": _unary(tf.abs),
    "div": _binary(tf.divide),
    "maximum": lambda node, operands, w, training: tf.maximum(*operands),
    "minimum": lambda node, operands, w, training: tf.minimum(*operands),
    "slice": _slice,
    "transpose": _transpose,
    "mirror_pad": _mirror_pad,
    "space_to_depth": _blocks(tf.nn.space_to_depth),
    "depth_to_space": _blocks(tf.nn.depth_to_space),
    "sum": _sum,
}
"""What TensorFlow computes for each kind of op."""


class NodeLayer(keras.layers.Layer):  # type: ignore[misc]
    """The Keras layer of a node: computes its op with the node's weights, laid out as in the IR.

    Attributes:
        node: The node.
        parameters: Its weights, by parameter name.
        left: 1 where a kernel's entry is trained, 0 where pruning set it to 0 and it stays so: of
            the kernels with such entries, by parameter name.
    """

    def __init__(self, node: Node, name: str, *, keeps_zeros: bool = False) -> None:
        super().__init__(name=name)
        self.node = node
        self.parameters: dict[str, Any] = {}
        kernels = {"kernel": node.weights["kernel"].real() != 0} if "kernel" in node.weights else {}
        self.left = {
            key: left.astype(np.float32)
            for key, left in kernels.items()
            if keeps_zeros and left.any() and not left.all()
        }

    def build(self, input_shape: object) -> None:
        """Creates the node's weights with its values."""
        for key, weight in self.node.weights.items():
            self.parameters[key] = self.add_weight(
                name=key,
                shape=weight.type.shape,
                initializer=keras.initializers.Constant(weight.real()),
                trainable=key not in FIXED_WEIGHTS,
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        """Returns the node's result."""
        operands = inputs if isinstance(inputs, list | tuple) else [inputs]
        weights = self.used(self.parameters)
        return self.compute(operands, weights, bool(training and self.trainable))

    def used(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the weights as the op computes with them."""
        return {**weights, **{key: weights[key] * mask for key, mask in self.left.items()}}

    def compute(
        self, operands: Sequence[Tensor], weights: Mapping[str, Any], training: bool
    ) -> Tensor:
        """Returns the op's result for operands and weights."""
        return LOWERINGS[self.node.op.kind](self.node, operands, weights, training)


MakeLayer = Callable[[Node, str], NodeLayer]


@dataclass(frozen=True)
class Lowered:
    """A graph as a tf_keras functional model.

    Attributes:
        graph: What was lowered.
        model: Takes a list of inputs in the graph's order, gives outputs by name.
        layers: The layer of every node, by node name.
    """

    graph: Graph
    model: Any
    layers: Mapping[str, NodeLayer]

    def run(self, inputs: Mapping[str, Tensor], *, training: bool = False) -> dict[str, Tensor]:
        """Returns the outputs by name."""
        feeds = [inputs[node.name] for node in self.graph.inputs]
        return dict(self.model(feeds, training=training))

    def leading_to(self, nodes: Sequence[str]) -> Any:
        """Returns the part of the model that gives the values of `nodes`, by name."""
        return keras.Model(self.model.inputs, {name: self.layers[name].output for name in nodes})

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Returns the present weights by `node/parameter`, as the ops compute with them."""
        return {
            f"{name}/{key}": np.asarray(weight, np.float32)
            for name, layer in self.layers.items()
            for key, weight in layer.used(layer.parameters).items()
        }


def lower(graph: Graph, make_layer: MakeLayer = NodeLayer) -> Lowered:
    """Returns a float graph as a tf_keras functional model, its layers named after the nodes.

    Args:
        graph: Float (float16 weights are trained as float32) and initialised.
        make_layer: The layer for a node; quantization-aware training gives its own.

    Raises:
        PassError: The graph holds integers, or weights without values.
    """
    require_trainable(graph)
    feeds = {
        node.name: keras.Input(node.results[0].shape[1:], name=f"{_layer_name(node.name)}.feed")
        for node in graph.inputs
    }
    layers: dict[str, NodeLayer] = {}
    tensors: dict[str, Tensor] = {}
    for position, node in enumerate(graph.nodes):
        name = _layer_name(node.name)
        layer = make_layer(node, name if name == node.name else f"{name}.{position}")
        if node.name in feeds:
            operands = [feeds[node.name]]
        else:
            # Keras wants an operand even where the op has none (a constant).
            operands = [tensors[value.node] for value in node.inputs] or [*feeds.values()][:1]
        tensors[node.name] = layer(operands if len(operands) > 1 else operands[0])
        layers[node.name] = layer
    outputs = {name: tensors[value.node] for name, value in graph.outputs}
    model = keras.Model([*feeds.values()], outputs)
    return Lowered(graph, model, layers)


def freeze(lowered: Lowered, patterns: Sequence[str]) -> None:
    """Keeps the weights and statistics of nodes as they are, `*` standing for any characters.

    Raises:
        PassError: A pattern fits no node.
    """
    for pattern in patterns:
        names = fnmatch.filter(lowered.layers, pattern)
        if not names:
            raise PassError(
                f"no node fits '{pattern}', which is to stay frozen",
                where=lowered.graph.name,
                hint=f"nodes are called {', '.join([*lowered.layers][:6])}, ...",
            )
        for name in names:
            lowered.layers[name].trainable = False


def read_back(graph: Graph, lowered: Lowered) -> Graph:
    """Returns `graph` with the model's present weights."""
    return with_arrays(graph, lowered.arrays())


def _layer_name(name: str) -> str:
    """Returns a node name in the characters that TensorFlow's scopes take."""
    clean = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
    return clean if re.match(r"[A-Za-z0-9.]", clean) else f"n{clean}"
