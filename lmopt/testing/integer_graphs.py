"""Random quantized graphs: one op each, or short chains, with inputs to run them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmopt.ir import DType, Edit, Loc, Node, Quant, TensorType, Value, Weight
from lmopt.ir import ops as o
from lmopt.ir.interp.integer import EIGHT_BITS_ONLY
from lmopt.ir.op import Op
from lmopt.target.limits import FIXED_GRIDS
from lmopt.testing.case import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]
INTEGER_STORAGE = (DType.I8, DType.U8, DType.I16)
ACTIVATIONS = st.sampled_from(["none", "relu", "relu6"])
PADDINGS = st.sampled_from(["same", "valid"])


@dataclass
class Builder:
    """A case under construction: hypothesis draws the structure, the seed gives the numbers."""

    draw: Draw
    storage: DType
    rng: np.random.Generator
    extreme: bool = False
    edit: Edit = field(default_factory=lambda: Edit("case"))
    inputs: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def finer(self) -> int:
        """Returns how many steps of the storage type go into one of eight bits."""
        return 256 if self.storage is DType.I16 else 1

    def grid(self, scale: float | None = None, storage: DType | None = None) -> Quant:
        """Returns a grid, of 8 bits with a zero point anywhere, its ends included now and then."""
        storage = storage or self.storage
        low, high = storage.bounds
        if scale is None:
            scale = math.exp(self.rng.uniform(math.log(1e-3), math.log(0.5)))
        if storage is DType.I16:
            return Quant.per_tensor(scale, 0)
        zero = int(np.clip(self.rng.integers(low - 40, high + 41), low, high))
        return Quant.per_tensor(scale, zero)

    def stored(self, shape: tuple[int, ...], storage: DType | None = None) -> NDArray[np.generic]:
        """Returns stored integers over the whole range of the type."""
        low, high = (storage or self.storage).bounds
        dtype = (storage or self.storage).numpy
        return self.rng.integers(low, high + 1, size=shape).astype(dtype)

    def input(self, dims: tuple[int, ...], grid: Quant | None = None) -> Value:
        """Adds an input of the storage type with one or two items to run on."""
        name = self.edit.fresh("x")
        type = TensorType(self.storage, (None, *dims), grid or self.grid())
        self.inputs[name] = self.stored((2, *dims))
        return self.edit.put(Node(name, o.Input(), (), (type,), loc=Loc(name)))

    def type(self, value: Value) -> TensorType:
        return self.edit.node(value.node).results[value.index]

    def scale(self, value: Value) -> float:
        quant = self.type(value).quant
        assert quant is not None
        return quant.scale[0]

    def dims(self, value: Value) -> tuple[int, ...]:
        return tuple(d for d in self.type(value).shape[1:] if d is not None)

    def put(self, op: Op, *operands: Value, grid: Quant | None = None, **weights: Weight) -> Value:
        """Adds a node whose result lies on `grid`, or on the first operand's."""
        types = [self.type(value) for value in operands]
        quant = grid or types[0].quant
        result = TensorType(self.storage, op.infer(types)[0].shape, quant)
        name = self.edit.fresh(op.kind)
        return self.edit.add(name, op, *operands, weights=weights, type=result)

    def near(self, scale: float) -> float:
        """Returns a scale within a factor of 3 of `scale`, of 90 now and then in extreme cases."""
        reach = 4.5 if self.extreme and self.rng.random() < 0.2 else 1.1
        return scale * math.exp(self.rng.uniform(-reach, reach))

    def kernel(
        self, shape: tuple[int, ...], operand: Value, axis: int, channels: int, use_bias: bool
    ) -> tuple[dict[str, Weight], float]:
        """Returns a kernel with its bias, and the scale of a typical sum."""
        storage = self.storage.kernel
        per_channel = storage is DType.I8 and shape[axis] == channels and bool(self.draw(BOOL))
        count = channels if per_channel else 1
        scales = [math.exp(self.rng.uniform(math.log(2e-3), math.log(0.05))) for _ in range(count)]
        if storage is DType.I8:
            array: NDArray[Any] = self.rng.integers(-127, 128, size=shape).astype(np.int8)
            zero = 0
        else:
            array = self.stored(shape)
            zero = int(self.rng.integers(0, 256))
        quant = Quant(tuple(scales), (zero,) * count, axis if per_channel else None)
        weights = {"kernel": Weight.of(array, quant)}
        if use_bias:
            most = 20_000 * self.finer
            bias = self.rng.integers(-most, most + 1, size=channels).astype(
                self._bias_type(axis).numpy
            )
            steps = tuple(self.scale(operand) * scale for scale in quant.scale)
            bias_quant = Quant(steps, (0,) * count, 0 if per_channel else None)
            weights["bias"] = Weight.of(bias, bias_quant)
        # sums grow with the steps of the operand, and so do those the result has room for
        terms = math.prod(shape[:-1]) if axis == len(shape) - 1 else math.prod(shape[:2])
        spread = 74 * 74 * math.sqrt(terms) * self.scale(operand) * float(np.mean(quant.scale))
        return weights, self.near(spread / 50)

    def _bias_type(self, axis: int) -> DType:
        depthwise = axis == 2
        wide = self.storage is DType.I16 and (depthwise or bool(self.draw(BOOL)))
        return DType.I64 if wide else DType.I32


