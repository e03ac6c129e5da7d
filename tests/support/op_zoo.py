"""One graph with an output per op case, so that one file shows every op in every arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmopt.ir import Edit, Graph, Value, ValueRange, ops
from lmopt.ir.interp import run
from lmopt.ir.types import DType, Weight
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import quantize_graph
from lmopt.testing.quantized import STORED

Case = Callable[[Edit, str, Value], Value]


def initialized(graph: Graph, seed: int = 0) -> Graph:
    """The graph with drawn values in every weight that has none."""
    rng = np.random.default_rng(seed)
    edit = graph.edit()
    for node in graph.nodes:
        for key, weight in node.weights.items():
            if weight.array is None:
                fan = int(np.prod(weight.type.shape[:-1])) or 1
                drawn = rng.normal(size=weight.type.shape) / np.sqrt(fan)
                if key == "variance":
                    drawn = np.abs(drawn) + 0.5
                edit.set_weights(node.name, **{key: drawn.astype(np.float32)})
    return edit.done()


def halved(graph: Graph) -> Graph:
    """The graph with float16 weights."""
    edit = graph.edit()
    for node in graph.nodes:
        for key, weight in node.weights.items():
            edit.set_weights(node.name, **{key: weight.real().astype(np.float16)})
    return edit.done()


def on_grids(graph: Graph, storage: DType, *, seed: int = 1, edge: bool = False) -> Graph:
    """The graph in full-integer form, ranges taken from one drawn batch.

    `edge` keeps inputs and outputs in float32, with conversions behind and before them.
    """
    values = run(
        graph, inputs(graph, graph.inputs[0].results[0].shape[0] or 8, seed), all_values=True
    )
    ranges = {
        node.value: ValueRange(float(values[node.name].min()), float(values[node.name].max()))
        for node in graph.nodes
    }
    scheme = QuantScheme(storage, per_channel=storage.kernel is DType.I8)
    kept = "float32" if edge else dict(STORED)[storage]
    return quantize_graph(graph, ranges, scheme, input_type=kept, output_type=kept)


def inputs(graph: Graph, items: int, seed: int) -> dict[str, np.ndarray]:
    """A drawn batch for every input, in its own type."""
    rng = np.random.default_rng(seed)
    batch = {}
    for node in graph.inputs:
        type = node.results[0]
        real = rng.normal(size=(items, *type.shape[1:])).astype(np.float32)
        batch[node.name] = real if type.quant is None else type.quant.quantize(real, type.dtype)
    return batch


def _op(op: ops.Op) -> Case:
    return lambda edit, name, x: edit.add(name, op, x)


def _with_other(op: ops.Op) -> Case:
    return lambda edit, name, x: edit.add(name, op, x, Value("other"))


def _with_constant(op: ops.Op, shape: tuple[int, ...], low: float = -1.0) -> Case:
    def case(edit: Edit, name: str, x: Value) -> Value:
        values = np.linspace(low, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        constant = edit.add(f"{name}_constant", ops.Constant(shape), weights={"value": values})
        return edit.add(name, op, x, constant)

    return case


def _after_flatten(op: ops.Op) -> Case:
    return lambda edit, name, x: edit.add(name, op, edit.add(f"{name}_flat", ops.Reshape((-1,)), x))


def _positive(edit: Edit, name: str, x: Value) -> Value:
    one = edit.add(f"{name}_one", ops.Constant((1,)), weights={"value": np.ones(1, np.float32)})
    return edit.add(f"{name}_positive", ops.Add(), edit.add(f"{name}_sq", ops.Square(), x), one)


def _of_squares(op: ops.Op) -> Case:
    return lambda edit, name, x: edit.add(name, op, _positive(edit, name, x))


CASES: dict[str, Case] = {
    "conv": _op(ops.Conv2D(5)),
    "conv_stride": _op(ops.Conv2D(7, stride=(2, 2), activation="relu")),
    "conv_valid": _op(ops.Conv2D(4, (3, 2), stride=(2, 1), padding="valid", activation="relu6")),
    "conv_dilated": _op(ops.Conv2D(4, dilation=(2, 3), use_bias=False)),
    "conv_grouped": _op(ops.Conv2D(9, groups=3)),
    "depthwise": _op(ops.DepthwiseConv2D(activation="relu6")),
    "depthwise_stride": _op(ops.DepthwiseConv2D((5, 3), stride=(2, 2), use_bias=False)),
    "depthwise_dilated": _op(ops.DepthwiseConv2D(dilation=(2, 2), padding="valid")),
    "depthwise_multiplied": _op(ops.DepthwiseConv2D(multiplier=3)),
    "dense": _after_flatten(ops.Dense(8)),
    "dense_relu": _after_flatten(ops.Dense(3, use_bias=False, activation="relu")),
    "dense_image": _op(ops.Dense(5)),
    "relu": _op(ops.Relu()),
    "relu6": _op(ops.Relu6()),
    "leaky_relu": _op(ops.LeakyRelu(0.3)),
    "prelu": _op(ops.PRelu()),
    "prelu_flat": _after_flatten(ops.PRelu()),
    "sigmoid": _op(ops.Sigmoid()),
    "tanh": _op(ops.Tanh()),
    "hard_swish": _op(ops.HardSwish()),
    "add": _with_other(ops.Add(activation="relu")),
    "add_constant": _with_constant(ops.Add(), (6,)),
    "sub": _with_other(ops.Sub()),
    "sub_constant": _with_constant(ops.Sub(activation="relu6"), (1, 1, 1, 6)),
    "mul": _with_other(ops.Mul()),
    "mul_constant": _with_constant(ops.Mul(), (1,)),
    "add_self": lambda edit, name, x: edit.add(name, ops.Add(), x, x),
    "max_pool": _op(ops.MaxPool2D((3, 2), (2, 2))),
    "max_pool_same": _op(ops.MaxPool2D(padding="same")),
    "avg_pool": _op(ops.AvgPool2D()),
    "avg_pool_same": _op(ops.AvgPool2D((3, 3), (2, 2), "same")),
    "mean": _op(ops.Mean()),
    "mean_keepdims": _op(ops.Mean(keepdims=True)),
    "concat": _with_other(ops.Concat()),
    "concat_rows": _with_other(ops.Concat(1)),
    "reshape": _op(ops.Reshape((-1, 3))),
    "pad": _op(ops.Pad(1, 0, 2, 3)),
    "conv_transpose": _op(ops.Conv2DTranspose(5)),
    "conv_transpose_valid": _op(
        ops.Conv2DTranspose(4, (2, 3), (3, 1), "valid", activation="relu6")
    ),
    "conv_transpose_bare": _op(ops.Conv2DTranspose(3, (4, 4), use_bias=False)),
    "softmax": _op(ops.Softmax()),
    "softmax_flat": _after_flatten(ops.Softmax()),
    "exp": _op(ops.Exp()),
    "abs": _op(ops.Abs()),
    "square": _op(ops.Square()),
    "sqrt": _of_squares(ops.Sqrt()),
    "rsqrt": _of_squares(ops.Rsqrt()),
    "div_constant": _with_constant(ops.Div(activation="relu"), (6,), low=0.5),
    "div_dense": lambda edit, name, x: edit.add(
        f"{name}_after", ops.Conv2D(2), edit.add(name, ops.Div(), x, _positive(edit, name, x))
    ),
    "maximum": _with_other(ops.Maximum()),
    "maximum_constant": _with_constant(ops.Maximum(), (6,)),
    "minimum": _with_other(ops.Minimum()),
    "minimum_constant": _with_constant(ops.Minimum(), (1,)),
    "slice": _op(ops.Slice((1, 0, 2), (6, -1, 3), (1, 2, 1))),
    "transpose": _op(ops.Transpose((0, 2, 1, 3))),
    "shuffle": lambda edit, name, x: edit.add(
        name,
        ops.Reshape((9, 10, 6)),
        edit.add(
            f"{name}_swapped",
            ops.Transpose((0, 1, 2, 4, 3)),
            edit.add(f"{name}_split", ops.Reshape((9, 10, 2, 3)), x),
        ),
    ),
    "mirror_pad": _op(ops.MirrorPad(1, 2, 0, 3)),
    "mirror_pad_symmetric": _op(ops.MirrorPad(1, 1, 1, 1, "symmetric")),
    "space_to_depth": lambda edit, name, x: edit.add(
        name, ops.SpaceToDepth(2), edit.add(f"{name}_even", ops.Pad(bottom=1), x)
    ),
    "depth_to_space": lambda edit, name, x: edit.add(
        name, ops.DepthToSpace(2), edit.add(f"{name}_deep", ops.Conv2D(8, (1, 1)), x)
    ),
    "sum": _op(ops.Sum()),
    "sum_channels": _op(ops.Sum((3,), keepdims=True)),
    "resize_bilinear": _op(ops.ResizeBilinear((18, 15))),
    "resize_bilinear_corners": _op(ops.ResizeBilinear((5, 7), True, False)),
    "resize_bilinear_plain": _op(ops.ResizeBilinear((12, 6), False, False)),
    "resize_nearest": _op(ops.ResizeNearest((18, 20))),
    "resize_nearest_corners": _op(ops.ResizeNearest((5, 12), True, False)),
    "resize_nearest_plain": _op(ops.ResizeNearest((4, 13), False, False)),
}


def _points(edit: Edit, name: str, x: Value) -> Value:
    """The operand's numbers as 270 landmarks."""
    return edit.add(f"{name}_points", ops.Reshape(), x)


