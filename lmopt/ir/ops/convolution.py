"""Ops with a kernel: convolution, its transpose, depthwise convolution, dense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmopt.errors import GraphError
from lmopt.ir.op import Op, float_result, image_dims, spread_size, window_shape
from lmopt.ir.types import TensorType

Padding = Literal["same", "valid"]
Activation = Literal["none", "relu", "relu6"]


@dataclass(frozen=True)
class Conv2D(Op):
    """2-D convolution, NHWC; `kernel` weight is [height, width, in / groups, filters].

    Attributes:
        filters: Output channels.
        kernel: Window height and width.
        groups: Channel groups; input channels and filters must be multiples of it.
        use_bias: Whether the node carries `bias` [filters].
        activation: Fused activation.
    """

    kind: ClassVar[str] = "conv2d"
    filters: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = "same"
    groups: int = 1
    use_bias: bool = True
    activation: Activation = "none"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        channels = image_dims(self, inputs[0])[2]
        if channels % self.groups or self.filters % self.groups:
            raise GraphError(
                f"conv2d with {self.groups} groups cannot take {channels} channels "
                f"to {self.filters}"
            )
        out = window_shape(self, inputs[0], self.kernel, self.stride, self.dilation, self.padding)
        return (float_result(inputs[0], (inputs[0].shape[0], *out, self.filters)),)

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        channels = image_dims(self, inputs[0])[2]
        shapes: dict[str, tuple[int, ...]] = {
            "kernel": (*self.kernel, channels // self.groups, self.filters)
        }
        if self.use_bias:
            shapes["bias"] = (self.filters,)
        return shapes

    def macs(self, inputs: Sequence[TensorType]) -> int:
        return self.infer(inputs)[0].elements * math.prod(self.params(inputs)["kernel"][:3])


@dataclass(frozen=True)
class Conv2DTranspose(Op):
    """Transposed 2-D convolution; `kernel` weight is [height, width, in, filters].

    Every operand pixel adds its multiple of the kernel to the result, `stride` pixels apart. `same`
    gives the operand's size times the stride, `valid` all that is written to.

    Attributes:
        filters: Output channels.
        use_bias: Whether the node carries `bias` [filters].
    """

    kind: ClassVar[str] = "conv2d_transpose"
    filters: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    padding: Padding = "same"
    use_bias: bool = True
    activation: Activation = "none"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        height, width, _ = image_dims(self, inputs[0])
        return (
            float_result(
                inputs[0],
                (
                    inputs[0].shape[0],
                    spread_size(height, self.kernel[0], self.stride[0], self.padding),
                    spread_size(width, self.kernel[1], self.stride[1], self.padding),
                    self.filters,
                ),
            ),
        )

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        channels = image_dims(self, inputs[0])[2]
        shapes: dict[str, tuple[int, ...]] = {"kernel": (*self.kernel, channels, self.filters)}
        if self.use_bias:
            shapes["bias"] = (self.filters,)
        return shapes

    def macs(self, inputs: Sequence[TensorType]) -> int:
        return inputs[0].elements * math.prod(self.kernel) * self.filters


@dataclass(frozen=True)
class DepthwiseConv2D(Op):
    """Depthwise 2-D convolution; `kernel` weight is [height, width, channels, multiplier].

    Attributes:
        multiplier: Output channels per input channel.
        use_bias: Whether the node carries `bias` [channels * multiplier].
    """

    kind: ClassVar[str] = "depthwise_conv2d"
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = "same"
    multiplier: int = 1
    use_bias: bool = True
    activation: Activation = "none"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        channels = image_dims(self, inputs[0])[2]
        out = window_shape(self, inputs[0], self.kernel, self.stride, self.dilation, self.padding)
        shape = (inputs[0].shape[0], *out, channels * self.multiplier)
        return (float_result(inputs[0], shape),)

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        channels = image_dims(self, inputs[0])[2]
        shapes: dict[str, tuple[int, ...]] = {"kernel": (*self.kernel, channels, self.multiplier)}
        if self.use_bias:
            shapes["bias"] = (channels * self.multiplier,)
        return shapes

    def macs(self, inputs: Sequence[TensorType]) -> int:
        return self.infer(inputs)[0].elements * math.prod(self.kernel)


@dataclass(frozen=True)
class Dense(Op):
    """Fully connected layer over the last dimension; `kernel` weight is [in, units].

    Attributes:
        units: Output features.
        use_bias: Whether the node carries `bias` [units].
    """

    kind: ClassVar[str] = "dense"
    units: int
    use_bias: bool = True
    activation: Activation = "none"

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        self._features(inputs[0])
        return (float_result(inputs[0], (*inputs[0].shape[:-1], self.units)),)

    def params(self, inputs: Sequence[TensorType]) -> Mapping[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self._features(inputs[0]), self.units)}
        if self.use_bias:
            shapes["bias"] = (self.units,)
        return shapes

    def macs(self, inputs: Sequence[TensorType]) -> int:
        return self.infer(inputs)[0].elements * self._features(inputs[0])

    def _features(self, tensor: TensorType) -> int:
        if tensor.rank < 2 or tensor.shape[-1] is None:
            raise GraphError(
                f"dense wants [batch, ..., features] with known features, got {tensor}"
            )
        return tensor.shape[-1]
