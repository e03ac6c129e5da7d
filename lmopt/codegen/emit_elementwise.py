"""Emitters of element-wise ops: activations, normalization, sums and products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmopt.codegen.emit_convolution import ACTIVATIONS
from lmopt.codegen.writer import Array, Writer
from lmopt.ir.graph import Node
from lmopt.ir.ops import Add, BatchNorm, Div, LeakyRelu, Mul, Sub
from lmopt.ir.types import DType, Quant

Emitter = Callable[[Writer, Node], None]


def unary(
    name: str, *, int8: int = 1, uint8: int = 1, int16: int = 1, options: str | None = None
) -> Emitter:
    """Returns the emitter of an activation without parameters, given its integer versions."""

    def emit(writer: Writer, node: Node) -> None:
        version = writer.version(node, int8=int8, uint8=uint8, int16=int16)
        inputs = [writer.tensor(node.inputs[0])]
        writer.operator(name, version, inputs, writer.tensor(node.value), options)

    return emit


def softmax(writer: Writer, node: Node) -> None:
    """Writes SOFTMAX."""
    inputs, output = [writer.tensor(node.inputs[0])], writer.tensor(node.value)
    writer.operator("SOFTMAX", 1, inputs, output, "SoftmaxOptions", beta=1.0)


def leaky_relu(writer: Writer, node: Node) -> None:
    """Writes LEAKY_RELU."""
    op = node.op
    assert isinstance(op, LeakyRelu)
    inputs, output = [writer.tensor(node.inputs[0])], writer.tensor(node.value)
    version = writer.version(node, int16=2)
    writer.operator("LEAKY_RELU", version, inputs, output, "LeakyReluOptions", alpha=op.alpha)


def prelu(writer: Writer, node: Node) -> None:
    """Writes PRELU with alpha as [1, ..., channels]."""
    rank = writer.graph.type(node.inputs[0]).rank

    def layout(alpha: Array, quant: Quant | None) -> tuple[Array, Quant | None]:
        return alpha.reshape((1,) * (rank - 2) + alpha.shape), quant

    inputs = [writer.tensor(node.inputs[0]), writer.parameter(node, "alpha", layout)]
    writer.operator("PRELU", 1, inputs, writer.tensor(node.value))


def batch_norm(writer: Writer, node: Node) -> None:
    """Writes MUL and ADD with the statistics folded into one factor and one offset."""
    op = node.op
    assert isinstance(op, BatchNorm)
    gamma, beta, mean, variance = (
        node.weight(key).real().astype(np.float64) for key in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + op.epsilon)
    offset = beta - mean * factor
    scaled = writer.temporary(f"{node.name}/scaled", writer.graph.type(node.value))
    first = [
        writer.tensor(node.inputs[0]),
        writer.constant(f"{node.name}/factor", factor.astype(np.float32)),
    ]
    writer.operator("MUL", 1, first, scaled, "MulOptions")
    second = [scaled, writer.constant(f"{node.name}/offset", offset.astype(np.float32))]
    writer.operator("ADD", 1, second, writer.tensor(node.value), "AddOptions")


def add(writer: Writer, node: Node) -> None:
    """Writes ADD."""
    op = node.op
    assert isinstance(op, Add)
    version = writer.version(node, int8=2, int16=3)
    _binary(writer, node, "ADD", op.activation, version, potScaleInt16=_pot_scale(writer, node))


def sub(writer: Writer, node: Node) -> None:
    """Writes SUB."""
    op = node.op
    assert isinstance(op, Sub)
    version = writer.version(node, int8=2, int16=5)
    _binary(writer, node, "SUB", op.activation, version, potScaleInt16=_pot_scale(writer, node))


def mul(writer: Writer, node: Node) -> None:
    """Writes MUL; version 3 where the rescaling factor is not below 1."""
    op = node.op
    assert isinstance(op, Mul)
    version = writer.version(node, int8=2, int16=4)
    left, right = (writer.graph.type(value).quant for value in node.inputs)
    result = writer.graph.type(node.value).quant
    if (
        version < 3
        and left is not None
        and right is not None
        and result is not None
        and left.scale[0] * right.scale[0] >= result.scale[0]
    ):
        version = 3
    _binary(writer, node, "MUL", op.activation, version)


def div(writer: Writer, node: Node) -> None:
    """Writes DIV."""
    op = node.op
    assert isinstance(op, Div)
    _binary(writer, node, "DIV", op.activation, 1)


def extreme(name: str) -> Emitter:
    """Returns the emitter of MAXIMUM or MINIMUM."""

    def emit(writer: Writer, node: Node) -> None:
        inputs, output = [writer.tensor(v) for v in node.inputs], writer.tensor(node.value)
        version = writer.version(node, int8=2, int16=4)
        writer.operator(name, version, inputs, output, "MaximumMinimumOptions")

    return emit


def _pot_scale(writer: Writer, node: Node) -> bool:
    """Returns the schema's default but for 16 bits, whose scales are no powers of two here."""
    return writer.graph.type(node.value).dtype is not DType.I16


def _binary(
    writer: Writer, node: Node, name: str, activation: str, version: int, **fields: object
) -> None:
    writer.operator(
        name,
        version,
        [writer.tensor(value) for value in node.inputs],
        writer.tensor(node.value),
        f"{name.title()}Options",
        fusedActivationFunction=ACTIVATIONS[activation],
        **fields,
    )
