"""Readers of TFLite operators with a kernel, and of the dilation converters spell in batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lmopt.errors import GraphError
from lmopt.frontend.tflite_file import Operator
from lmopt.frontend.tflite_importer import Importer, Spread, SpreadConvolution, options_of
from lmopt.ir import ops
from lmopt.ir.graph import Value
from lmopt.ir.types import Quant, TensorType, Weight


def conv2d(importer: Importer, operator: Operator) -> None:
    """Reads CONV_2D; fewer input channels in the kernel than in the operand make groups."""
    fields = options_of(operator, "Conv2DOptions")
    x, spread = _source(importer, operator)
    stored = importer.weight(operator.inputs[1], "kernel")
    kernel = _moved(stored, (1, 2, 3, 0))
    height, width, inner, filters = _dims(kernel, 4)
    channels = _channels(importer.type(x))
    if channels % inner:
        raise GraphError(f"its kernel takes {inner} channels of {channels}")
    bias = _bias(importer, operator, 2)
    op = ops.Conv2D(
        filters,
        (height, width),
        pair(fields, "strideH", "strideW"),
        pair(fields, "dilationHFactor", "dilationWFactor"),
        fields["padding"],
        channels // inner,
        bool(bias),
        fields["fusedActivationFunction"],
    )
    _add(importer, operator, op, x, {"kernel": kernel, **bias}, spread)


def depthwise_conv2d(importer: Importer, operator: Operator) -> None:
    """Reads DEPTHWISE_CONV_2D."""
    fields = options_of(operator, "DepthwiseConv2DOptions")
    x, spread = _source(importer, operator)
    stored = importer.weight(operator.inputs[1], "kernel")
    _, height, width, filters = _dims(stored, 4)
    channels = _channels(importer.type(x))
    if filters % channels:
        raise GraphError(f"its kernel has {filters} channels for {channels}")
    bias = _bias(importer, operator, 2)
    op = ops.DepthwiseConv2D(
        (height, width),
        pair(fields, "strideH", "strideW"),
        pair(fields, "dilationHFactor", "dilationWFactor"),
        fields["padding"],
        filters // channels,
        bool(bias),
        fields["fusedActivationFunction"],
    )
    _add(importer, operator, op, x, {"kernel": _by_channel(stored, channels), **bias}, spread)


def conv2d_transpose(importer: Importer, operator: Operator) -> None:
    """Reads TRANSPOSE_CONV whose result is as large as its padding says."""
    fields = options_of(operator, "TransposeConvOptions")
    x = importer.value(operator.inputs[2])
    kernel = _moved(importer.weight(operator.inputs[1], "kernel"), (1, 2, 3, 0))
    height, width, inner, filters = _dims(kernel, 4)
    if inner != _channels(importer.type(x)):
        raise GraphError(f"its kernel takes {inner} channels of {_channels(importer.type(x))}")
    bias = _bias(importer, operator, 3)
    op = ops.Conv2DTranspose(
        filters,
        (height, width),
        pair(fields, "strideH", "strideW"),
        fields["padding"],
        bool(bias),
        fields["fusedActivationFunction"],
    )
    wanted = importer.integers(operator.inputs[0], "output shape")
    given = op.infer([importer.type(x)])[0].shape
    if wanted[1:] != list(given[1:]):
        raise GraphError(
            f"its output shape is {wanted[1:]}; {op.padding} padding gives {list(given[1:])}"
        )
    importer.add(operator, op, [x], {"kernel": kernel, **bias})


def dense(importer: Importer, operator: Operator) -> None:
    """Reads FULLY_CONNECTED; where it flattens by itself a reshape comes before it."""
    fields = options_of(operator, "FullyConnectedOptions")
    if fields["weightsFormat"]:
        raise GraphError("its weights are in a shuffled format")
    x = importer.value(operator.inputs[0])
    kernel = _moved(importer.weight(operator.inputs[1], "kernel"), (1, 0))
    features, units = _dims(kernel, 2)
    if importer.type(x).rank > 2 and not fields["keepNumDims"]:
        x = importer.insert(f"{x.node}/flat", ops.Reshape((features,)), x)
    bias = _bias(importer, operator, 2)
    op = ops.Dense(units, bool(bias), fields["fusedActivationFunction"])
    importer.add(operator, op, [x], {"kernel": kernel, **bias})


def space_to_batch(importer: Importer, operator: Operator) -> None:
    """Notes SPACE_TO_BATCH_ND, the first third of a dilated convolution."""
    x = importer.value(operator.inputs[0])
    block = importer.known(operator.inputs[1], "block")
    paddings = importer.known(operator.inputs[2], "paddings")
    if importer.type(x).rank != 4 or len(block) != 2 or len(paddings) != 4:
        raise GraphError(f"its block is {block}; wanted height and width of an NHWC tensor")
    margins = (paddings[0], paddings[1], paddings[2], paddings[3])
    importer.spreads[operator.outputs[0]] = Spread(x, (block[0], block[1]), margins)


def batch_to_space(importer: Importer, operator: Operator) -> None:
    """Reads BATCH_TO_SPACE_ND as the end of a dilated convolution."""
    found = importer.spread_convolutions.pop(operator.inputs[0], None)
    if found is None:
        raise GraphError("it follows no convolution of a SPACE_TO_BATCH_ND")
    block = importer.known(operator.inputs[1], "block")
    crops = importer.known(operator.inputs[2], "crops")
    if list(found.spread.block) != block or len(crops) != 4:
        raise GraphError(f"its block is {block}, that of SPACE_TO_BATCH_ND {found.spread.block}")
    # With stride 1 and no padding of its own, a row cut off behind is a row not padded before.
    top, bottom, left, right = (
        padding - crop for padding, crop in zip(found.spread.paddings, crops, strict=True)
    )
    op, x = replace(found.op, dilation=found.spread.block, padding="same"), found.spread.value
    missing = [(k - 1) * d for k, d in zip(op.kernel, op.dilation, strict=True)]
    same = [(m // 2, m - m // 2) for m in missing]
    if [(top, bottom), (left, right)] != same:
        op = replace(op, padding="valid")
        if min(top, bottom, left, right) < 0:
            raise GraphError(f"its crops {crops} go beyond the paddings {found.spread.paddings}")
        if any((top, bottom, left, right)):
            x = importer.insert(f"{x.node}/padded", ops.Pad(top, bottom, left, right), x)
    importer.add(operator, op, [x], found.weights)


def _source(importer: Importer, operator: Operator) -> tuple[Value, Spread | None]:
    spread = importer.spreads.get(operator.inputs[0])
    return (importer.value(operator.inputs[0]), None) if spread is None else (spread.value, spread)


def _add(
    importer: Importer,
    operator: Operator,
    op: ops.Conv2D | ops.DepthwiseConv2D,
    x: Value,
    weights: Mapping[str, Weight],
    spread: Spread | None,
) -> None:
    if spread is None:
        importer.add(operator, op, [x], weights)
        return
    if (op.stride, op.dilation, op.padding) != ((1, 1), (1, 1), "valid"):
        raise GraphError(f"between SPACE_TO_BATCH_ND and back it is {op}; wanted a plain valid one")
    found = SpreadConvolution(spread, op, weights)
    importer.spread_convolutions[operator.outputs[0]] = found


def pair(fields: Mapping[str, Any], height: str, width: str) -> tuple[int, int]:
    """Returns two option fields as whole numbers above 0, or raises GraphError."""
    found = (int(fields[height]), int(fields[width]))
    if min(found) < 1:
        raise GraphError(f"its {height} and {width} are {found}; wanted at least 1")
    return found


def _bias(importer: Importer, operator: Operator, position: int) -> dict[str, Weight]:
    if len(operator.inputs) <= position or operator.inputs[position] < 0:
        return {}
    return {"bias": importer.weight(operator.inputs[position], "bias")}


def _channels(type: TensorType) -> int:
    if type.rank != 4 or type.shape[-1] is None:
        raise GraphError(f"its operand is {type}; wanted NHWC with known channels")
    return type.shape[-1]


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
