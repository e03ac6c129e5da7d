"""What holds for quantized graphs, as assertions whose messages end with the graph as IR text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import UsageError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.interp import run
from lmopt.ir.interp.arrange import ARRANGE
from lmopt.ir.interp.fixedpoint import Multiplier
from lmopt.ir.interp.integer import has_wide_sums
from lmopt.ir.types import Quant, Weight
from lmopt.pipeline.manager import output_gap
from lmopt.quant.bounds import InputRange, error_bounds
from lmopt.testing.case import Arrays
from lmopt.testing.runtime import run_on_runtime

_EXACT = frozenset(ARRANGE) | {
    "input", "constant", "quantize", "dequantize", "add", "sub", "mul", "abs", "relu", "relu6",
    "max_pool2d", "concat", "reshape", "pad", "resize_nearest",
}  # fmt: skip
"""Ops that float32 leaves no choice: one rounding, or none."""
_HOMOGENEOUS = frozenset(ARRANGE) | {
    "input", "constant", "quantize", "add", "sub", "conv2d", "conv2d_transpose",
    "depthwise_conv2d", "dense", "relu", "leaky_relu", "prelu", "max_pool2d", "avg_pool2d", "mean",
    "concat", "reshape", "pad", "resize_bilinear", "resize_nearest",
}  # fmt: skip
"""Ops of integers that give k times as much for k times as much."""


def assert_interpreter_equals_runtime(
    graph: Graph, inputs: Arrays, *, tolerance: float = 1e-4
) -> None:
    """Asserts that LiteRT's reference kernels and lmopt's interpreter give the same outputs.

    To the last bit, except behind float32 ops that sum in an order of their own: there within
    `tolerance` of the output's largest value, and one step of its grid.

    Args:
        graph: Integer, mixed or float; it is emitted and run in a worker process.
        inputs: In the inputs' own types, batch first.
        tolerance: See above.
    """
    got, want = run(graph, inputs), run_on_runtime(graph, inputs)
    loose = _behind_sums(graph)
    for name, value in graph.outputs:
        a, b, type = got[name], want[name], graph.type(value)
        _require(
            a.dtype == b.dtype, f"output '{name}' is {a.dtype}, on the runtime {b.dtype}", graph
        )
        if value not in loose:
            _require(
                np.array_equal(a, b, equal_nan=a.dtype.kind == "f"),
                f"output '{name}' differs from the runtime's in {int((a != b).sum())} of {a.size} "
                f"elements, by {_furthest(a, b):g} at most",
                graph,
            )
            continue
        limit = tolerance * float(np.abs(b.astype(np.float64)).max(initial=0.0))
        limit = limit if type.quant is None else max(limit, 1.0)
        _require(
            _furthest(a, b) <= limit,
            f"output '{name}' differs from the runtime's by {_furthest(a, b):g}, wanted {limit:g}",
            graph,
        )


def assert_error_within_bound(
    reference: Graph,
    quantized: Graph,
    inputs: Arrays,
    ranges: Mapping[str, InputRange] | None = None,
) -> None:
    """Asserts that no value of a quantized graph is further from its float twin than its bound.

    Args:
        reference: The float graph it was made of.
        quantized: Integer or mixed; run by lmopt's interpreter.
        inputs: Real arrays, or stored integers where the quantized graph takes such.
        ranges: Of the inputs; by default the extremes of `inputs`.
    """
    real, stored, found = {}, {}, {}
    for node in quantized.inputs:
        array, type = np.asarray(inputs[node.name]), node.results[0]
        rounding = None if array.dtype.kind == "f" else 0.0
        if type.quant is None:
            real[node.name] = stored[node.name] = array
        elif rounding is None:
            real[node.name], stored[node.name] = array, type.quant.quantize(array, type.dtype)
        else:
            real[node.name], stored[node.name] = type.quant.dequantize(array), array
        ends = real[node.name]
        found[node.name] = InputRange(float(ends.min()), float(ends.max()), rounding)
    bounds = error_bounds(reference, quantized, ranges or found)
    got = run(quantized, stored, all_values=True)
    want = run(reference, real, all_values=True)
    outputs = {value: bound for (_, value), bound in zip(
        quantized.outputs, bounds.outputs.values(), strict=True
    )}  # fmt: skip
    for value, bound in [*bounds.values.items(), *outputs.items()]:
        assert bound.twin is not None
        error = _real(quantized, value, got) - want[_key(bound.twin)].astype(np.float64)
        excess = np.maximum(error - bound.error.high, bound.error.low - error)
        _require(
            bool((excess <= 0).all()),
            f"{value} is {float(np.abs(error).max()):g} from {bound.twin} of the float graph, "
            f"{float(excess.max()):g} beyond its bound",
            quantized,
        )


def assert_same_values(
    before: Graph, after: Graph, inputs: Arrays, *, tolerance: float = 1e-5
) -> None:
    """Asserts that a rewrite of a float graph kept what it computes.

    Args:
        before: Float.
        after: Float, with the same inputs and outputs.
        inputs: By input name.
        tolerance: Largest difference relative to each output's largest value: room for float32
            sums in another order.
    """
    old, new = run(before, inputs), run(after, inputs)
    _require(set(old) == set(new), f"outputs {sorted(old)} became {sorted(new)}", after)
    for name, values in old.items():
        gap = output_gap(values, new[name])
        _require(
            gap <= tolerance,
            f"output '{name}' changed by {gap:.3g} of its largest value, wanted {tolerance:g}",
            after,
        )


def assert_requantize_monotone(graph: Graph) -> None:
    """Asserts that every factor of an integer graph keeps order, and 0 at 0.

    That is: of two sums the larger never becomes the smaller stored value.
    """
    for node in graph.nodes:
        for factor in _factors(graph, node):
            reach = min(2**31 - 1, int(2**20 / factor) + 1)
            sums = np.unique(np.linspace(-reach, reach, 4001).astype(np.int64))
            sums = np.unique(np.concatenate([sums, np.arange(-300, 301)]))
            scale = Multiplier.of(factor)
            scaled = scale.apply_wide(sums) if has_wide_sums(node) else scale.apply(sums)
            _require(
                bool((np.diff(scaled) >= 0).all()) and scaled[sums == 0] == 0,
                f"%{node.name}: the factor {factor!r} does not keep the order of sums",
                graph,
            )


def assert_scale_invariant(graph: Graph, inputs: Arrays, *, power: int = 3) -> None:
    """Asserts that an integer graph gives the same integers when every value is 2**power as large.

    Args:
        graph: Integer from input to output, of ops that give k times as much for k times as much.
        inputs: Stored integers.
        power: Of two; scaling by it is exact.

    Raises:
        UsageError: An op of the graph is not of that kind.
    """
    for node in graph.nodes:
        other = getattr(node.op, "activation", "none") == "relu6"
        if node.op.kind not in _HOMOGENEOUS or other or node.results[0].quant is None:
            raise UsageError(
                f"{node.op.kind} of {node.results[0]} is not invariant under scaling",
                where=f"%{node.name}",
                hint="leave out relu6, products and functions such as sigmoid",
            )
    edit = graph.edit()
    for node in graph.nodes:
        type = node.results[0]
        assert type.quant is not None
        edit.set_type(node.value, replace(type, quant=_scaled(type.quant, power)))
        for key in {"bias", "value"} & set(node.weights):
            weight = node.weights[key]
            assert weight.array is not None and weight.type.quant is not None
            scaled = Weight.of(weight.array, _scaled(weight.type.quant, power))
            edit.set_weights(node.name, **{key: scaled})
    got, want = run(edit.done(), inputs), run(graph, inputs)
    for name in want:
        _require(
            np.array_equal(got[name], want[name]),
            f"output '{name}' changed by {_furthest(got[name], want[name]):g} steps when all "
            f"scales were multiplied by 2**{power}",
            graph,
        )


def _require(holds: bool, what: str, graph: Graph) -> None:
    if not holds:
        raise AssertionError(f"{what}\n{graph}")


def _behind_sums(graph: Graph) -> frozenset[Value]:
    found: set[Value] = set()
    for node in graph.nodes:
        real = node.results[0].quant is None and node.op.kind not in _EXACT
        if real or any(value in found for value in node.inputs):
            found.add(node.value)
    return frozenset(found)


def _furthest(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def _key(value: Value) -> str:
    return str(value).removeprefix("%")


def _real(graph: Graph, value: Value, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    grid, array = graph.type(value).quant, arrays[_key(value)]
    return np.asarray(array if grid is None else grid.dequantize(array), np.float64)


def _scaled(grid: Quant, power: int) -> Quant:
    return replace(grid, scale=tuple(scale * 2.0**power for scale in grid.scale))


def _factors(graph: Graph, node: Node) -> list[float]:
    grid, types = node.results[0].quant, graph.input_types(node)
    if grid is None or node.op.keeps_grid or not types or types[0].quant is None:
        return []
    kernel = node.weights.get("kernel")
    own = (1.0,) if kernel is None or kernel.type.quant is None else kernel.type.quant.scale
    return [types[0].quant.scale[0] * scale / grid.scale[0] for scale in own]
