"""Hypothesis strategies that draw real graphs: branches, residuals, shared operands, pools.

A graph grows node by node: a value is drawn, then an op from the table `GROWERS`. Steps that do
not fit (a window larger than its map) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir import DType, Edit, Graph, Quant, TensorType, Value
from lmopt.ir import ops as o
from lmopt.ir.op import Op

Draw = Callable[[st.SearchStrategy[Any]], Any]

PADDINGS = st.sampled_from(["same", "valid"])
ACTIVATIONS = st.sampled_from(["none", "relu", "relu6"])
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))
SEEDS = st.integers(0, 2**32 - 1)


class Grower:
    """A graph being drawn: the edit, and the values and types so far."""

    def __init__(self, draw: Draw, initialized: bool) -> None:
        self.draw = draw
        self.initialized = initialized
        self.edit = Edit("drawn")
        self.values: list[Value] = []

    def type(self, value: Value) -> TensorType:
        return self.edit.node(value.node).results[value.index]

    def add(self, op: Op, *inputs: Value, type: TensorType | None = None) -> Value:
        shapes = op.params([self.type(value) for value in inputs])
        name = self.edit.fresh(
            self.draw(st.sampled_from([op.kind, f"block/{op.kind}", "odd name"]))
        )
        given = draw_weights(op.kind, shapes, self.draw(SEEDS))
        if not self.initialized and not self.draw(st.booleans()):
            given = {}
        return self.edit.add(name, op, *inputs, weights=given, type=type)

    def pick(self) -> Value:
        """Draws a value, in half of the cases the newest: graphs grow deep as well as wide."""
        newest = [self.values[-1]] * len(self.values)
        picked: Value = self.draw(st.sampled_from([*newest, *self.values]))
        return picked

    def partner(self, value: Value) -> Value:
        """Draws a value that broadcasts with `value`: possibly itself, or a constant."""
        shape = self.type(value).shape
        fitting = [v for v in self.values if _broadcasts(self.type(v).shape, shape)]
        choice = self.draw(st.sampled_from([*fitting, None]))
        if isinstance(choice, Value):
            return choice
        return self.add(o.Constant((*([1] * (len(shape) - 1)), shape[-1] or 1)))


def draw_weights(
    kind: str, shapes: Mapping[str, tuple[int, ...]], seed: int
) -> dict[str, NDArray[np.generic]]:
    """Returns weights of a sensible size for every parameter of an op."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.generic]] = {}
    for key, shape in shapes.items():
        fan_in = max(1, int(np.prod(shape[:-1])))
        values = rng.normal(size=shape) / np.sqrt(fan_in if key == "kernel" else 1)
        if key == "variance":
            values = np.abs(values) + 0.5
        weights[key] = values.astype(np.float32)
    return weights