BOOL = st.booleans()
SIDE = st.integers(1, 7)
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
STEP = st.tuples(st.integers(1, 2), st.integers(1, 2))
RESIZE_RULES = st.sampled_from([(False, False), (True, False), (False, True)])


def _image(b: Builder) -> Value:
    return b.input((b.draw(SIDE), b.draw(SIDE), b.draw(st.integers(1, 9))))


def _window(b: Builder, x: Value) -> tuple[tuple[int, int], tuple[int, int], o.Padding]:
    """Returns kernel, dilation and padding that leave something of the picture."""
    kernel, dilation = b.draw(PAIR), b.draw(STEP)
    height, width, _ = b.dims(x)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    fits = reach[0] <= height and reach[1] <= width
    return kernel, dilation, b.draw(PADDINGS) if fits else "same"


def _conv2d(b: Builder, x: Value) -> Value:
    kernel, dilation, padding = _window(b, x)
    channels = b.dims(x)[2]
    groups = b.draw(st.sampled_from([k for k in range(1, channels + 1) if channels % k == 0]))
    filters = groups * b.draw(st.integers(1, 4))
    op = o.Conv2D(
        filters, kernel, b.draw(STEP), dilation, padding, groups,
        use_bias=b.draw(BOOL), activation=b.draw(ACTIVATIONS),
    )  # fmt: skip
    weights, scale = b.kernel((*kernel, channels // groups, filters), x, 3, filters, op.use_bias)
    return b.put(op, x, grid=b.grid(scale), **weights)


def _depthwise_conv2d(b: Builder, x: Value) -> Value:
    kernel, dilation, padding = _window(b, x)
    channels, multiplier = b.dims(x)[2], b.draw(st.integers(1, 2))
    op = o.DepthwiseConv2D(
        kernel, b.draw(STEP), dilation, padding, multiplier, b.draw(BOOL), b.draw(ACTIVATIONS)
    )
    shape = (*kernel, channels, multiplier)
    weights, scale = b.kernel(shape, x, 2, channels * multiplier, op.use_bias)
    return b.put(op, x, grid=b.grid(scale), **weights)


def _dense(b: Builder, x: Value) -> Value:
    if len(b.dims(x)) > 1:
        x = b.put(o.Reshape((-1,)), x)
    features, units = b.dims(x)[0], b.draw(st.integers(1, 9))
    op = o.Dense(units, b.draw(BOOL), b.draw(ACTIVATIONS))
    weights, scale = b.kernel((features, units), x, 1, units, op.use_bias)
    return b.put(op, x, grid=b.grid(scale), **weights)


def _unary(op: Op) -> Callable[[Builder, Value], Value]:
    return lambda b, x: b.put(op, x, grid=b.grid(b.near(b.scale(x))))


def _leaky_relu(b: Builder, x: Value) -> Value:
    alpha = b.draw(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.9, 1.5]))
    return b.put(o.LeakyRelu(alpha), x, grid=b.grid(b.near(b.scale(x))))


def _prelu(b: Builder, x: Value) -> Value:
    channels = b.dims(x)[-1]
    storage = b.storage.kernel
    grid = b.grid(float(b.rng.uniform(1e-3, 1e-2)), storage)
    alpha = Weight.of(b.stored((channels,), storage), grid)
    return b.put(o.PRelu(), x, grid=b.grid(b.near(b.scale(x))), alpha=alpha)


def _on_fixed_grid(op: Op) -> Callable[[Builder, Value], Value]:
    return lambda b, x: b.put(op, x, grid=FIXED_GRIDS[op.kind, b.storage])


