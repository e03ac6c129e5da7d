"""A float graph put on integer grids: which values share one, and every weight with its scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.interp.activation import POWERS, power_of_scale
from lmopt.ir.interp.integer import EIGHT_BITS_ONLY
from lmopt.ir.ops import (
    BatchNorm,
    Concat,
    Constant,
    Dequantize,
    Input,
    Maximum,
    Minimum,
    Quantize,
)
from lmopt.ir.types import DType, Quant, TensorType, ValueRange, Weight
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.grid import (
    activation_grid,
    at_least,
    range_of,
)
from lmopt.quant.weights import KERNEL_AXIS, RoundedKernel, integer_weights, kernel_grid
from lmopt.target.limits import FIXED_GRIDS, STEP_RATIOS, operand_step
from lmopt.target.profile import EndType

_EDGE: Mapping[EndType, DType] = {
    "float32": DType.F32,
    "uint8": DType.U8,
    "int8": DType.I8,
    "int16": DType.I16,
}

FIXED_RANGES: Mapping[str, ValueRange] = {
    kind: range_of(grid, storage)
    for (kind, storage), grid in FIXED_GRIDS.items()
    if storage is not DType.I16
}
"""Results whose grid the runtime's kernels prescribe: the same values in both 8-bit storages."""

_PAST_POWER = 2.0**1e-3
"""From a power of two to the first scale that 16-bit functions do not take for it."""
_MARGIN = 1 + 2.0**-10
"""By how much a legal scale stays clear of the limit: scales are rounded to float32."""


def stays_real(graph: Graph, node: Node, scheme: QuantScheme) -> bool:
    """Returns whether quantization leaves a node in float32, between conversions.

    These are ops on coordinates, batch norms that no kernel before them can take in, functions
    without a 16-bit form where storage is that, and what the scheme says.
    """
    wide = scheme.storage is DType.I16 or node.name in scheme.wide
    only_narrow = wide and node.op.kind in EIGHT_BITS_ONLY
    return node.name in scheme.real or only_narrow or _has_no_integer_form(graph, node)


def _has_no_integer_form(graph: Graph, node: Node) -> bool:
    if not isinstance(node.op, BatchNorm):
        return node.op.float_only
    return graph.producer(node.inputs[0]).op.kind not in KERNEL_AXIS


def check_quantizable(graph: Graph) -> None:
    """Raises PassError unless a float graph is one that `quantize_graph` takes."""
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm) and not _has_no_integer_form(graph, node):
            raise PassError(
                "batch normalization has no integer form",
                where=f"%{node.name}",
                hint="put fold-batchnorm before this pass",
            )
        if any(tensor.dtype is not DType.F32 for tensor in node.results):
            raise PassError(
                f"the graph is not float32 any more ({node.results[0]})",
                where=f"%{node.name}",
                hint="quantize once, from the float32 graph",
            )


@dataclass(frozen=True)
class GridPlan:
    """Which value's grid each value of a float graph is on.

    Attributes:
        owner: For every value on a grid, the value whose range decides it (often itself). A
            real value has one too where integer nodes read it or it is an output.
        separated: Operand slots (node, position) that need a requantization of their own.
        storage: What every node is stored in; F32 where it stays real.
    """

    owner: Mapping[Value, Value]
    separated: frozenset[tuple[str, int]]
    storage: Mapping[str, DType]

    @property
    def real(self) -> frozenset[str]:
        """Returns the names of the nodes that stay in float32."""
        return frozenset(name for name, storage in self.storage.items() if storage is DType.F32)

    @property
    def owners(self) -> tuple[Value, ...]:
        """Returns the values whose ranges must be known, in graph order."""
        return tuple(dict.fromkeys(self.owner.values()))


