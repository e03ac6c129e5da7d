"""A graph being built from a TFLite file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError, InputError
from lmopt.frontend.tflite_file import Operator, TfliteFile
from lmopt.ir import ops
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.types import DType, TensorType, Weight

Numbers = NDArray[Any]
"""Whole numbers known while a file is read; None where the open batch decides."""


def options_of(operator: Operator, kind: str) -> Mapping[str, Any]:
    """Returns an operator's option fields.

    Raises:
        GraphError: It has none, or those of another operator.
    """
    got, fields = operator.options
    if got != kind:
        raise GraphError(f"its options are {got}; wanted {kind}")
    return fields


def shortest(value: float) -> float:
    """Returns the shortest number that rounds to a float32: files hold no more of what was meant.

    >>> shortest(0.10000000149011612)
    0.1
    """
    return float(str(np.float32(value)))


@dataclass(frozen=True)
class Spread:
    """A picture whose pixels were spread over the batch, in steps of `block`, after padding."""

    value: Value
    block: tuple[int, int]
    paddings: tuple[int, int, int, int]


@dataclass(frozen=True)
class SpreadConvolution:
    """A convolution of a spread picture, which waits for BATCH_TO_SPACE_ND."""

    spread: Spread
    op: ops.Conv2D | ops.DepthwiseConv2D
    weights: Mapping[str, Weight]


class Importer:
    """A graph being built from a file: which tensor has become which value."""

    def __init__(self, file: TfliteFile, where: str) -> None:
        self.file = file
        self.where = where
        self.edit = Edit(file.name)
        self._values: dict[int, Value] = {}
        self._types: dict[Value, TensorType] = {}
        self._halves: dict[int, int] = {}
        self._numbers: dict[int, Numbers] = {}
        self.spreads: dict[int, Spread] = {}
        self.spread_convolutions: dict[int, SpreadConvolution] = {}
        for name, index in file.inputs:
            type = file.tensor(index).type
            if type.rank == 0 or None in type.shape[1:]:
                raise InputError(
                    f"input '{name}' is {type}; wanted an open batch only", where=where
                )
            self._define(index, Node(name, ops.Input(), (), (type,)))

    def graph(self) -> Graph:
        """Returns the graph once every operator is in."""
        for name, index in self.file.outputs:
            self.edit.output(name, self.value(index))
        return self.edit.done()

    def value(self, index: int) -> Value:
        """Returns the value of a tensor, which becomes a constant node when it has values."""
        if index not in self._values:
            stored = self.constant(index)
            if stored is None:
                if index in self.spreads or index in self.spread_convolutions:
                    raise GraphError(
                        f"tensor '{self._label(index)}' is spread over the batch; wanted a "
                        "convolution and then BATCH_TO_SPACE_ND"
                    )
                raise GraphError(f"tensor '{self._label(index)}' is used before it is computed")
            type = (
                stored.type if stored.type.dtype is not DType.F16 else self.file.tensor(index).type
            )
            op = ops.Constant(tuple(d for d in stored.type.shape if d is not None))
            node = Node(self._name(index), op, (), (type,), {"value": stored})
            self._define(index, node)
        return self._values[index]

    def constant(self, index: int) -> Weight | None:
        """Returns a tensor's stored values; those of float16 come as they are in the file."""
        if index < 0:
            return None
        tensor = self.file.tensor(self._halves.get(index, index))
        return None if tensor.data is None else Weight.of(tensor.data, tensor.type.quant)

    def weight(self, index: int, role: str) -> Weight:
        """Returns a tensor's stored values.

        Raises:
            GraphError: It is computed, not stored.
        """
        stored = self.constant(index)
        if stored is None:
            raise GraphError(f"its {role} '{self._label(index)}' is computed; wanted a stored one")
        return stored

    def type(self, value: Value) -> TensorType:
        """Returns the type of a value."""
        return self._types[value]

    def halves(self, source: int, result: int) -> None:
        """Notes that a tensor is the float32 form of a stored float16 one."""
        self._halves[result] = source

    def know(self, index: int, numbers: Numbers) -> None:
        """Notes the whole numbers that a tensor will hold."""
        self._numbers[index] = numbers

    def numbers(self, index: int, role: str) -> Numbers:
        """Returns the whole numbers of a tensor, stored or computed from shapes.

        Raises:
            GraphError: They depend on more than shapes.
        """
        if index not in self._numbers:
            stored = self.weight(index, role)
            if stored.array is None or stored.type.dtype not in (DType.I32, DType.I64):
                raise GraphError(f"its {role} is {stored.type}; wanted whole numbers")
            self._numbers[index] = stored.array.astype(object)
        return self._numbers[index]

    def integers(self, index: int, role: str) -> list[int | None]:
        """Returns the whole numbers of a tensor as a list; None is the open batch."""
        return [None if k is None else int(k) for k in self.numbers(index, role).reshape(-1)]

    def known(self, index: int, role: str) -> list[int]:
        """Returns the whole numbers of a tensor, or raises GraphError where the batch decides."""
        found = self.integers(index, role)
        if None in found:
            raise GraphError(f"its {role} is {found}; wanted numbers without the batch's")
        return [k for k in found if k is not None]

    def insert(
        self,
        stem: str,
        op: ops.Op,
        *inputs: Value,
        weights: Mapping[str, Weight] | None = None,
    ) -> Value:
        """Returns the result of a node that the file has no tensor for."""
        type = op.infer([self._types[value] for value in inputs])[0]
        result = self.edit.put(Node(self.edit.fresh(stem), op, inputs, (type,), weights or {}))
        self._types[result] = type
        return result

    def number(self, operator: Operator, value: float) -> Value:
        """Returns a constant node that holds one number."""
        stored = Weight.of(np.array(value, np.float32))
        stem = f"{self._name(operator.outputs[0])}/number"
        return self.insert(stem, ops.Constant(()), weights={"value": stored})

    def add_activated(
        self, operator: Operator, op: ops.Op, inputs: Sequence[Value], activation: str
    ) -> None:
        """Adds an operator whose fused activation the IR's op does not have."""
        after: Mapping[str, ops.Op] = {"relu": ops.Relu(), "relu6": ops.Relu6()}
        if activation == "none":
            self.add(operator, op, inputs)
            return
        stem = f"{self._name(operator.outputs[0])}/linear"
        self.add(operator, after[activation], [self.insert(stem, op, *inputs)])

    def add(
        self,
        operator: Operator,
        op: ops.Op,
        inputs: Sequence[Value],
        weights: Mapping[str, Weight] | None = None,
        output: int = 0,
    ) -> None:
        """Adds the node of an operator; its type comes from the file, its shape must fit."""
        index = operator.outputs[output]
        stated = self.file.tensor(index).type
        inferred = op.infer([self._types[value] for value in inputs])[0]
        fits = len(stated.shape) == len(inferred.shape) and all(
            got is None or want is None or got == want
            for got, want in zip(stated.shape, inferred.shape, strict=True)
        )
        if not fits:
            raise GraphError(f"its result is {stated} in the file; wanted the shape of {inferred}")
        for key, weight in (weights or {}).items():
            if weight.type.dtype.is_float != stated.dtype.is_float:
                raise GraphError(
                    f"it mixes {key} of {weight.type} with values of {stated.dtype}",
                    hint="kernels alone are quantized (dynamic range): convert again without "
                    "optimizations",
                )
        type = stated.with_shape(inferred.shape)
        self._define(index, Node(self._name(index), op, tuple(inputs), (type,), weights or {}))

    def _define(self, index: int, node: Node) -> None:
        if index in self._values:
            raise GraphError(f"tensor '{self._label(index)}' is computed twice")
        self._values[index] = self.edit.put(node)
        self._types[node.value] = node.results[0]

    def _label(self, index: int) -> str:
        return "(none)" if index < 0 else self.file.tensor_name(index)

    def _name(self, index: int) -> str:
        # A converter joins the names of all layers it merged with ';'.
        name = re.sub(r"[^A-Za-z0-9_.@/+-]", "_", self._label(index).split(";")[0])
        return self.edit.fresh(re.sub(r"^[^A-Za-z0-9_]+", "", name) or f"tensor_{index}")
