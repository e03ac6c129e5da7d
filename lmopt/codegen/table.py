"""The table of emitters: every op of the IR by kind."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.codegen import emit_arrangement, emit_convolution, emit_elementwise, emit_structure
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
    "quantize": emit_structure.quantize,
    "dequantize": emit_structure.dequantize,
    "conv2d_transpose": emit_convolution.conv2d_transpose,
    "softmax": emit_elementwise.softmax,
    "exp": unary("EXP", options="ExpOptions"),
    "sqrt": unary("SQRT"),
    "rsqrt": unary("RSQRT"),
    "square": unary("SQUARE", options="SquareOptions"),
    "abs": unary("ABS", options="AbsOptions"),
    "div": emit_elementwise.div,
    "maximum": emit_elementwise.extreme("MAXIMUM"),
    "minimum": emit_elementwise.extreme("MINIMUM"),
    "slice": emit_arrangement.slice_,
    "transpose": emit_arrangement.transpose,
    "mirror_pad": emit_arrangement.mirror_pad,
    "space_to_depth": emit_arrangement.blocks,
    "depth_to_space": emit_arrangement.blocks,
    "sum": emit_arrangement.total,
}
