"""Ops that move elements: slices, transposes, mirrored borders, blocks of pixels; and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmopt.errors import GraphError
from lmopt.ir.op import Op, float_result, image_dims
from lmopt.ir.types import TensorType

Mirror = Literal["reflect", "symmetric"]


def dims_after_batch(op: Op, tensor: TensorType) -> tuple[int, ...]:
    """Returns the dimensions after the batch, or raises GraphError when one is unknown."""
    dims = tuple(d for d in tensor.shape[1:] if d is not None)
    if tensor.rank < 2 or len(dims) != tensor.rank - 1:
        raise GraphError(f"{op.kind} wants known dimensions after the batch, got {tensor}")
    return dims


@dataclass(frozen=True)
class Slice(Op):
    """Every `stride`-th element from `begin` on, `size` of them, per dimension after the batch.

    Attributes:
        begin: First element.
        size: Number of elements; -1 for all up to the end.
        stride: Distance of elements, at least 1.
    """

    kind: ClassVar[str] = "slice"
    keeps_grid: ClassVar[bool] = True
    begin: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        dims = dims_after_batch(self, inputs[0])
        if not len(self.begin) == len(self.size) == len(self.stride) == len(dims):
            raise GraphError(
                f"slice wants begin, size and stride of {len(dims)} numbers, got {self}"
            )
        lengths = []
        for dim, begin, size, stride in zip(dims, self.begin, self.size, self.stride, strict=True):
            most = -(-(dim - begin) // stride) if stride > 0 else 0
            length = most if size == -1 else size
            if begin < 0 or not 1 <= length <= most:
                raise GraphError(
                    f"slice cannot take {size} elements {stride} apart from {begin} on of {dim}"
                )
            lengths.append(length)
        return (inputs[0].with_shape((inputs[0].shape[0], *lengths)),)

    def is_whole(self, axis: int) -> bool:
        """Returns whether a dimension (1 is the first after the batch) is taken as it is."""
        k = axis - 1
        return (self.begin[k], self.size[k], self.stride[k]) == (0, -1, 1)


@dataclass(frozen=True)
class Transpose(Op):
    """Dimensions in another order; the batch stays first.

    Attributes:
        order: Result dimension k is operand dimension `order[k]`; `order[0]` is 0.
    """

    kind: ClassVar[str] = "transpose"
    keeps_grid: ClassVar[bool] = True
    order: tuple[int, ...] = (0,)

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        source = inputs[0]
        if sorted(self.order) != list(range(source.rank)) or self.order[0] != 0:
            raise GraphError(
                f"transpose of {source} wants 0 and then 1 to {source.rank - 1} in some order, "
                f"got {list(self.order)}"
            )
        return (source.with_shape(tuple(source.shape[k] for k in self.order)),)


@dataclass(frozen=True)
class MirrorPad(Op):
    """Padding of height and width with the picture's own rows and columns.

    Attributes:
        top, bottom, left, right: Rows and columns added.
        mode: `reflect` leaves the border itself out, `symmetric` repeats it.
    """

    kind: ClassVar[str] = "mirror_pad"
    keeps_grid: ClassVar[bool] = True
    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    mode: Mirror = "reflect"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        height, width, channels = image_dims(self, inputs[0])
        left_out = 1 if self.mode == "reflect" else 0
        if max(self.top, self.bottom) > height - left_out or (
            max(self.left, self.right) > width - left_out
        ):
            raise GraphError(f"mirror_pad wants a map larger than its borders, got {inputs[0]}")
        high, wide = height + self.top + self.bottom, width + self.left + self.right
        return (inputs[0].with_shape((inputs[0].shape[0], high, wide, channels)),)


@dataclass(frozen=True)
class SpaceToDepth(Op):
    """Blocks of `block` x `block` pixels as channels, row by row, the operand's channels last."""

    kind: ClassVar[str] = "space_to_depth"
    keeps_grid: ClassVar[bool] = True
    block: int = 2

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        height, width, channels = image_dims(self, inputs[0])
        if self.block < 2 or height % self.block or width % self.block:
            raise GraphError(f"space_to_depth cannot cut {inputs[0]} into blocks of {self.block}")
        shape = (height // self.block, width // self.block, channels * self.block**2)
        return (inputs[0].with_shape((inputs[0].shape[0], *shape)),)


@dataclass(frozen=True)
class DepthToSpace(Op):
    """The inverse of `space_to_depth`: channels as blocks of pixels."""

    kind: ClassVar[str] = "depth_to_space"
    keeps_grid: ClassVar[bool] = True
    block: int = 2

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        height, width, channels = image_dims(self, inputs[0])
        if self.block < 2 or channels % self.block**2:
            raise GraphError(f"depth_to_space cannot make blocks of {self.block} of {inputs[0]}")
        shape = (height * self.block, width * self.block, channels // self.block**2)
        return (inputs[0].with_shape((inputs[0].shape[0], *shape)),)


@dataclass(frozen=True)
class Sum(Op):
    """Sum over some dimensions after the batch.

    Attributes:
        axes: The dimensions, 1 being the first after the batch, ascending.
        keepdims: Whether they stay, with length 1.
    """

    kind: ClassVar[str] = "sum"
    float_only: ClassVar[bool] = True
    axes: tuple[int, ...] = (1, 2)
    keepdims: bool = False

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        source = inputs[0]
        dims_after_batch(self, source)
        if not self.axes or list(self.axes) != sorted(set(self.axes) & set(range(1, source.rank))):
            raise GraphError(
                f"sum of {source} wants ascending axes from 1 to {source.rank - 1}, "
                f"got {list(self.axes)}"
            )
        shape = tuple(
            1 if axis in self.axes else d
            for axis, d in enumerate(source.shape)
            if self.keepdims or axis not in self.axes
        )
        return (float_result(source, shape),)
