"""The verifier: what must hold of every graph, checked whenever an edit is done."""

from __future__ import annotations

from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import Constant, Dequantize, Input, Quantize
from lmopt.ir.types import DType, TensorType


def verify(graph: Graph) -> None:
    """Checks names, order, shapes, weights and grids of a graph.

    Raises:
        GraphError: The first thing that does not hold, at its node.
    """
    seen: dict[Value, TensorType] = {}
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            raise GraphError("two nodes share this name", where=f"%{node.name}")
        names.add(node.name)
        for value in node.inputs:
            if value not in seen:
                raise GraphError(f"operand {value} is not defined before it", where=f"%{node.name}")
        _verify_node(node, tuple(seen[value] for value in node.inputs))
        seen.update({Value(node.name, k): t for k, t in enumerate(node.results)})
    if not graph.outputs:
        raise GraphError("a graph needs at least one output", where=graph.name)
    for name, value in graph.outputs:
        if value not in seen:
            raise GraphError(f"output '{name}' is {value}, which does not exist", where=graph.name)
    if len({name for name, _ in graph.outputs}) != len(graph.outputs):
        raise GraphError("two outputs share a name", where=graph.name)


def _verify_node(node: Node, operands: tuple[TensorType, ...]) -> None:
    where = f"%{node.name}"
    if isinstance(node.op, Input):
        if len(node.results) != 1 or node.inputs:
            raise GraphError("an input has one result and no operands", where=where)
        return
    try:
        inferred = node.op.infer(operands)
        shapes = node.op.params(operands)
    except GraphError as error:
        raise GraphError(error.what, where=where, hint=error.hint) from error
    if [t.shape for t in inferred] != [t.shape for t in node.results]:
        raise GraphError(
            f"results {[str(t) for t in node.results]} should have the shapes of "
            f"{[str(t) for t in inferred]}",
            where=where,
        )
    if set(node.weights) != set(shapes):
        raise GraphError(
            f"weights {sorted(node.weights)} where {node.op.kind} wants {sorted(shapes)}",
            where=where,
        )
    for key, shape in shapes.items():
        if node.weights[key].type.shape != shape:
            raise GraphError(
                f"weight '{key}' is {node.weights[key].type}, wanted shape {list(shape)}",
                where=where,
            )
    _verify_grids(node, operands)


def _verify_grids(node: Node, operands: tuple[TensorType, ...]) -> None:
    where = f"%{node.name}"
    result = node.results[0]
    for tensor in (*operands, *node.results):
        if tensor.quant is None and tensor.dtype in (DType.I8, DType.U8, DType.I16):
            raise GraphError(f"{tensor.dtype} without a scale and zero point", where=where)
        if tensor.quant is not None and tensor.quant.axis is not None:
            raise GraphError("an activation has one scale, not one per channel", where=where)
    if isinstance(node.op, Quantize):
        if result.quant is None:
            raise GraphError(f"quantize must give a grid, got {result}", where=where)
        return
    if isinstance(node.op, Dequantize):
        if operands[0].dtype is DType.F32:
            raise GraphError("dequantize of a float32 value", where=where)
        return
    if isinstance(node.op, Constant):
        return
    kinds = {tensor.dtype for tensor in (*operands, result)}
    if len(kinds) != 1:
        raise GraphError(
            f"{node.op.kind} mixes {', '.join(sorted(kinds))}; put quantize or dequantize between",
            where=where,
        )
    if node.op.keeps_grid and any(tensor.quant != result.quant for tensor in operands):
        raise GraphError(f"{node.op.kind} must keep the grid of its operands", where=where)
    if result.quant is not None:
        _verify_integer_weights(node, operands[0])


def _verify_integer_weights(node: Node, operand: TensorType) -> None:
    kernel, bias = node.weights.get("kernel"), node.weights.get("bias")
    for key, weight in node.weights.items():
        if weight.type.quant is None:
            raise GraphError(
                f"weight '{key}' is {weight.type} in a quantized node", where=f"%{node.name}"
            )
    if kernel is None or bias is None or operand.quant is None:
        return
    weight_quant, bias_quant = kernel.type.quant, bias.type.quant
    assert weight_quant is not None and bias_quant is not None
    want = [operand.quant.scale[0] * scale for scale in weight_quant.scale]
    if len(want) != len(bias_quant.scale) or any(
        abs(got - scale) > 1e-5 * scale for got, scale in zip(bias_quant.scale, want, strict=True)
    ):
        raise GraphError(
            "the bias scale must be operand scale times kernel scale", where=f"%{node.name}"
        )
