"""What LiteRT would refuse, found before a byte is written."""

from __future__ import annotations

from collections.abc import Mapping

from lmopt.errors import BackendError, GraphError
from lmopt.ir.graph import Graph, Node
from lmopt.ir.interp.integer import EIGHT_BITS_ONLY
from lmopt.ir.ops import Constant, Dequantize, Input, Quantize
from lmopt.ir.types import DType, Quant, TensorType
from lmopt.ir.verify import verify
from lmopt.target.limits import FIXED_GRIDS, STEP_RATIOS, operand_step

_COMPUTED = frozenset({DType.F32, DType.I8, DType.U8, DType.I16})
_CONVERTED: Mapping[type, tuple[frozenset[DType], frozenset[DType]]] = {
    Quantize: (_COMPUTED, _COMPUTED - {DType.F32}),
    Dequantize: (frozenset({DType.I8, DType.U8, DType.I16, DType.F16}), frozenset({DType.F32})),
}
_CHANNEL_AXES: Mapping[str, tuple[int, ...]] = {
    "conv2d": (3,),
    "conv2d_transpose": (3,),
    "depthwise_conv2d": (2, 3),
    "dense": (1,),
}


def check(graph: Graph) -> None:
    """Checks that a graph can be written as a TFLite file.

    Raises:
        GraphError: The first thing that cannot, at its node.
        BackendError: A grid, correct in itself, that is too fine for the runtime's kernels.
    """
    verify(graph)
    for node in graph.nodes:
        _check_values(node)
        for tensor in node.results:
            if None in tensor.shape[1:]:
                raise _error(node, f"only the batch may be unknown, got {tensor}")
        if isinstance(node.op, Constant):
            _check_constant(node)
        elif not isinstance(node.op, Input):
            _check_types(node, graph.input_types(node))
            _check_weights(node)
            _check_step_ratio(node, graph.input_types(node))
    for name, value in graph.outputs:
        if isinstance(graph.producer(value).op, Input):
            raise GraphError(f"output '{name}' is the input {value}: nothing computes it")


def _check_values(node: Node) -> None:
    for key, weight in node.weights.items():
        if weight.array is None:
            raise GraphError(
                f"weight '{key}' has no values yet",
                where=f"%{node.name}",
                hint="train the detector first: lmopt train DETECTOR --data PATH",
            )


def _check_constant(node: Node) -> None:
    weight, result = node.weight("value").type, node.results[0]
    same = weight.dtype is result.dtype and weight.quant == result.quant
    if not same and not (weight.dtype is DType.F16 and result.dtype is DType.F32):
        raise _error(node, f"the value is {weight} where the node gives {result}")


def _check_types(node: Node, operands: tuple[TensorType, ...]) -> None:
    computed = _COMPUTED - {DType.I16} if node.op.kind in EIGHT_BITS_ONLY else _COMPUTED
    takes, gives = _CONVERTED.get(type(node.op), (computed, computed))
    for tensor, legal in (*((t, takes) for t in operands), (node.results[0], gives)):
        if tensor.dtype not in legal:
            raise _error(
                node,
                f"{node.op.kind} of {tensor.dtype} is not in the runtime; it has "
                f"{', '.join(sorted(legal))}",
            )
    result = node.results[0]
    if node.op.float_only and result.dtype is not DType.F32:
        raise _error(node, f"{node.op.kind} is computed in float32 only, got {result}")
    for tensor in (*operands, result):
        if tensor.dtype is DType.I16 and tensor.quant is not None and any(tensor.quant.zero_point):
            raise _error(node, f"the zero point of 16-bit values must be 0, got {tensor}")
    if isinstance(node.op, Quantize) and (operands[0].dtype, result.dtype) == (
        DType.I16, DType.U8,
    ):  # fmt: skip
        raise _error(node, "quantize of i16 to u8 is not in the runtime", "go through i8")
    fixed = FIXED_GRIDS.get((node.op.kind, result.dtype))
    if fixed is not None and result.quant != fixed:
        raise _error(
            node,
            f"{node.op.kind} in {result.dtype} gives scale {fixed.scale[0]:g} and zero point "
            f"{fixed.zero_point[0]} only, got {result}",
        )


def _check_weights(node: Node) -> None:
    result = node.results[0]
    if result.quant is None:
        for key, weight in node.weights.items():
            if not weight.type.dtype.is_float:
                raise _error(node, f"weight '{key}' is {weight.type} in a float node")
        return
    if node.op.kind == "batch_norm":
        raise _error(node, "the runtime has no integer batch_norm", "fold-batchnorm comes first")
    for key, weight in node.weights.items():
        legal = _biases(node) if key == "bias" else (result.dtype.kernel,)
        if weight.type.dtype not in legal:
            raise _error(node, f"weight '{key}' is {weight.type}, wanted {' or '.join(legal)}")
    if "bias" in node.weights and any(_grid(node, "bias").zero_point):
        raise _error(node, "the zero point of a bias must be 0")
    if "kernel" in node.weights:
        _check_kernel_grid(node, result)


def _biases(node: Node) -> tuple[DType, ...]:
    if node.results[0].dtype is not DType.I16:
        return (DType.I32,)
    return (DType.I64,) if node.op.kind == "depthwise_conv2d" else (DType.I32, DType.I64)


def _check_kernel_grid(node: Node, result: TensorType) -> None:
    grid = _grid(node, "kernel")
    if result.dtype.kernel is DType.I8 and any(grid.zero_point):
        raise _error(node, "an int8 kernel must have zero point 0")
    if grid.axis is None:
        return
    if result.dtype is DType.U8:
        raise _error(node, "a uint8 kernel must have one scale, not one per channel")
    axis = grid.axis % len(node.weight("kernel").type.shape)
    axes = _CHANNEL_AXES[node.op.kind]
    if axis not in axes or len(grid.scale) != node.weight("kernel").type.shape[axis]:
        raise _error(
            node,
            f"a kernel scale per output channel lies on axis {' or '.join(map(str, axes))}; got "
            f"{len(grid.scale)} scales on axis {axis} of {node.weight('kernel').type}",
        )


def _check_step_ratio(node: Node, operands: tuple[TensorType, ...]) -> None:
    grid, limit = node.results[0].quant, STEP_RATIOS.get(node.op.kind)
    if grid is None or limit is None:
        return
    grids = [tensor.quant for tensor in operands if tensor.quant is not None]
    kernel = _grid(node, "kernel") if "kernel" in node.weights else None
    step = operand_step(node.op.kind, grids, kernel)
    if step >= limit * grid.scale[0]:
        raise BackendError(
            f"one step of the operands is {step / grid.scale[0]:.4g} steps of the result; "
            f"the runtime takes less than {limit}",
            where=f"%{node.name}",
            hint="calibrate the result's range on more faces: it came out far too narrow",
        )


def _grid(node: Node, key: str) -> Quant:
    grid = node.weight(key).type.quant
    assert grid is not None  # the verifier saw to it
    return grid


def _error(node: Node, what: str, hint: str | None = None) -> GraphError:
    return GraphError(what, where=f"%{node.name}", hint=hint)