def plan_grids(graph: Graph, scheme: QuantScheme) -> GridPlan:
    """Returns the sharing of grids that TFLite's kernels require.

    Pools, reshapes and padding stay on their operand's grid. A concat decides one grid for itself
    and those operands that nothing else reads; any other operand keeps its own grid and is
    requantized on the way in. So do maximum and minimum, where cutting the operands off at the
    ends of the result's range changes nothing. Float-only ops stand between conversions, and a
    value that is read in another storage has the same range there.
    """
    storage = _storages(graph, scheme)
    real = frozenset(name for name, stored in storage.items() if stored is DType.F32)
    owner: dict[Value, Value] = {}
    separated: set[tuple[str, int]] = set()
    for node in graph.nodes:
        result = node.value
        owner[result] = result
        if node.name in real:
            continue
        if isinstance(node.op, Concat | Maximum | Minimum):
            for position, operand in enumerate(node.inputs):
                alike = storage[operand.node] in (storage[node.name], DType.F32)
                if alike and _only_feeds(graph, operand, owner):
                    old = owner[operand]
                    owner.update({v: result for v, o in owner.items() if o == old})
                else:
                    separated.add((node.name, position))
        elif node.op.keeps_grid:
            owner[result] = owner[node.inputs[0]]
    used = {v: o for v, o in owner.items() if _needs_grid(graph, v, real)}
    return GridPlan(used, frozenset(separated), storage)


def _storages(graph: Graph, scheme: QuantScheme) -> dict[str, DType]:
    """Returns what every node is stored in; inputs and constants as all that read them, or narrow.

    So nothing is rounded to eight bits on its way to where it has sixteen.
    """
    found = {
        node.name: DType.F32
        if stays_real(graph, node, scheme)
        else DType.I16
        if node.name in scheme.wide
        else scheme.storage
        for node in graph.nodes
    }
    for node in graph.nodes:
        if isinstance(node.op, Input | Constant) and found[node.name] is not DType.F32:
            readers = {found[reader.name] for reader, _ in graph.users(node.value)} - {DType.F32}
            found[node.name] = DType.I16 if readers == {DType.I16} else scheme.storage
    return found


def _needs_grid(graph: Graph, value: Value, real: frozenset[str]) -> bool:
    readers = [node.name for node, _ in graph.users(value)]
    if value.node in real or isinstance(graph.producer(value).op, Constant):
        return graph.is_output(value) or any(name not in real for name in readers)
    return True


def _only_feeds(graph: Graph, value: Value, owner: Mapping[Value, Value]) -> bool:
    """Returns whether a value, back to the owner of its grid, has no other reader."""
    while True:
        node = graph.producer(value)
        if len(graph.users(value)) != 1 or graph.is_output(value):
            return False
        if isinstance(node.op, Input | Constant) or node.op.kind in FIXED_RANGES:
            return False
        if owner[value] == value:
            return True
        value = node.inputs[0]


