"""TFLite operators to IR nodes: one table, one small reader per op family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lmopt.errors import GraphError, InputError
from lmopt.frontend.tflite_file import Operator
from lmopt.frontend.tflite_importer import Importer
from lmopt.ir import ops
from lmopt.ir.types import DType, Quant, TensorType, Weight

Reader = Callable[[Importer, Operator], None]


def options_of(operator: Operator, kind: str) -> Mapping[str, Any]:
    """Returns an operator's option fields.

    Raises:
        GraphError: It has none, or those of another operator.
    """
    got, fields = operator.options
    if got != kind:
        raise GraphError(f"its options are {got}; wanted {kind}")
    return fields


def _conv2d(importer: Importer, operator: Operator) -> None:
    fields = options_of(operator, "Conv2DOptions")
    x = importer.value(operator.inputs[0])
    stored = importer.weight(operator.inputs[1], "kernel")
    kernel = _moved(stored, (1, 2, 3, 0))
    height, width, inner, filters = _dims(kernel, 4)
    channels = _channels(importer.type(x))
    if channels % inner:
        raise GraphError(f"its kernel takes {inner} channels of {channels}")
    bias = _bias(importer, operator)
    op = ops.Conv2D(
        filters,
        (height, width),
        _pair(fields, "strideH", "strideW"),
        _pair(fields, "dilationHFactor", "dilationWFactor"),
        fields["padding"],
        channels // inner,
        bool(bias),
        fields["fusedActivationFunction"],
    )
    importer.add(operator, op, [x], {"kernel": kernel, **bias})


def _depthwise_conv2d(importer: Importer, operator: Operator) -> None:
    fields = options_of(operator, "DepthwiseConv2DOptions")
    x = importer.value(operator.inputs[0])
    stored = importer.weight(operator.inputs[1], "kernel")
    _, height, width, filters = _dims(stored, 4)
    channels = _channels(importer.type(x))
    if filters % channels:
        raise GraphError(f"its kernel has {filters} channels for {channels}")
    bias = _bias(importer, operator)
    op = ops.DepthwiseConv2D(
        (height, width),
        _pair(fields, "strideH", "strideW"),
        _pair(fields, "dilationHFactor", "dilationWFactor"),
        fields["padding"],
        filters // channels,
        bool(bias),
        fields["fusedActivationFunction"],
    )
    importer.add(operator, op, [x], {"kernel": _by_channel(stored, channels), **bias})


def _dense(importer: Importer, operator: Operator) -> None:
    fields = options_of(operator, "FullyConnectedOptions")
    if fields["weightsFormat"]:
        raise GraphError("its weights are in a shuffled format")
    x = importer.value(operator.inputs[0])
    kernel = _moved(importer.weight(operator.inputs[1], "kernel"), (1, 0))
    features, units = _dims(kernel, 2)
    if importer.type(x).rank > 2 and not fields["keepNumDims"]:
        x = importer.reshaped(x, f"{x.node}/flat", (features,))
    bias = _bias(importer, operator)
    op = ops.Dense(units, bool(bias), fields["fusedActivationFunction"])
    importer.add(operator, op, [x], {"kernel": kernel, **bias})


def _binary(make: Callable[[Any], ops.Op], kind: str) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        fields = options_of(operator, kind)
        inputs = [importer.value(k) for k in operator.inputs]
        importer.add(operator, make(fields["fusedActivationFunction"]), inputs)

    return read


def _unary(op: ops.Op) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        importer.add(operator, op, [importer.value(operator.inputs[0])])

    return read


def _leaky_relu(importer: Importer, operator: Operator) -> None:
    alpha = float(options_of(operator, "LeakyReluOptions")["alpha"])
    # The file holds float32; the shortest number that rounds to it is what was meant.
    shortest = float(str(np.float32(alpha)))
    importer.add(operator, ops.LeakyRelu(shortest), [importer.value(operator.inputs[0])])


def _prelu(importer: Importer, operator: Operator) -> None:
    alpha = importer.weight(operator.inputs[1], "alpha")
    if any(d != 1 for d in alpha.type.shape[:-1]) or alpha.type.rank == 0:
        raise GraphError(f"its alpha is {alpha.type}; wanted one number per channel")
    assert alpha.array is not None
    flat = Weight.of(alpha.array.reshape(-1), alpha.type.quant)
    importer.add(operator, ops.PRelu(), [importer.value(operator.inputs[0])], {"alpha": flat})


def _pool2d(make: Callable[..., ops.Op]) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        fields = options_of(operator, "Pool2DOptions")
        _no_activation(fields)
        size = _pair(fields, "filterHeight", "filterWidth")
        stride = _pair(fields, "strideH", "strideW")
        op = make(size, stride, fields["padding"])
        importer.add(operator, op, [importer.value(operator.inputs[0])])

    return read


def _mean(importer: Importer, operator: Operator) -> None:
    x = importer.value(operator.inputs[0])
    axes = _integers(importer, operator.inputs[1], "axes")
    rank = importer.type(x).rank
    if rank != 4 or sorted(a % rank for a in axes) != [1, 2]:
        raise GraphError(f"it averages the dimensions {axes} of {rank}; wanted height and width")
    keep = bool(options_of(operator, "ReducerOptions")["keepDims"])
    importer.add(operator, ops.Mean(keep), [x])


def _concat(importer: Importer, operator: Operator) -> None:
    fields = options_of(operator, "ConcatenationOptions")
    _no_activation(fields)
    inputs = [importer.value(k) for k in operator.inputs]
    axis = int(fields["axis"])
    rank = importer.type(inputs[0]).rank
    op = ops.Concat(-1 if axis == rank - 1 else axis)
    importer.add(operator, op, inputs)


def _reshape(importer: Importer, operator: Operator) -> None:
    x = importer.value(operator.inputs[0])
    shape = importer.file.tensor(operator.outputs[0]).type.shape
    if None in shape[1:]:
        raise GraphError(f"its result has the open shape {list(shape)}")
    # A flattening stays one when a pass changes the image before it.
    dims = (-1,) if len(shape) == 2 else tuple(d for d in shape[1:] if d is not None)
    importer.add(operator, ops.Reshape(dims), [x])


def _pad(importer: Importer, operator: Operator) -> None:
    widths = _integers(importer, operator.inputs[1], "paddings")
    if len(widths) != 8 or any(widths[:2] + widths[6:]) or min(widths) < 0:
        raise GraphError(f"it pads by {widths}; wanted height and width of an NHWC tensor only")
    importer.add(operator, ops.Pad(*widths[2:6]), [importer.value(operator.inputs[0])])


def _resize(make: type[ops.ResizeBilinear | ops.ResizeNearest], kind: str) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        fields = options_of(operator, kind)
        size = _integers(importer, operator.inputs[1], "size")
        if len(size) != 2:
            raise GraphError(f"its size is {size}; wanted height and width")
        rules = bool(fields["alignCorners"]), bool(fields["halfPixelCenters"])
        op = make((size[0], size[1]), *rules)
        importer.add(operator, op, [importer.value(operator.inputs[0])])

    return read


def _dequantize(importer: Importer, operator: Operator) -> None:
    stored = importer.constant(operator.inputs[0])
    if stored is not None and stored.type.dtype is DType.F16:
        importer.halves(operator.inputs[0], operator.outputs[0])
        return
    importer.add(operator, ops.Dequantize(), [importer.value(operator.inputs[0])])


READERS: Mapping[str, tuple[Reader, tuple[int, ...]]] = {
    "CONV_2D": (_conv2d, (2, 3)),
    "DEPTHWISE_CONV_2D": (_depthwise_conv2d, (2, 3)),
    "FULLY_CONNECTED": (_dense, (2, 3)),
    "RELU": (_unary(ops.Relu()), (1,)),
    "RELU6": (_unary(ops.Relu6()), (1,)),
    "LEAKY_RELU": (_leaky_relu, (1,)),
    "PRELU": (_prelu, (2,)),
    "LOGISTIC": (_unary(ops.Sigmoid()), (1,)),
    "TANH": (_unary(ops.Tanh()), (1,)),
    "HARD_SWISH": (_unary(ops.HardSwish()), (1,)),
    "ADD": (_binary(ops.Add, "AddOptions"), (2,)),
    "SUB": (_binary(ops.Sub, "SubOptions"), (2,)),
    "MUL": (_binary(ops.Mul, "MulOptions"), (2,)),
    "MAX_POOL_2D": (_pool2d(ops.MaxPool2D), (1,)),
    "AVERAGE_POOL_2D": (_pool2d(ops.AvgPool2D), (1,)),
    "MEAN": (_mean, (2,)),
    "CONCATENATION": (_concat, ()),
    "RESHAPE": (_reshape, (1, 2)),
    "SQUEEZE": (_reshape, (1,)),
    "PAD": (_pad, (2,)),
    "RESIZE_BILINEAR": (_resize(ops.ResizeBilinear, "ResizeBilinearOptions"), (2,)),
    "RESIZE_NEAREST_NEIGHBOR": (
        _resize(ops.ResizeNearest, "ResizeNearestNeighborOptions"),
        (2,),
    ),
    "QUANTIZE": (_unary(ops.Quantize()), (1,)),
    "DEQUANTIZE": (_dequantize, (1,)),
}
"""Reader and legal numbers of operands (any where empty) by TFLite operator."""


def read_operator(importer: Importer, operator: Operator) -> None:
    """Adds an operator to the graph.

    Raises:
        InputError: It is outside the table.
        GraphError: Its operands, options or weights are not what the IR can say.
    """
    if operator.name not in READERS:
        raise InputError(
            f"{operator.name} is not supported; supported are {', '.join(sorted(READERS))}",
            where=operator.where,
            hint="measure and evaluate run any file; passes want one made of the supported ops",
        )
    reader, counts = READERS[operator.name]
    if len(operator.outputs) != 1 or not operator.inputs:
        raise GraphError(
            f"it has {len(operator.inputs)} operands and {len(operator.outputs)} results"
        )
    if counts and len(operator.inputs) not in counts:
        wanted = " or ".join(map(str, counts))
        raise GraphError(f"it has {len(operator.inputs)} operands; wanted {wanted}")
    reader(importer, operator)


def _bias(importer: Importer, operator: Operator) -> dict[str, Weight]:
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
        return {}
    return {"bias": importer.weight(operator.inputs[2], "bias")}


def _channels(type: TensorType) -> int:
    if type.rank != 4 or type.shape[-1] is None:
        raise GraphError(f"its operand is {type}; wanted NHWC with known channels")
    return type.shape[-1]


def _pair(fields: Mapping[str, Any], height: str, width: str) -> tuple[int, int]:
    pair = (int(fields[height]), int(fields[width]))
    if min(pair) < 1:
        raise GraphError(f"its {height} and {width} are {pair}; wanted at least 1")
    return pair


def _dims(weight: Weight, rank: int) -> tuple[int, ...]:
    shape = tuple(d for d in weight.type.shape if d is not None)
    if len(shape) != rank:
        raise GraphError(f"its kernel is {weight.type}; wanted rank {rank}")
    return shape


def _moved(weight: Weight, order: tuple[int, ...]) -> Weight:
    _dims(weight, len(order))
    assert weight.array is not None
    quant = weight.type.quant
    if quant is not None and quant.axis is not None:
        quant = Quant(quant.scale, quant.zero_point, order.index(quant.axis))
    return Weight.of(np.transpose(weight.array, order), quant)


def _by_channel(weight: Weight, channels: int) -> Weight:
    _, height, width, filters = _dims(weight, 4)
    assert weight.array is not None
    array = weight.array.reshape(height, width, channels, filters // channels)
    quant = weight.type.quant
    if quant is None or quant.axis is None:
        return Weight.of(array, quant)
    grid = list(zip(quant.scale, quant.zero_point, strict=True))
    multiplier = filters // channels
    per_channel, per_multiplier = grid[::multiplier], grid[:multiplier]
    if quant.axis == 3 and grid == [pair for pair in per_channel for _ in range(multiplier)]:
        kept, axis = per_channel, 2
    elif quant.axis == 3 and grid == per_multiplier * channels:
        kept, axis = per_multiplier, 3
    else:
        raise GraphError("its kernel scales follow neither the channels nor the multiplier")
    return Weight.of(array, Quant(tuple(s for s, _ in kept), tuple(z for _, z in kept), axis))


def _no_activation(fields: Mapping[str, Any]) -> None:
    if fields["fusedActivationFunction"] != "none":
        raise GraphError(f"it has a fused {fields['fusedActivationFunction']}")


def _integers(importer: Importer, index: int, role: str) -> list[int]:
    stored = importer.weight(index, role)
    if stored.array is None or stored.type.dtype not in (DType.I32, DType.I64):
        raise GraphError(f"its {role} are {stored.type}; wanted whole numbers")
    return [int(k) for k in stored.array.reshape(-1)]