def _binary(kind: type[o.Add] | type[o.Sub] | type[o.Mul]) -> Callable[[Builder, Value], Value]:
    def build(b: Builder, x: Value) -> Value:
        other = _second_operand(b, x)
        left, right = b.scale(x), b.scale(other)
        scale = left * right * 100 * b.finer if kind is o.Mul else max(left, right)
        return b.put(kind(b.draw(ACTIVATIONS)), x, other, grid=b.grid(b.near(scale)))

    return build


def _second_operand(b: Builder, x: Value) -> Value:
    kind = b.draw(st.sampled_from(["input", "same", "channels"]))
    if kind == "same":
        return x
    if kind == "input":
        return b.input(b.dims(x))
    shape = (b.dims(x)[-1],)
    grid = b.grid()
    name = b.edit.fresh("k")
    return b.edit.add(
        name, o.Constant(shape), weights={"value": Weight.of(b.stored(shape), grid)},
        type=TensorType(b.storage, shape, grid),
    )  # fmt: skip


def _pool(kind: type[o.MaxPool2D] | type[o.AvgPool2D]) -> Callable[[Builder, Value], Value]:
    def build(b: Builder, x: Value) -> Value:
        size = b.draw(PAIR)
        fits = size[0] <= b.dims(x)[0] and size[1] <= b.dims(x)[1]
        return b.put(kind(size, b.draw(STEP), b.draw(PADDINGS) if fits else "same"), x)

    return build


def _mean(b: Builder, x: Value) -> Value:
    return b.put(o.Mean(b.draw(BOOL)), x, grid=b.grid(b.near(b.scale(x) / 2)))


def _concat(b: Builder, x: Value) -> Value:
    axis = b.draw(st.integers(1, 3))
    dims = list(b.dims(x))
    dims[axis - 1] = b.draw(st.integers(1, 4))
    return b.put(o.Concat(axis), x, b.input(tuple(dims), b.type(x).quant), x)


def _pad(b: Builder, x: Value) -> Value:
    return b.put(o.Pad(*(b.draw(st.integers(0, 2)) for _ in range(4))), x)


def _resize(kind: type[o.ResizeBilinear] | type[o.ResizeNearest]) -> Callable[..., Value]:
    def build(b: Builder, x: Value) -> Value:
        size = (b.draw(st.integers(1, 12)), b.draw(st.integers(1, 12)))
        return b.put(kind(size, *b.draw(RESIZE_RULES)), x)

    return build


_CONVERTED: Mapping[DType, tuple[DType, ...]] = {
    DType.I8: (DType.U8, DType.I16),
    DType.U8: (DType.I8, DType.I16),
    DType.I16: (DType.I8,),
}
"""What the runtime makes of each storage type at one go."""


def _quantize(b: Builder, x: Value) -> Value:
    """Another grid, now and then in the other storage type, which what follows then keeps."""
    if not b.draw(BOOL):
        return b.put(o.Quantize(), x, grid=b.grid(b.near(b.scale(x))))
    before, steps = b.storage, b.finer
    b.storage = b.draw(st.sampled_from(_CONVERTED[before]))
    quant = b.type(x).quant
    assert quant is not None
    grid = b.grid(b.near(b.scale(x) * steps / b.finer))
    if DType.I16 not in (before, b.storage) and b.draw(BOOL):
        # the runtime has a short cut for equal scales and zero points 128 apart
        shift = 128 if b.storage is DType.U8 else -128
        grid = Quant(quant.scale, (quant.zero_point[0] + shift,))
    return b.put(o.Quantize(), x, grid=grid)


def _conv2d_transpose(b: Builder, x: Value) -> Value:
    filters = b.draw(st.integers(1, 5))
    op = o.Conv2DTranspose(
        filters, b.draw(PAIR), b.draw(STEP), b.draw(PADDINGS), b.draw(BOOL), b.draw(ACTIVATIONS)
    )
    weights, scale = b.kernel((*op.kernel, b.dims(x)[2], filters), x, 3, filters, op.use_bias)
    return b.put(op, x, grid=b.grid(scale), **weights)


def _extreme(kind: type[o.Maximum] | type[o.Minimum]) -> Callable[[Builder, Value], Value]:
    return lambda b, x: b.put(kind(), x, b.input(b.dims(x), b.type(x).quant))


