"""Emitters of ops that arrange, pool or convert."""

from __future__ import annotations

import numpy as np

from lmopt.codegen.emit_convolution import PADDINGS
from lmopt.codegen.writer import Writer
from lmopt.ir.graph import Node
from lmopt.ir.ops import (
    AvgPool2D,
    Concat,
    MaxPool2D,
    Mean,
    Pad,
    ResizeBilinear,
    ResizeNearest,
)
from lmopt.ir.types import DType


def value_only(writer: Writer, node: Node) -> None:
    """Writes the tensor of an input; inputs come first and have no operator."""
    writer.tensor(node.value)


def constant(writer: Writer, node: Node) -> None:
    """Writes a constant tensor."""
    writer.constant_value(node)


def pool2d(writer: Writer, node: Node) -> None:
    """Writes MAX_POOL_2D or AVERAGE_POOL_2D."""
    op = node.op
    assert isinstance(op, (MaxPool2D, AvgPool2D))
    writer.operator(
        "MAX_POOL_2D" if isinstance(op, MaxPool2D) else "AVERAGE_POOL_2D",
        writer.version(node, int8=2, int16=3),
        [writer.tensor(node.inputs[0])],
        writer.tensor(node.value),
        "Pool2DOptions",
        padding=PADDINGS[op.padding],
        strideH=op.stride[0],
        strideW=op.stride[1],
        filterHeight=op.size[0],
        filterWidth=op.size[1],
    )


def mean(writer: Writer, node: Node) -> None:
    """Writes MEAN over height and width."""
    op = node.op
    assert isinstance(op, Mean)
    axes = writer.constant(f"{node.name}/axes", np.array([1, 2], np.int32))
    inputs, output = [writer.tensor(node.inputs[0]), axes], writer.tensor(node.value)
    version = writer.version(node, int8=2, int16=3)
    writer.operator("MEAN", version, inputs, output, "ReducerOptions", keepDims=op.keepdims)


def concat(writer: Writer, node: Node) -> None:
    """Writes CONCATENATION with an axis counted from the front."""
    op = node.op
    assert isinstance(op, Concat)
    axis = op.axis % writer.graph.type(node.value).rank
    inputs, output = [writer.tensor(v) for v in node.inputs], writer.tensor(node.value)
    version = writer.version(node, int8=2, int16=3)
    writer.operator("CONCATENATION", version, inputs, output, "ConcatenationOptions", axis=axis)


def reshape(writer: Writer, node: Node) -> None:
    """Writes RESHAPE; -1 stands for the batch, so that the file can be resized."""
    dims = [-1 if d is None else d for d in writer.graph.type(node.value).shape]
    shape = writer.constant(f"{node.name}/shape", np.array(dims, np.int32))
    inputs, output = [writer.tensor(node.inputs[0]), shape], writer.tensor(node.value)
    writer.operator("RESHAPE", 1, inputs, output, "ReshapeOptions", newShape=dims)


def pad(writer: Writer, node: Node) -> None:
    """Writes PAD; on a grid the runtime pads with the zero point."""
    op = node.op
    assert isinstance(op, Pad)
    widths = np.array([[0, 0], [op.top, op.bottom], [op.left, op.right], [0, 0]], np.int32)
    paddings = writer.constant(f"{node.name}/paddings", widths)
    inputs, output = [writer.tensor(node.inputs[0]), paddings], writer.tensor(node.value)
    version = writer.version(node, int8=2, int16=3)
    writer.operator("PAD", version, inputs, output, "PadOptions")


def resize(writer: Writer, node: Node) -> None:
    """Writes RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR."""
    op = node.op
    assert isinstance(op, (ResizeBilinear, ResizeNearest))
    name = "ResizeBilinear" if isinstance(op, ResizeBilinear) else "ResizeNearestNeighbor"
    newer = op.half_pixel_centers or (op.align_corners and isinstance(op, ResizeNearest))
    version = writer.version(node, int8=2, int16=4)
    size = writer.constant(f"{node.name}/size", np.array(op.size, np.int32))
    writer.operator(
        "RESIZE_BILINEAR" if isinstance(op, ResizeBilinear) else "RESIZE_NEAREST_NEIGHBOR",
        max(version, 3) if newer else version,
        [writer.tensor(node.inputs[0]), size],
        writer.tensor(node.value),
        f"{name}Options",
        alignCorners=op.align_corners,
        halfPixelCenters=op.half_pixel_centers,
    )


def quantize(writer: Writer, node: Node) -> None:
    """Writes QUANTIZE."""
    inputs, output = [writer.tensor(node.inputs[0])], writer.tensor(node.value)
    writer.operator("QUANTIZE", writer.version(node, int16=2), inputs, output, "QuantizeOptions")


def dequantize(writer: Writer, node: Node) -> None:
    """Writes DEQUANTIZE."""
    versions = {DType.I8: 2, DType.I16: 3, DType.F16: 3}
    version = versions.get(writer.graph.type(node.inputs[0]).dtype, 1)
    inputs, output = [writer.tensor(node.inputs[0])], writer.tensor(node.value)
    writer.operator("DEQUANTIZE", version, inputs, output, "DequantizeOptions")