def _broadcasts(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    return len(a) == len(b) and all(x == y or 1 in (x, y) for x, y in zip(a, b, strict=True))


def _conv(g: Grower, value: Value) -> Value:
    channels = g.type(value).shape[-1] or 1
    groups = g.draw(st.sampled_from([d for d in (1, 2, channels) if channels % d == 0]))
    stride = g.draw(SIZES)
    op = o.Conv2D(
        filters=groups * g.draw(st.integers(1, 3)),
        kernel=g.draw(SIZES),
        stride=stride,
        dilation=g.draw(SIZES) if stride == (1, 1) else (1, 1),
        padding=g.draw(PADDINGS),
        groups=groups,
        use_bias=g.draw(st.booleans()),
        activation=g.draw(ACTIVATIONS),
    )
    return g.add(op, value)


def _depthwise(g: Grower, value: Value) -> Value:
    stride = g.draw(st.integers(1, 2))
    op = o.DepthwiseConv2D(
        kernel=g.draw(SIZES),
        stride=(stride, stride),
        padding=g.draw(PADDINGS),
        multiplier=g.draw(st.integers(1, 2)),
        use_bias=g.draw(st.booleans()),
        activation=g.draw(ACTIVATIONS),
    )
    return g.add(op, value)


def _dense(g: Grower, value: Value) -> Value:
    op = o.Dense(g.draw(st.integers(1, 4)), g.draw(st.booleans()), g.draw(ACTIVATIONS))
    return g.add(op, value)


def _pool(cls: type[o.MaxPool2D | o.AvgPool2D]) -> Callable[[Grower, Value], Value]:
    return lambda g, value: g.add(cls(g.draw(SIZES), g.draw(SIZES), g.draw(PADDINGS)), value)


def _unary(cls: type[Op]) -> Callable[[Grower, Value], Value]:
    return lambda g, value: g.add(cls(), value)


def _binary(cls: type[o.Add | o.Sub | o.Mul]) -> Callable[[Grower, Value], Value]:
    def grow(g: Grower, value: Value) -> Value:
        operands = [value, g.partner(value)]
        if g.draw(st.booleans()):
            operands.reverse()
        return g.add(cls(g.draw(ACTIVATIONS)), *operands)

    return grow


def _leaky(g: Grower, value: Value) -> Value:
    return g.add(o.LeakyRelu(g.draw(st.floats(0, 1, width=32))), value)


def _norm(g: Grower, value: Value) -> Value:
    return g.add(o.BatchNorm(g.draw(st.sampled_from([1e-3, 1e-5]))), value)


def _concat(g: Grower, value: Value) -> Value:
    shape = g.type(value).shape
    fitting = [
        v
        for v in g.values
        if len(g.type(v).shape) == len(shape) and g.type(v).shape[:-1] == shape[:-1]
    ]
    others = g.draw(st.lists(st.sampled_from(fitting), max_size=2))
    return g.add(o.Concat(g.draw(st.sampled_from([-1, len(shape) - 1]))), value, *others)


def _reshape(g: Grower, value: Value) -> Value:
    dims = [d for d in g.type(value).shape[1:] if d is not None]
    shapes: list[tuple[int, ...]] = [(-1,), tuple(reversed(dims)), (1, 1, -1)]
    return g.add(o.Reshape(g.draw(st.sampled_from(shapes))), value)


def _constant(g: Grower, value: Value) -> Value:
    return g.add(o.Add(), value, g.add(o.Constant((1, g.type(value).shape[-1] or 1))))


def _pad(g: Grower, value: Value) -> Value:
    return g.add(o.Pad(*g.draw(st.tuples(*[st.integers(0, 2)] * 4))), value)


def _conv_transpose(g: Grower, value: Value) -> Value:
    op = o.Conv2DTranspose(
        filters=g.draw(st.integers(1, 3)),
        kernel=g.draw(SIZES),
        stride=g.draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])),
        padding=g.draw(PADDINGS),
        use_bias=g.draw(st.booleans()),
        activation=g.draw(ACTIVATIONS),
    )
    return g.add(op, value)


def _extreme(cls: type[o.Maximum | o.Minimum]) -> Callable[[Grower, Value], Value]:
    return lambda g, value: g.add(cls(), value, g.partner(value))


