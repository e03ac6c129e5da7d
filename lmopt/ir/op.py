"""The contract of an operation: a frozen dataclass whose fields are its text attributes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError
from lmopt.ir.types import DType, TensorType


@dataclass(frozen=True)
class Op(ABC):
    """What a node computes, apart from its operands and weights.

    Class attributes:
        kind: Name in IR text, snake_case, as in TFLite.
        arity: Number of operands; None for any number from one on.
        keeps_grid: The result's quantization must equal the operand's.
        float_only: It has no integer form; quantization leaves it in float32.
    """

    kind: ClassVar[str]
    arity: ClassVar[int | None] = 1
    keeps_grid: ClassVar[bool] = False
    float_only: ClassVar[bool] = False

    @abstractmethod
    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Returns the result types: float32, or the operand's grid for ops that keep it.

        Raises:
            GraphError: The operands do not fit.
        """

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        """Returns name and shape of every weight the node must carry."""
        return {}

    def macs(self, inputs: Sequence[TensorType]) -> int:
        """Returns the multiply-accumulates for a batch of one."""
        return 0

    def check_arity(self, inputs: Sequence[TensorType]) -> None:
        """Raises GraphError unless the number of operands fits."""
        if self.arity is not None and len(inputs) != self.arity:
            raise GraphError(f"{self.kind} takes {self.arity} operand(s), got {len(inputs)}")
        if self.arity is None and not inputs:
            raise GraphError(f"{self.kind} takes at least one operand, got none")


def image_dims(op: Op, tensor: TensorType) -> tuple[int, int, int]:
    """Returns height, width and channels of an NHWC tensor, or raises GraphError."""
    if tensor.rank != 4:
        raise GraphError(f"{op.kind} wants an NHWC operand of rank 4, got {tensor}")
    height, width, channels = tensor.shape[1:]
    if height is None or width is None or channels is None:
        raise GraphError(f"{op.kind} wants a known height, width and channel count, got {tensor}")
    return height, width, channels


def window_size(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Returns the output length of a sliding window, TensorFlow's SAME and VALID rules."""
    reach = (kernel - 1) * dilation + 1
    return -(-size // stride) if padding == "same" else -(-(size - reach + 1) // stride)


def window_shape(
    op: Op,
    tensor: TensorType,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: str,
) -> tuple[int, int]:
    """Returns output height and width of a 2-D window op, or raises GraphError when empty."""
    height, width, _ = image_dims(op, tensor)
    out_h = window_size(height, kernel[0], stride[0], dilation[0], padding)
    out_w = window_size(width, kernel[1], stride[1], dilation[1], padding)
    if out_h < 1 or out_w < 1:
        raise GraphError(
            f"{op.kind} with a {kernel[0]}x{kernel[1]} window leaves nothing of {height}x{width}"
        )
    return out_h, out_w


def float_result(tensor: TensorType, shape: tuple[int | None, ...]) -> TensorType:
    """Returns the float32 result type of a computing op."""
    return TensorType(DType.F32, shape)
