"""Emitters of the ops with a kernel: convolution, its transpose, depthwise convolution, dense."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lmopt.codegen.writer import Array, Layout, Writer
from lmopt.ir.graph import Node
from lmopt.ir.ops import Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D
from lmopt.ir.types import DType, Quant

ACTIVATIONS: Mapping[str, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
PADDINGS: Mapping[str, int] = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}


def conv2d(writer: Writer, node: Node) -> None:
    """Writes CONV_2D; a grouped one has a kernel of fewer input channels."""
    op = node.op
    assert isinstance(op, Conv2D)
    short = _short_bias(node)
    inputs = [
        writer.tensor(node.inputs[0]),
        writer.parameter(node, "kernel", transposed(3, 0, 1, 2)),
        writer.bias(node, op.filters),
    ]
    writer.operator(
        "CONV_2D",
        max(6 if op.groups > 1 else 1, writer.version(node, int8=3, int16=8 if short else 4)),
        inputs,
        writer.tensor(node.value),
        "Conv2DOptions",
        quantizedBiasType=short,
        **_window(op),
    )


def conv2d_transpose(writer: Writer, node: Node) -> None:
    """Writes TRANSPOSE_CONV, whose output shape is an operand; delegates want it stored."""
    op = node.op
    assert isinstance(op, Conv2DTranspose)
    short = _short_bias(node)
    dims = [1 if d is None else d for d in writer.graph.type(node.value).shape]
    inputs = [
        writer.constant(f"{node.name}/shape", np.array(dims, np.int32)),
        writer.parameter(node, "kernel", transposed(3, 0, 1, 2)),
        writer.tensor(node.inputs[0]),
        writer.bias(node, op.filters),
    ]
    writer.operator(
        "TRANSPOSE_CONV",
        max(3 if op.activation == "none" else 4, 5 if short else 1),
        inputs,
        writer.tensor(node.value),
        "TransposeConvOptions",
        padding=PADDINGS[op.padding],
        strideH=op.stride[0],
        strideW=op.stride[1],
        fusedActivationFunction=ACTIVATIONS[op.activation],
        quantizedBiasType=short,
    )


def depthwise_conv2d(writer: Writer, node: Node) -> None:
    """Writes DEPTHWISE_CONV_2D."""
    op = node.op
    assert isinstance(op, DepthwiseConv2D)
    channels = node.weight("kernel").type.shape[2]
    assert channels is not None
    inputs = [
        writer.tensor(node.inputs[0]),
        writer.parameter(node, "kernel", channels_last),
        writer.bias(node, channels * op.multiplier),
    ]
    writer.operator(
        "DEPTHWISE_CONV_2D",
        max(2 if op.dilation != (1, 1) else 1, writer.version(node, int8=3, int16=5)),
        inputs,
        writer.tensor(node.value),
        "DepthwiseConv2DOptions",
        depthMultiplier=op.multiplier,
        **_window(op),
    )


def dense(writer: Writer, node: Node) -> None:
    """Writes FULLY_CONNECTED over the last dimension."""
    op = node.op
    assert isinstance(op, Dense)
    short = _short_bias(node)
    keep = writer.graph.type(node.inputs[0]).rank > 2
    inputs = [
        writer.tensor(node.inputs[0]),
        writer.parameter(node, "kernel", transposed(1, 0)),
        writer.bias(node, op.units),
    ]
    writer.operator(
        "FULLY_CONNECTED",
        max(5 if keep else 1, writer.version(node, int8=4, int16=11 if short else 7)),
        inputs,
        writer.tensor(node.value),
        "FullyConnectedOptions",
        fusedActivationFunction=ACTIVATIONS[op.activation],
        keepNumDims=keep,
        quantizedBiasType=short,
    )


def _short_bias(node: Node) -> int:
    """Returns the type of a bias that is narrower than 16-bit activations have by default, or 0."""
    bias = node.weights.get("bias")
    narrow = bias is not None and bias.type.dtype is DType.I32
    short = narrow and node.results[0].dtype is DType.I16
    return int(schema.TensorType.INT32) if short else 0


def transposed(*order: int) -> Layout:
    """Returns the layout whose dimension k is dimension `order[k]` of the IR's kernel."""

    def layout(array: Array, quant: Quant | None) -> tuple[Array, Quant | None]:
        moved = np.ascontiguousarray(np.transpose(array, order))
        if quant is None or quant.axis is None:
            return moved, quant
        axis = order.index(quant.axis % array.ndim)
        return moved, Quant(quant.scale, quant.zero_point, axis)

    return layout


def channels_last(array: Array, quant: Quant | None) -> tuple[Array, Quant | None]:
    """Returns a depthwise kernel [h, w, c, m] as [1, h, w, c * m], one scale per output channel."""
    height, width, channels, multiplier = array.shape
    flat = np.ascontiguousarray(array.reshape(1, height, width, channels * multiplier))
    if quant is None or quant.axis is None:
        return flat, quant
    over_channels = quant.axis % 4 == 2

    def spread(values: tuple[float, ...] | tuple[int, ...]) -> list[float]:
        row = np.asarray(values)
        repeated = np.repeat(row, multiplier) if over_channels else np.tile(row, channels)
        return [value.item() for value in repeated]

    scale, zero_point = spread(quant.scale), spread(quant.zero_point)
    return flat, Quant(tuple(scale), tuple(int(z) for z in zero_point), 3)


def _window(op: Conv2D | DepthwiseConv2D) -> dict[str, int]:
    return {
        "padding": PADDINGS[op.padding],
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "dilationHFactor": op.dilation[0],
        "dilationWFactor": op.dilation[1],
        "fusedActivationFunction": ACTIVATIONS[op.activation],
    }
