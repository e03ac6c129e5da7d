"""TFLite operators to IR nodes: one table, one small reader per op family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lmopt.errors import GraphError, InputError
from lmopt.frontend import tflite_arrangement as arrangement
from lmopt.frontend import tflite_convolution as convolution
from lmopt.frontend.tflite_file import Operator
from lmopt.frontend.tflite_importer import Importer, options_of, shortest
from lmopt.frontend.tflite_shapes import FOLDERS
from lmopt.ir import ops
from lmopt.ir.types import DType, Weight

Reader = Callable[[Importer, Operator], None]


def _binary(make: Callable[[Any], ops.Op], kind: str) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        fields = options_of(operator, kind)
        inputs = [importer.value(k) for k in operator.inputs]
        if fields.get("potScaleInt16") and importer.type(inputs[0]).dtype is DType.I16:
            raise GraphError("it adds 16-bit values on scales that are powers of two")
        importer.add(operator, make(fields["fusedActivationFunction"]), inputs)

    return read


def _unary(op: ops.Op) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        importer.add(operator, op, [importer.value(operator.inputs[0])])

    return read


def _leaky_relu(importer: Importer, operator: Operator) -> None:
    alpha = float(options_of(operator, "LeakyReluOptions")["alpha"])
    importer.add(operator, ops.LeakyRelu(shortest(alpha)), [importer.value(operator.inputs[0])])


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
        size = convolution.pair(fields, "filterHeight", "filterWidth")
        stride = convolution.pair(fields, "strideH", "strideW")
        op = make(size, stride, fields["padding"])
        x = importer.value(operator.inputs[0])
        importer.add_activated(operator, op, [x], fields["fusedActivationFunction"])

    return read


def _mean(importer: Importer, operator: Operator) -> None:
    axes, keep = _reduced(importer, operator)
    x = importer.value(operator.inputs[0])
    shape = importer.type(x).shape
    if len(shape) == 4 and axes == (1, 2):
        importer.add(operator, ops.Mean(keep), [x])
        return
    total = importer.insert(f"{x.node}/sum", ops.Sum(axes, keep), x)
    count = int(np.prod([shape[axis] or 1 for axis in axes]))
    importer.add(operator, ops.Mul(), [total, importer.number(operator, 1 / count)])


def _sum(importer: Importer, operator: Operator) -> None:
    axes, keep = _reduced(importer, operator)
    importer.add(operator, ops.Sum(axes, keep), [importer.value(operator.inputs[0])])


def _reduce_max(importer: Importer, operator: Operator) -> None:
    axes, keep = _reduced(importer, operator)
    x = importer.value(operator.inputs[0])
    shape = importer.type(x).shape
    if len(shape) != 4 or axes != (1, 2):
        raise GraphError(f"it takes the maximum over {list(axes)}; wanted height and width")
    size = (shape[1] or 1, shape[2] or 1)
    if keep:
        importer.add(operator, ops.MaxPool2D(size, size), [x])
        return
    largest = importer.insert(f"{x.node}/largest", ops.MaxPool2D(size, size), x)
    importer.add(operator, ops.Reshape((-1,)), [largest])


def _reduced(importer: Importer, operator: Operator) -> tuple[tuple[int, ...], bool]:
    """Returns the dimensions that a reduction runs over, from the front, and whether they stay."""
    rank = importer.type(importer.value(operator.inputs[0])).rank
    axes = importer.known(operator.inputs[1], "axes")
    if any(not -rank <= axis < rank for axis in axes):
        raise GraphError(f"its axes are {axes} of a tensor of rank {rank}")
    keep = bool(options_of(operator, "ReducerOptions")["keepDims"])
    return tuple(sorted({axis % rank for axis in axes})), keep


def _softmax(importer: Importer, operator: Operator) -> None:
    beta = float(options_of(operator, "SoftmaxOptions")["beta"])
    x = importer.value(operator.inputs[0])
    if beta != 1:
        x = importer.insert(f"{x.node}/scaled", ops.Mul(), x, importer.number(operator, beta))
    importer.add(operator, ops.Softmax(), [x])


def _extreme(op: ops.Op) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        importer.add(operator, op, [importer.value(k) for k in operator.inputs])

    return read


def _clipped(low: float, high: float) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        x = importer.value(operator.inputs[0])
        least, most = (importer.number(operator, end) for end in (low, high))
        cut = importer.insert(f"{x.node}/cut", ops.Maximum(), x, least)
        importer.add(operator, ops.Minimum(), [cut, most])

    return read


def _negative(importer: Importer, operator: Operator) -> None:
    x = importer.value(operator.inputs[0])
    importer.add(operator, ops.Mul(), [x, importer.number(operator, -1.0)])


def _squared_difference(importer: Importer, operator: Operator) -> None:
    left, right = (importer.value(k) for k in operator.inputs)
    difference = importer.insert(f"{left.node}/difference", ops.Sub(), left, right)
    importer.add(operator, ops.Square(), [difference])


def _resize(make: type[ops.ResizeBilinear | ops.ResizeNearest], kind: str) -> Reader:
    def read(importer: Importer, operator: Operator) -> None:
        fields = options_of(operator, kind)
        size = importer.known(operator.inputs[1], "size")
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
    "CONV_2D": (convolution.conv2d, (2, 3)),
    "DEPTHWISE_CONV_2D": (convolution.depthwise_conv2d, (2, 3)),
    "TRANSPOSE_CONV": (convolution.conv2d_transpose, (3, 4)),
    "SPACE_TO_BATCH_ND": (convolution.space_to_batch, (3,)),
    "BATCH_TO_SPACE_ND": (convolution.batch_to_space, (3,)),
    "FULLY_CONNECTED": (convolution.dense, (2, 3)),
    "RELU": (_unary(ops.Relu()), (1,)),
    "RELU6": (_unary(ops.Relu6()), (1,)),
    "RELU_N1_TO_1": (_clipped(-1.0, 1.0), (1,)),
    "RELU_0_TO_1": (_clipped(0.0, 1.0), (1,)),
    "LEAKY_RELU": (_leaky_relu, (1,)),
    "PRELU": (_prelu, (2,)),
    "LOGISTIC": (_unary(ops.Sigmoid()), (1,)),
    "TANH": (_unary(ops.Tanh()), (1,)),
    "HARD_SWISH": (_unary(ops.HardSwish()), (1,)),
    "SOFTMAX": (_softmax, (1,)),
    "EXP": (_unary(ops.Exp()), (1,)),
    "SQRT": (_unary(ops.Sqrt()), (1,)),
    "RSQRT": (_unary(ops.Rsqrt()), (1,)),
    "SQUARE": (_unary(ops.Square()), (1,)),
    "ABS": (_unary(ops.Abs()), (1,)),
    "NEG": (_negative, (1,)),
    "ADD": (_binary(ops.Add, "AddOptions"), (2,)),
    "SUB": (_binary(ops.Sub, "SubOptions"), (2,)),
    "MUL": (_binary(ops.Mul, "MulOptions"), (2,)),
    "DIV": (_binary(ops.Div, "DivOptions"), (2,)),
    "SQUARED_DIFFERENCE": (_squared_difference, (2,)),
    "MAXIMUM": (_extreme(ops.Maximum()), (2,)),
    "MINIMUM": (_extreme(ops.Minimum()), (2,)),
    "MAX_POOL_2D": (_pool2d(ops.MaxPool2D), (1,)),
    "AVERAGE_POOL_2D": (_pool2d(ops.AvgPool2D), (1,)),
    "MEAN": (_mean, (2,)),
    "SUM": (_sum, (2,)),
    "REDUCE_MAX": (_reduce_max, (2,)),
    "CONCATENATION": (arrangement.concat, ()),
    "PACK": (arrangement.pack, ()),
    "RESHAPE": (arrangement.reshape, (1, 2)),
    "SQUEEZE": (arrangement.reshape, (1,)),
    "EXPAND_DIMS": (arrangement.reshape, (2,)),
    "STRIDED_SLICE": (arrangement.strided_slice, (4,)),
    "SLICE": (arrangement.plain_slice, (3,)),
    "SPLIT": (arrangement.split, (2,)),
    "SPLIT_V": (arrangement.split_v, (3,)),
    "UNPACK": (arrangement.unpack, (1,)),
    "TRANSPOSE": (arrangement.transpose, (2,)),
    "PAD": (arrangement.pad, (2,)),
    "PADV2": (arrangement.pad, (3,)),
    "MIRROR_PAD": (arrangement.mirror_pad, (2,)),
    "SPACE_TO_DEPTH": (arrangement.blocks(ops.SpaceToDepth, "SpaceToDepthOptions"), (1,)),
    "DEPTH_TO_SPACE": (arrangement.blocks(ops.DepthToSpace, "DepthToSpaceOptions"), (1,)),
    "RESIZE_BILINEAR": (_resize(ops.ResizeBilinear, "ResizeBilinearOptions"), (2,)),
    "RESIZE_NEAREST_NEIGHBOR": (
        _resize(ops.ResizeNearest, "ResizeNearestNeighborOptions"),
        (2,),
    ),
    "QUANTIZE": (_unary(ops.Quantize()), (1,)),
    "DEQUANTIZE": (_dequantize, (1,)),
}
"""Reader and legal numbers of operands (any where empty) by TFLite operator."""
_SPLITTING = frozenset({"SPLIT", "SPLIT_V", "UNPACK"})


def read_operator(importer: Importer, operator: Operator) -> None:
    """Adds an operator to the graph.

    Raises:
        InputError: It is outside the table.
        GraphError: Its operands, options or weights are not what the IR can say.
    """
    if operator.name in FOLDERS and _gives_numbers(importer, operator):
        importer.know(operator.outputs[0], FOLDERS[operator.name](importer, operator))
        return
    if operator.name not in READERS:
        raise InputError(
            f"{operator.name} is not supported; supported are {', '.join(sorted(READERS))}",
            where=operator.where,
            hint=cut_hint(importer, operator),
        )
    reader, counts = READERS[operator.name]
    results = len(operator.outputs)
    if not operator.inputs or not results or (results > 1 and operator.name not in _SPLITTING):
        raise GraphError(f"it has {len(operator.inputs)} operands and {results} results")
    if counts and len(operator.inputs) not in counts:
        wanted = " or ".join(map(str, counts))
        raise GraphError(f"it has {len(operator.inputs)} operands; wanted {wanted}")
    reader(importer, operator)


def cut_hint(importer: Importer, operator: Operator) -> str:
    """Returns how to get a model that ends before an operator."""
    file = importer.file
    given = [k for k in operator.inputs if k >= 0 and file.tensor(k).data is None]
    names = " and ".join(f"'{file.tensor_name(k)}'" for k in given) or "what it reads"
    return (
        f"cut the model there: convert it again with {names} as output and do the rest in your "
        "program; measure and evaluate run the file as it is"
    )


def _gives_numbers(importer: Importer, operator: Operator) -> bool:
    types = [importer.file.tensor(k).type.dtype for k in operator.outputs]
    return len(types) == 1 and types[0] in (DType.I32, DType.I64)