def _slice(g: Grower, value: Value) -> Value:
    dims = [d or 1 for d in g.type(value).shape[1:]]
    begin = tuple(g.draw(st.sampled_from([0, 0, dim // 2])) for dim in dims)
    size = tuple(g.draw(st.sampled_from([-1, -1, 1])) for _ in dims)
    return g.add(o.Slice(begin, size, tuple(g.draw(st.integers(1, 2)) for _ in dims)), value)


def _transpose(g: Grower, value: Value) -> Value:
    return g.add(o.Transpose((0, *g.draw(st.permutations(range(1, g.type(value).rank))))), value)


def _mirror_pad(g: Grower, value: Value) -> Value:
    mode = g.draw(st.sampled_from(["reflect", "symmetric"]))
    top, bottom, left, right = (g.draw(st.integers(0, 1)) for _ in range(4))
    return g.add(o.MirrorPad(top, bottom, left, right, mode), value)


def _sum(g: Grower, value: Value) -> Value:
    axes = g.draw(st.sets(st.integers(1, g.type(value).rank - 1), min_size=1))
    return g.add(o.Sum(tuple(sorted(axes)), keepdims=True), value)


def _resize(cls: type[o.ResizeBilinear | o.ResizeNearest]) -> Callable[[Grower, Value], Value]:
    rules = st.sampled_from([(False, False), (True, False), (False, True)])
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    return lambda g, value: g.add(cls(g.draw(sizes), *g.draw(rules)), value)


def _decode(g: Grower, value: Value) -> Value:
    method = g.draw(st.sampled_from(["argmax", "softargmax"]))
    return g.add(o.HeatmapDecode(method, g.draw(st.floats(0, 0.5)), 2.0), value)


def _landmarks(g: Grower, value: Value) -> Value:
    """Landmarks of any tensor: a dense layer on its elements."""
    flat = g.add(o.Reshape(), value)
    return g.add(o.Dense(2 * g.draw(st.integers(2, 4))), flat)


def _fit(g: Grower, value: Value) -> Value:
    points = _landmarks(g, value)
    reference = g.add(o.Constant((g.type(points).shape[-1] or 0,)))
    return g.add(o.SimilarityFit(), points, reference)


def _transformed(g: Grower, value: Value) -> Value:
    return g.add(o.TransformLandmarks(), _landmarks(g, value), _fit(g, value))


def _heatmap(g: Grower, value: Value) -> Value:
    return g.add(o.LandmarkHeatmap(g.draw(SIZES)), _landmarks(g, value))


def _block(g: Grower, value: Value) -> Value:
    """The block detectors are made of: kernel, batch norm, activation."""
    use_bias = g.draw(st.booleans())
    filters = g.draw(st.integers(1, 3))
    kernels: list[Op] = [o.Dense(filters, use_bias)]
    if g.type(value).rank == 4:
        multiplier = g.draw(st.integers(1, 2))
        kernels += [
            o.Conv2D(filters, kernel=g.draw(SIZES), use_bias=use_bias),
            o.DepthwiseConv2D(kernel=g.draw(SIZES), multiplier=multiplier, use_bias=use_bias),
        ]
    block = [g.draw(st.sampled_from(kernels)), o.BatchNorm()]
    block += g.draw(st.sampled_from([[], [o.Relu()], [o.Relu6()], [o.BatchNorm(1e-5)]]))
    for op in block:
        value = g.add(op, value)
        g.values.append(value)
    return value


def _grid(g: Grower, value: Value) -> Value:
    """Through an integer grid and back, with an op that keeps the grid between."""
    dtype = g.draw(st.sampled_from([DType.I8, DType.U8, DType.I16]))
    zero = 0 if dtype is DType.I16 else g.draw(st.integers(*dtype.bounds))
    quant = Quant.per_tensor(g.draw(st.floats(1e-3, 1.0)), zero)
    stored = g.add(o.Quantize(), value, type=TensorType(dtype, g.type(value).shape, quant))
    if len(g.type(value).shape) == 4 and g.draw(st.booleans()):
        stored = g.add(o.MaxPool2D((1, 1), (1, 1)), stored)
    return g.add(o.Dequantize(), stored)


GROWERS: Mapping[str, Callable[[Grower, Value], Value]] = {
    "conv2d": _conv,
    "depthwise_conv2d": _depthwise,
    "dense": _dense,
    "batch_norm": _norm,
    "relu": _unary(o.Relu),
    "relu6": _unary(o.Relu6),
    "leaky_relu": _leaky,
    "prelu": _unary(o.PRelu),
    "sigmoid": _unary(o.Sigmoid),
    "tanh": _unary(o.Tanh),
    "hard_swish": _unary(o.HardSwish),
    "add": _binary(o.Add),
    "sub": _binary(o.Sub),
    "mul": _binary(o.Mul),
    "max_pool2d": _pool(o.MaxPool2D),
    "avg_pool2d": _pool(o.AvgPool2D),
    "mean": lambda g, value: g.add(o.Mean(g.draw(st.booleans())), value),
    "concat": _concat,
    "reshape": _reshape,
    "constant": _constant,
    "pad": _pad,
    "resize_bilinear": _resize(o.ResizeBilinear),
    "resize_nearest": _resize(o.ResizeNearest),
    "heatmap_decode": _decode,
    "similarity_fit": _fit,
    "invert_transform": lambda g, value: g.add(o.InvertTransform(), _fit(g, value)),
    "transform_landmarks": _transformed,
    "warp": lambda g, value: g.add(o.Warp(), value, _fit(g, value)),
    "landmark_heatmap": _heatmap,
    "block": _block,
    "conv2d_transpose": _conv_transpose,
    "softmax": _unary(o.Softmax),
    "exp": lambda g, value: g.add(o.Exp(), g.add(o.Tanh(), value)),
    "square": lambda g, value: g.add(o.Square(), g.add(o.Tanh(), value)),
    "abs": _unary(o.Abs),
    "sqrt": lambda g, value: g.add(o.Sqrt(), g.add(o.Sigmoid(), value)),
    "rsqrt": lambda g, value: g.add(o.Rsqrt(), g.add(o.Exp(), g.add(o.Tanh(), value))),
    "div": lambda g, value: g.add(
        o.Div(g.draw(ACTIVATIONS)), value, g.add(o.Exp(), g.add(o.Tanh(), value))
    ),
    "maximum": _extreme(o.Maximum),
    "minimum": _extreme(o.Minimum),
    "slice": _slice,
    "transpose": _transpose,
    "mirror_pad": _mirror_pad,
    "space_to_depth": lambda g, value: g.add(o.SpaceToDepth(2), value),
    "depth_to_space": lambda g, value: g.add(
        o.DepthToSpace(2), g.add(o.Conv2D(4 * g.draw(st.integers(1, 2)), (1, 1)), value)
    ),
    "sum": _sum,
    "quantize": _grid,
    "dequantize": _grid,
}
GRID_KINDS = frozenset({"quantize", "dequantize"})
LANDMARK_KINDS = frozenset(
    {
        "heatmap_decode",
        "similarity_fit",
        "invert_transform",
        "transform_landmarks",
        "warp",
        "landmark_heatmap",
    }
)
# a transform fitted to points that nearly coincide makes a small difference a large one
FLOAT_KINDS = frozenset(GROWERS) - GRID_KINDS - LANDMARK_KINDS
IMAGE_KINDS = frozenset(
    {
        "conv2d",
        "conv2d_transpose",
        "depthwise_conv2d",
        "max_pool2d",
        "avg_pool2d",
        "mean",
        "pad",
        "mirror_pad",
        "space_to_depth",
        "depth_to_space",
        "resize_bilinear",
        "resize_nearest",
        "heatmap_decode",
        "warp",
    }
)


@st.composite
def graphs(
    draw: Draw,
    max_nodes: int = 8,
    kinds: Collection[str] = FLOAT_KINDS,
    initialized: bool = True,
) -> Graph:
    """Draws a verified graph.

    Args:
        draw: Given by hypothesis.
        max_nodes: Growing steps; a step may add two or three nodes.
        kinds: Op kinds to draw from, or `block`; what is listed twice comes twice as often.
        initialized: Whether every weight has values; otherwise some are unset.
    """
    g = Grower(draw, initialized)
    for k in range(draw(st.integers(1, 2))):
        shape = (None, draw(st.integers(3, 8)), draw(st.integers(1, 8)), draw(st.integers(1, 4)))
        g.values.append(g.edit.input(f"input{k}", shape))
    for _ in range(draw(st.integers(1, max_nodes))):
        value = g.pick()
        flat = g.type(value).rank != 4
        fitting = [kind for kind in sorted(kinds) if not (flat and kind in IMAGE_KINDS)]
        if not fitting:
            continue
        kind = draw(st.sampled_from(fitting))
        try:
            g.values.append(GROWERS[kind](g, value))
        except GraphError:
            continue
    for k in range(draw(st.integers(1, 2))):
        g.edit.output(f"out{k}", g.pick())
    return g.edit.done()