def _fitted(edit: Edit, name: str, x: Value) -> Value:
    """A transform fitted to other landmarks, not far from the operand's."""
    points = _points(edit, name, x)
    near = edit.add(f"{name}_near", ops.Add(), points, _points(edit, f"{name}_2", Value("other")))
    return edit.add(f"{name}_fit", ops.SimilarityFit(), points, near)


def _fitted_to_constant(edit: Edit, name: str, x: Value) -> Value:
    corners = np.random.default_rng(0).uniform(size=540).astype(np.float32)
    reference = edit.add(f"{name}_shape", ops.Constant((540,)), weights={"value": corners})
    return edit.add(name, ops.SimilarityFit(), _points(edit, name, x), reference)


FLOAT_ONLY: dict[str, Case] = {"batch_norm": _op(ops.BatchNorm(epsilon=1e-2))}
COMPOSED: dict[str, Case] = {
    "decode_argmax": _op(ops.HeatmapDecode()),
    "decode_softargmax": _op(ops.HeatmapDecode("softargmax", beta=2.0)),
    "similarity_fit": _fitted,
    "similarity_fit_constant": _fitted_to_constant,
    "invert_transform": lambda edit, name, x: edit.add(
        name, ops.InvertTransform(), _fitted(edit, name, x)
    ),
    "transform_landmarks": lambda edit, name, x: edit.add(
        name, ops.TransformLandmarks(), _points(edit, f"{name}_1", x), _fitted(edit, name, x)
    ),
    "warp": lambda edit, name, x: edit.add(name, ops.Warp(), x, _fitted(edit, name, x)),
    "landmark_heatmap": lambda edit, name, x: edit.add(
        name, ops.LandmarkHeatmap((11, 8)), _points(edit, name, x)
    ),
}
"""Float ops that become several operators."""


