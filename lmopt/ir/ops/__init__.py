"""The ops of the IR, by kind. An op stands in four tables: here, interpreter, emitter, lowering."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.ir.op import Op
from lmopt.ir.ops.convolution import Activation, Conv2D, Dense, DepthwiseConv2D, Padding
from lmopt.ir.ops.elementwise import (
    Add,
    BatchNorm,
    HardSwish,
    LeakyRelu,
    Mul,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Sub,
    Tanh,
)
from lmopt.ir.ops.landmark import (
    DecodeMethod,
    HeatmapDecode,
    InvertTransform,
    LandmarkHeatmap,
    SimilarityFit,
    TransformLandmarks,
    Warp,
)
from lmopt.ir.ops.resize import ResizeBilinear, ResizeNearest
from lmopt.ir.ops.structure import (
    AvgPool2D,
    Concat,
    Constant,
    Dequantize,
    Input,
    MaxPool2D,
    Mean,
    Pad,
    Quantize,
    Reshape,
)

OPS: Mapping[str, type[Op]] = {
    cls.kind: cls
    for cls in (
        Input,
        Constant,
        Conv2D,
        DepthwiseConv2D,
        Dense,
        BatchNorm,
        Relu,
        Relu6,
        LeakyRelu,
        PRelu,
        Sigmoid,
        Tanh,
        HardSwish,
        Add,
        Sub,
        Mul,
        MaxPool2D,
        AvgPool2D,
        Mean,
        Concat,
        Reshape,
        Pad,
        ResizeBilinear,
        ResizeNearest,
        HeatmapDecode,
        SimilarityFit,
        InvertTransform,
        TransformLandmarks,
        Warp,
        LandmarkHeatmap,
        Quantize,
        Dequantize,
    )
}

__all__ = [
    "Activation",
    "Add",
    "AvgPool2D",
    "BatchNorm",
    "Concat",
    "Constant",
    "Conv2D",
    "DecodeMethod",
    "Dense",
    "DepthwiseConv2D",
    "Dequantize",
    "HardSwish",
    "HeatmapDecode",
    "Input",
    "InvertTransform",
    "LandmarkHeatmap",
    "LeakyRelu",
    "MaxPool2D",
    "Mean",
    "Mul",
    "OPS",
    "Op",
    "PRelu",
    "Pad",
    "Padding",
    "Quantize",
    "Relu",
    "Relu6",
    "Reshape",
    "ResizeBilinear",
    "ResizeNearest",
    "Sigmoid",
    "SimilarityFit",
    "Sub",
    "Tanh",
    "TransformLandmarks",
    "Warp",
]