def quantize_graph(
    graph: Graph,
    ranges: Mapping[Value, ValueRange],
    scheme: QuantScheme,
    *,
    input_type: EndType = "float32",
    output_type: EndType = "float32",
    rounded: Mapping[str, RoundedKernel] | None = None,
) -> Graph:
    """Returns an integer graph: every value on a grid, every weight stored.

    Nodes without an integer form stay in float32, with conversions before and behind them. Ranges
    that the runtime would refuse are widened, see `legal_ranges`.

    Args:
        graph: Float32, batch norms folded.
        ranges: A range per owner of `plan_grids(graph, scheme)`.
        scheme: Storage type, kernel granularity, what stays real.
        input_type: Element type of the inputs; conversion nodes are put in where it is not storage.
        output_type: Element type of the outputs, likewise.
        rounded: Kernels that are not rounded to the nearest, by node.

    Raises:
        PassError: A batch norm could be folded, or a range is missing.
    """
    check_quantizable(graph)
    plan = plan_grids(graph, scheme)
    legal = legal_ranges(graph, ranges, scheme)

    def on_grid(value: Value, storage: DType) -> TensorType:
        grid = _grid(graph, plan.owner[value], legal, storage)
        return TensorType(storage, graph.type(value).shape, grid)

    edit = graph.edit()
    for node in graph.nodes:
        storage = plan.storage[node.name]
        if storage is DType.F32 or node.value not in plan.owner:
            continue
        result = on_grid(node.value, storage)
        edit.set_type(node.value, result)
        if isinstance(node.op, Constant):
            edit.set_weights(node.name, value=_constant(node, result))
            continue
        operands = [_grid(graph, plan.owner[value], legal, storage) for value in node.inputs]
        weights = integer_weights(
            node, operands, scheme.on(storage), (rounded or {}).get(node.name)
        )
        edit.set_weights(node.name, **weights)
        for position, value in enumerate(node.inputs):
            if (node.name, position) in plan.separated:
                type = TensorType(storage, graph.type(value).shape, result.quant)
                _requantize(edit, graph, node, position, value, type)
    for value in plan.owner:
        _convert_readers(edit, graph, value, plan, partial(on_grid, value))

    def border(value: Value, dtype: DType) -> TensorType:
        if dtype is DType.F32:
            return TensorType(dtype, graph.type(value).shape)
        return on_grid(value, dtype)

    for source in graph.inputs:
        _convert_input(edit, source, border(source.value, _EDGE[input_type]))
    for name, value in graph.outputs:
        _convert_output(edit, name, value, border(value, _EDGE[output_type]))
    return edit.done()


def legal_ranges(
    graph: Graph, ranges: Mapping[Value, ValueRange], scheme: QuantScheme
) -> dict[Value, ValueRange]:
    """Returns the ranges, those widened whose grid is too fine for the runtime's kernels.

    One step of what a kernel sums or multiplies may be so many steps of its result, no more; a
    range that came out narrower (a value that hardly moves on the calibration faces) grows around
    0 to what is just legal. So does one of which a 16-bit sigmoid or tanh would be coarse.

    Source: `lmopt.target.limits`, `lmopt.ir.interp.activation.power_of_scale`.
    """
    plan = plan_grids(graph, scheme)
    legal = dict(ranges)
    narrow = True
    while narrow:  # a wider range makes its readers' steps larger in turn; graphs have an end
        narrow = False
        for node in graph.nodes:
            storage = plan.storage[node.name]
            least = _least_scale(graph, node, plan, legal, scheme.on(storage))
            for value, scale in least.items():
                owner = plan.owner[value]
                if _grid(graph, owner, legal, storage).scale[0] <= scale:
                    narrow = True
                    legal[owner] = at_least(legal[owner], scale * _MARGIN, storage)
    return legal


def _least_scale(
    graph: Graph,
    node: Node,
    plan: GridPlan,
    ranges: Mapping[Value, ValueRange],
    scheme: QuantScheme,
) -> dict[Value, float]:
    """Returns what scales a node's kernel wants above something: its result's, or its operand's."""
    if scheme.storage is DType.F32:
        return {}
    kind = node.op.kind
    operands = [_grid(graph, plan.owner[v], ranges, scheme.storage) for v in node.inputs]
    if kind in STEP_RATIOS:
        kernel = kernel_grid(node, operands[0], scheme) if "kernel" in node.weights else None
        return {node.value: operand_step(kind, operands, kernel) / STEP_RATIOS[kind]}
    if kind in POWERS and scheme.storage is DType.I16 and plan.owner[node.inputs[0]] in ranges:
        power = power_of_scale(kind, operands[0].scale[0])
        return {} if power is None else {node.inputs[0]: 2.0**power * _PAST_POWER}
    return {}


def _grid(graph: Graph, value: Value, ranges: Mapping[Value, ValueRange], storage: DType) -> Quant:
    node = graph.producer(value)
    fixed = FIXED_GRIDS.get((node.op.kind, storage))
    if fixed is not None:
        return fixed
    if isinstance(node.op, Constant):
        real = node.weight("value").real()
        return activation_grid(ValueRange(float(real.min()), float(real.max())), storage)
    if value not in ranges:
        raise PassError(f"no calibrated range for {value}", where=graph.name)
    return activation_grid(ranges[value], storage)


