"""The table of emitters: every op of the IR by kind."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.codegen import emit_convolution, emit_elementwise, emit_landmark, emit_structure
from lmopt.codegen.emit_elementwise import Emitter, unary

EMITTERS: Mapping[str, Emitter] = {
    "input": emit_structure.value_only,
    "constant": emit_structure.constant,
    "conv2d": emit_convolution.conv2d,
    "depthwise_conv2d": emit_convolution.depthwise_conv2d,
    "dense": emit_convolution.dense,
    "batch_norm": emit_elementwise.batch_norm,
    "relu": unary("RELU", int8=2, uint8=2),
    "relu6": unary("RELU6", int8=2),
    "leaky_relu": emit_elementwise.leaky_relu,
    "prelu": emit_elementwise.prelu,
    "sigmoid": unary("LOGISTIC", int8=2),
    "tanh": unary("TANH", int8=2),
    "hard_swish": unary("HARD_SWISH", options="HardSwishOptions"),
    "add": emit_elementwise.add,
    "sub": emit_elementwise.sub,
    "mul": emit_elementwise.mul,
    "max_pool2d": emit_structure.pool2d,
    "avg_pool2d": emit_structure.pool2d,
    "mean": emit_structure.mean,
    "concat": emit_structure.concat,
    "reshape": emit_structure.reshape,
    "pad": emit_structure.pad,
    "resize_bilinear": emit_structure.resize,
    "resize_nearest": emit_structure.resize,
    "heatmap_decode": emit_landmark.heatmap_decode,
    "similarity_fit": emit_landmark.similarity_fit,
    "invert_transform": emit_landmark.invert_transform,
    "transform_landmarks": emit_landmark.transform_landmarks,
    "warp": emit_landmark.warp,
    "landmark_heatmap": emit_landmark.landmark_heatmap,
    "quantize": emit_structure.quantize,
    "dequantize": emit_structure.dequantize,
}