def zoo(*, integer: bool, composed: bool = False) -> Graph:
    """A float graph with one output per case; without what has no integer form, if so wished."""
    edit = Edit("zoo")
    x = edit.input("image", (None, 9, 10, 6))
    edit.input("other", (None, 9, 10, 6))
    cases = CASES if integer else {**CASES, **FLOAT_ONLY}
    for name, case in {**cases, **(COMPOSED if composed else {})}.items():
        edit.output(name, case(edit, f"{name}_node", x))
    return initialized(edit.done())


def detector(seed: int = 0) -> Graph:
    """A small detector: a residual block, a branch by average pooling, a dense head."""
    edit = Edit("small")
    x = edit.input("image", (None, 16, 16, 3))
    x = edit.add("stem", ops.Conv2D(8, stride=(2, 2), activation="relu"), x)
    y = edit.add("expand", ops.Conv2D(16, (1, 1), activation="relu6"), x)
    y = edit.add("depthwise", ops.DepthwiseConv2D(activation="relu6"), y)
    y = edit.add("project", ops.Conv2D(8, (1, 1)), y)
    x = edit.add("residual", ops.Add(), x, y)
    near = edit.add("near", ops.Mean(), x)
    pooled = edit.add("pooled", ops.MaxPool2D(), x)
    far = edit.add("far", ops.Reshape((-1,)), pooled)
    joined = edit.add("joined", ops.Concat(), near, far)
    edit.output("landmarks", edit.add("landmarks", ops.Dense(10), joined))
    return initialized(edit.done(), seed)


def shared(weight: Weight, nodes: int) -> Graph:
    """A graph in which several nodes carry the same weight."""
    edit = Edit("shared")
    x = edit.input("image", (None, 4))
    for k in range(nodes):
        x = edit.add(f"layer_{k}", ops.Dense(4, use_bias=False), x, weights={"kernel": weight})
    edit.output("landmarks", x)
    return edit.done()