def _constant(node: Node, type: TensorType) -> Weight:
    assert type.quant is not None
    stored = type.quant.quantize(node.weight("value").real(), type.dtype)
    return Weight.of(stored, type.quant)


def _requantize(
    edit: Edit, graph: Graph, node: Node, position: int, value: Value, type: TensorType
) -> None:
    name = edit.fresh(f"{node.name}_operand{position}")
    source = _on_the_way(edit, value, edit.node(value.node).results[0], type)
    edit.put(Node(name, Quantize(), (source,), (type,), loc=node.loc))
    inputs = list(edit.node(node.name).inputs)
    inputs[position] = Value(name)
    edit.set_inputs(node.name, *inputs)


def _convert_readers(
    edit: Edit, graph: Graph, value: Value, plan: GridPlan, on_grid: Callable[[DType], TensorType]
) -> None:
    """Puts a conversion between a value and the readers in each other storage."""
    node, own = graph.producer(value), plan.storage[value.node]
    readers: dict[DType, list[str]] = {}
    for reader, _ in graph.users(value):
        if value in edit.node(reader.name).inputs:
            readers.setdefault(plan.storage[reader.name], []).append(reader.name)
    for storage, names in readers.items():
        if storage is own:
            continue
        suffix = "real" if storage is DType.F32 else "stored" if own is DType.F32 else f"{storage}"
        name = edit.fresh(f"{node.name}_{suffix}")
        type = TensorType(DType.F32, graph.type(value).shape)
        if storage is not DType.F32:
            type = on_grid(storage)
        if isinstance(node.op, Constant) and own is not DType.F32:  # nothing is lost by a copy
            stored = node.weights if type.quant is None else {"value": _constant(node, type)}
            new = replace(node, name=name, results=(type,), weights=stored)
        else:
            op = Dequantize() if storage is DType.F32 else Quantize()
            source = _on_the_way(edit, value, edit.node(node.name).results[0], type)
            new = Node(name, op, (source,), (type,), loc=node.loc)
        edit.put(new)
        edit.rewire(value, new.value, only=names)


def _convert_input(edit: Edit, source: Node, border: TensorType) -> None:
    """Makes an input arrive as `border`, with a quantize behind it where storage differs."""
    stored = edit.node(source.name).results[0]
    if border.dtype is stored.dtype:
        return
    name = edit.fresh(f"{source.name}_stored")
    edit.put(Node(name, Quantize(), (), (stored,), loc=source.loc))
    edit.rewire(source.value, Value(name))
    edit.set_type(source.value, border)
    edit.set_inputs(name, _on_the_way(edit, source.value, border, stored))


def _convert_output(edit: Edit, name: str, value: Value, border: TensorType) -> None:
    """Makes an output leave as `border`, through a dequantize or quantize where storage differs."""
    given = edit.node(value.node).results[0]
    if border.dtype is given.dtype:
        return
    op = Dequantize() if border.dtype is DType.F32 else Quantize()
    source = _on_the_way(edit, value, given, border)
    node = Node(edit.fresh(f"{value.node}_{border.dtype}"), op, (source,), (border,))
    edit.output(name, edit.put(node))


def _on_the_way(edit: Edit, value: Value, given: TensorType, wanted: TensorType) -> Value:
    """Returns what to convert to `wanted`: of 16 bits to uint8 the runtime converts int8 alone."""
    if (given.dtype, wanted.dtype) != (DType.I16, DType.U8) or wanted.quant is None:
        return value
    shift = DType.I8.bounds[0] - DType.U8.bounds[0]
    grid = replace(wanted.quant, zero_point=(wanted.quant.zero_point[0] + shift,))
    type = TensorType(DType.I8, wanted.shape, grid)
    return edit.put(Node(edit.fresh(f"{value.node}_i8"), Quantize(), (value,), (type,)))
