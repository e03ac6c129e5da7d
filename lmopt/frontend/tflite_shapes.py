"""Whole numbers that a TFLite file computes from shapes, worked out while it is read.

Converters leave the batch open and compute the shapes that operators are given: SHAPE, a slice of
it, PACK with numbers. Nothing of it stays in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lmopt.errors import GraphError
from lmopt.frontend.tflite_file import Operator
from lmopt.frontend.tflite_importer import Importer, Numbers, options_of

Folder = Callable[[Importer, Operator], Numbers]


def _shape(importer: Importer, operator: Operator) -> Numbers:
    return np.array(importer.type(importer.value(operator.inputs[0])).shape, object)


def _pack(importer: Importer, operator: Operator) -> Numbers:
    axis = int(options_of(operator, "PackOptions")["axis"])
    return np.stack([importer.numbers(k, "number") for k in operator.inputs], axis)


def _concat(importer: Importer, operator: Operator) -> Numbers:
    return np.concatenate([importer.numbers(k, "number") for k in operator.inputs])


def _slice(importer: Importer, operator: Operator) -> Numbers:
    source = importer.numbers(operator.inputs[0], "source")
    fields = options_of(operator, "StridedSliceOptions")
    begin, end, stride = (
        importer.known(k, role)
        for k, role in zip(operator.inputs[1:], ("begin", "end", "stride"), strict=True)
    )
    if source.ndim != 1 or len(begin) != 1 or fields["ellipsisMask"] or fields["newAxisMask"]:
        raise GraphError("its numbers are no plain list")
    if fields["shrinkAxisMask"]:
        return np.asarray(source[begin[0]])
    first = None if fields["beginMask"] else begin[0]
    last = None if fields["endMask"] else end[0]
    return source[first : last : stride[0]]


def _arithmetic(compute: Callable[[int, int], int]) -> Folder:
    lifted = np.frompyfunc(lambda a, b: None if a is None or b is None else compute(a, b), 2, 1)

    def fold(importer: Importer, operator: Operator) -> Numbers:
        left, right = (importer.numbers(k, "number") for k in operator.inputs)
        return np.asarray(lifted(left, right), object)

    return fold


def _product(importer: Importer, operator: Operator) -> Numbers:
    factors: list[Any] = importer.numbers(operator.inputs[0], "factors").reshape(-1).tolist()
    return np.array(None if None in factors else math.prod(factors), object)


def _same(importer: Importer, operator: Operator) -> Numbers:
    source = importer.numbers(operator.inputs[0], "number")
    shape = importer.file.tensor(operator.outputs[0]).type.shape
    return source.reshape([-1 if d is None else d for d in shape])


FOLDERS: Mapping[str, Folder] = {
    "SHAPE": _shape,
    "PACK": _pack,
    "CONCATENATION": _concat,
    "STRIDED_SLICE": _slice,
    "ADD": _arithmetic(lambda a, b: a + b),
    "SUB": _arithmetic(lambda a, b: a - b),
    "MUL": _arithmetic(lambda a, b: a * b),
    "REDUCE_PROD": _product,
    "RESHAPE": _same,
    "SQUEEZE": _same,
    "EXPAND_DIMS": _same,
    "CAST": _same,
}
"""What computes the numbers of each operator; None stands for the batch."""
