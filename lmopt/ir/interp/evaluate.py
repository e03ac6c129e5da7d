"""Running a graph: every node once, in order, in the arithmetic its result type asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.interp.arrange import ARRANGE
from lmopt.ir.interp.call import Array, Call
from lmopt.ir.interp.floating import FLOAT
from lmopt.ir.interp.integer import EIGHT_BITS_ONLY, INTEGER
from lmopt.ir.types import DType, TensorType

_STORED = (DType.I8, DType.U8, DType.I16)
# what moves or converts stored integers works on any type
_COMPUTES = frozenset(INTEGER) - {"constant", "concat", "reshape", "quantize", *ARRANGE}


def run(
    graph: Graph, inputs: Mapping[str, ArrayLike], *, all_values: bool = False
) -> dict[str, Array]:
    """Returns what the graph computes for a batch of any size.

    Float nodes run in float32. Nodes whose result is on a grid run in the integer arithmetic of
    LiteRT's reference kernels, to the last bit.

    Args:
        graph: Every weight must have values.
        inputs: An array per input node, by name, in the input's element type (a real array
            becomes float32); inputs with a batch dimension have it first.
        all_values: Whether to return every value, keyed by its name without `%`, in place of the
            outputs, keyed by output name.

    Raises:
        GraphError: An input is missing, unknown or of another shape or type; a weight has no
            values; or a node has no integer arithmetic.
    """
    given = _checked_inputs(graph, inputs)
    values: dict[Value, Array] = {}
    for node in graph.nodes:
        if node.name in given:
            values[node.value] = given[node.name]
            continue
        operands = [values[value] for value in node.inputs]
        values[node.value] = compute(node, operands, graph.input_types(node))
    if all_values:
        return {str(value).removeprefix("%"): array for value, array in values.items()}
    return {name: values[value] for name, value in graph.outputs}


def has_arithmetic(node: Node) -> bool:
    """Returns whether `compute` knows an op with its result type."""
    kind, result = node.op.kind, node.results[0]
    if result.quant is None:
        return kind in FLOAT
    if result.dtype is DType.I16 and kind in EIGHT_BITS_ONLY:
        return False
    return kind in INTEGER and (result.dtype in _STORED or kind not in _COMPUTES)


def compute(node: Node, operands: Sequence[Array], types: tuple[TensorType, ...]) -> Array:
    """Returns what one node makes of its operands; see `run`.

    Raises:
        GraphError: A weight has no values, or the node has no arithmetic.
    """
    result = node.results[0]
    table = FLOAT if result.quant is None else INTEGER
    if node.op.kind not in table:
        raise GraphError(
            f"{node.op.kind} cannot be computed with a result of type {result}",
            where=f"%{node.name}",
            hint="fold-batchnorm removes batch_norm" if node.op.kind == "batch_norm" else None,
        )
    if not has_arithmetic(node):
        raise GraphError(
            f"{node.op.kind} on {result.dtype} has no arithmetic here",
            where=f"%{node.name}",
        )
    try:
        array = table[node.op.kind](Call(node, tuple(operands), types))
    except GraphError as error:
        if error.where is None:
            raise GraphError(error.what, where=f"%{node.name}", hint=error.hint) from error
        raise
    return np.asarray(array, result.dtype.numpy)


def _checked_inputs(graph: Graph, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
    wanted = {node.name: node.results[0] for node in graph.inputs}
    if set(inputs) != set(wanted):
        raise GraphError(
            f"inputs {sorted(inputs)} given, wanted {sorted(wanted)}", where=graph.name
        )
    checked = {}
    for name, type in wanted.items():
        array = np.asarray(inputs[name])
        if type.dtype.is_float and array.dtype.kind == "f":
            array = array.astype(type.dtype.numpy)
        fits = len(array.shape) == type.rank and all(
            want is None or got == want for got, want in zip(array.shape, type.shape, strict=True)
        )
        if not fits or array.dtype != type.dtype.numpy:
            raise GraphError(
                f"the input is {array.dtype}{list(array.shape)}, wanted {type}", where=f"%{name}"
            )
        checked[name] = array
    return checked
