"""Ops that arrange, pool or convert: inputs, constants, pools, concat, reshape, pad, quantize."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lmopt.errors import GraphError
from lmopt.ir.op import Op, float_result, image_dims, window_shape
from lmopt.ir.ops.convolution import Padding
from lmopt.ir.types import DType, TensorType


@dataclass(frozen=True)
class Input(Op):
    """A named input of the graph; its node's result carries the type."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[int | None] = 0

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        raise GraphError("an input has no operands to infer a type from")


@dataclass(frozen=True)
class Constant(Op):
    """A constant tensor, weight `value` of `shape`."""

    kind: ClassVar[str] = "constant"
    arity: ClassVar[int | None] = 0
    shape: tuple[int, ...] = ()

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (TensorType(DType.F32, self.shape),)

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        return {"value": self.shape}


@dataclass(frozen=True)
class _Pool2D(Op):
    size: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: Padding = "valid"
    keeps_grid: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        channels = image_dims(self, inputs[0])[2]
        out = window_shape(self, inputs[0], self.size, self.stride, (1, 1), self.padding)
        return (inputs[0].with_shape((inputs[0].shape[0], *out, channels)),)


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """Maximum over windows; exact on any grid."""

    kind: ClassVar[str] = "max_pool2d"


@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """Mean over windows; padding does not count."""

    kind: ClassVar[str] = "avg_pool2d"


@dataclass(frozen=True)
class Mean(Op):
    """Mean over height and width (global average pooling).

    Attributes:
        keepdims: Whether the result keeps 1x1 spatial dimensions.
    """

    kind: ClassVar[str] = "mean"
    keepdims: bool = False

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        channels = image_dims(self, inputs[0])[2]
        batch = inputs[0].shape[0]
        shape = (batch, 1, 1, channels) if self.keepdims else (batch, channels)
        return (float_result(inputs[0], shape),)


@dataclass(frozen=True)
class Concat(Op):
    """Operands joined along `axis` (negative counts from the end)."""

    kind: ClassVar[str] = "concat"
    arity: ClassVar[int | None] = None
    keeps_grid: ClassVar[bool] = True
    axis: int = -1

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        rank = inputs[0].rank
        axis = self.axis % rank if -rank <= self.axis < rank else rank
        if axis in (0, rank) or any(t.rank != rank for t in inputs):
            raise GraphError(f"concat along axis {self.axis} of {[str(t) for t in inputs]}")
        total = 0
        for tensor in inputs:
            length = tensor.shape[axis]
            rest = replace(tensor, shape=(*tensor.shape[:axis], 0, *tensor.shape[axis + 1 :]))
            want = (*inputs[0].shape[:axis], 0, *inputs[0].shape[axis + 1 :])
            if length is None or rest.shape != want:
                raise GraphError(
                    f"concat along axis {self.axis} wants equal other dimensions, "
                    f"got {[str(t) for t in inputs]}"
                )
            total += length
        shape = (*inputs[0].shape[:axis], total, *inputs[0].shape[axis + 1 :])
        return (inputs[0].with_shape(shape),)


@dataclass(frozen=True)
class Reshape(Op):
    """The elements of each batch item in another shape; one dimension may be -1.

    Attributes:
        shape: The dimensions after the batch.
    """

    kind: ClassVar[str] = "reshape"
    keeps_grid: ClassVar[bool] = True
    shape: tuple[int, ...] = (-1,)

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        source = inputs[0]
        if source.rank < 1 or any(d is None for d in source.shape[1:]):
            raise GraphError(f"reshape wants known dimensions after the batch, got {source}")
        total = math.prod(d for d in source.shape[1:] if d is not None)
        known = math.prod(d for d in self.shape if d != -1)
        holes = self.shape.count(-1)
        if holes > 1 or known == 0 or (total % known if holes else total != known):
            raise GraphError(f"reshape cannot put {list(source.shape[1:])} into {list(self.shape)}")
        dims = tuple(total // known if d == -1 else d for d in self.shape)
        return (source.with_shape((source.shape[0], *dims)),)


@dataclass(frozen=True)
class Pad(Op):
    """Zero padding of height and width.

    Attributes:
        top, bottom, left, right: Rows and columns of zeros added.
    """

    kind: ClassVar[str] = "pad"
    keeps_grid: ClassVar[bool] = True
    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        height, width, channels = image_dims(self, inputs[0])
        shape = (
            inputs[0].shape[0],
            height + self.top + self.bottom,
            width + self.left + self.right,
            channels,
        )
        return (inputs[0].with_shape(shape),)


@dataclass(frozen=True)
class Quantize(Op):
    """A float or stored tensor put on the grid of the node's result type."""

    kind: ClassVar[str] = "quantize"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (inputs[0],)


@dataclass(frozen=True)
class Dequantize(Op):
    """The real values of a quantized or float16 tensor, as float32."""

    kind: ClassVar[str] = "dequantize"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        return (float_result(inputs[0], inputs[0].shape),)