def _slice(b: Builder, x: Value) -> Value:
    begin, size, stride = [], [], []
    for dim in b.dims(x):
        begin.append(b.draw(st.integers(0, dim - 1)))
        stride.append(b.draw(st.integers(1, 2)))
        most = -(-(dim - begin[-1]) // stride[-1])
        size.append(b.draw(st.sampled_from([-1, *range(1, most + 1)])))
    return b.put(o.Slice(tuple(begin), tuple(size), tuple(stride)), x)


def _mirror_pad(b: Builder, x: Value) -> Value:
    mode = b.draw(st.sampled_from(["reflect", "symmetric"]))
    left_out = 1 if mode == "reflect" else 0
    most = [min(2, size - left_out) for size in b.dims(x)[:2]]
    top, bottom, left, right = (b.draw(st.integers(0, most[k // 2])) for k in range(4))
    return b.put(o.MirrorPad(top, bottom, left, right, mode), x)


def _space_to_depth(b: Builder, x: Value) -> Value:
    height, width, _ = b.dims(x)
    return b.put(o.SpaceToDepth(2), b.put(o.Pad(height % 2, 0, 0, width % 2), x))


def _depth_to_space(b: Builder, x: Value) -> Value:
    return b.put(o.DepthToSpace(2), b.put(o.Concat(), x, x, x, x))


ONE_OP: Mapping[str, Callable[[Builder, Value], Value]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "relu": _unary(o.Relu()),
    "relu6": _unary(o.Relu6()),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "sigmoid": _on_fixed_grid(o.Sigmoid()),
    "tanh": _on_fixed_grid(o.Tanh()),
    "hard_swish": _unary(o.HardSwish()),
    "add": _binary(o.Add),
    "sub": _binary(o.Sub),
    "mul": _binary(o.Mul),
    "max_pool2d": _pool(o.MaxPool2D),
    "avg_pool2d": _pool(o.AvgPool2D),
    "mean": _mean,
    "concat": _concat,
    "reshape": lambda b, x: b.put(o.Reshape((-1,)), x),
    "pad": _pad,
    "resize_bilinear": _resize(o.ResizeBilinear),
    "resize_nearest": _resize(o.ResizeNearest),
    "quantize": _quantize,
    "conv2d_transpose": _conv2d_transpose,
    "maximum": _extreme(o.Maximum),
    "minimum": _extreme(o.Minimum),
    "slice": _slice,
    "transpose": lambda b, x: b.put(o.Transpose((0, *b.draw(st.permutations([1, 2, 3])))), x),
    "mirror_pad": _mirror_pad,
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
}
# these leave a picture, so that any op can follow
_PICTURE_OPS = tuple(sorted(set(ONE_OP) - {"dense", "mean", "reshape"}))


def integer_kinds(storage: DType) -> tuple[str, ...]:
    """Returns the op kinds that are computed on a storage type."""
    wide = storage is DType.I16
    return tuple(kind for kind in ONE_OP if not (wide and kind in EIGHT_BITS_ONLY))


def _finish(b: Builder, x: Value) -> Case:
    b.edit.output("y", x)
    return Case(b.edit.done(), b.inputs)


def _builder(draw: Draw, storage: DType, extreme: bool) -> Builder:
    return Builder(draw, storage, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), extreme)


@st.composite
def one_op_cases(draw: Draw, kind: str, storage: DType, *, extreme: bool = False) -> Case:
    """Returns a graph of one op of `integer_kinds` (dense may bring a reshape) on the storage."""
    b = _builder(draw, storage, extreme)
    return _finish(b, ONE_OP[kind](b, _image(b)))


@st.composite
def chain_cases(draw: Draw, storage: DType) -> Case:
    """Returns a float input, QUANTIZE, a chain of one to four ops, and DEQUANTIZE."""
    b = _builder(draw, storage, extreme=True)
    dims = (draw(SIDE), draw(SIDE), draw(st.integers(1, 9)))
    real = b.edit.input("image", (None, *dims))
    grid = b.grid()
    steps = b.rng.integers(-600 * b.finer, 600 * b.finer, size=(2, *dims)) / 2  # halves included
    b.inputs["image"] = (steps * grid.scale[0]).astype(np.float32)
    x = b.edit.add("stored", o.Quantize(), real, type=TensorType(storage, (None, *dims), grid))
    for _ in range(draw(st.integers(1, 3))):
        legal = [kind for kind in integer_kinds(b.storage) if kind in _PICTURE_OPS]
        x = ONE_OP[draw(st.sampled_from(legal))](b, x)
    if draw(BOOL):
        x = ONE_OP[draw(st.sampled_from(["dense", "mean"]))](b, x)
    return _finish(b, b.edit.add("real", o.Dequantize(), x))
