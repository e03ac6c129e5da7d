"""The parity gate: a model file computes, op by op, what the interpreter computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.codegen.tflite import emit, tensor_names
from lmopt.errors import BackendError
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.interp import DEFAULT_STEPS, compute, compute_by_default, has_arithmetic
from lmopt.runtime.runner import Runner, to_model_input

Array = NDArray[Any]
Feeds = Mapping[str, NDArray[np.floating]]

REAL_TOLERANCE = 1e-3
"""Largest difference of real results, relative to their largest magnitude.

Sums in another order differ by 1e-6; a warp turns the last bits of its coordinates into 2e-4.
"""


@dataclass
class Parity:
    """What the gate compared; it raises where something differs.

    Attributes:
        items: Inputs that were run.
        nodes: Nodes that were compared on each.
        rounded: Elements that the default kernels round otherwise, each by one step at most.
        elements: Elements the default kernels gave on grids.
        unchecked: Nodes the interpreter has no arithmetic for.
    """

    items: int
    nodes: int
    rounded: int = 0
    elements: int = 0
    unchecked: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Returns the outcome as a sentence for a report."""
        share = 100 * self.rounded / max(self.elements, 1)
        left = f"; not compared: {', '.join(self.unchecked)}" if self.unchecked else ""
        return (
            f"parity on {self.items} faces: {self.nodes} nodes equal the integer arithmetic bit "
            f"for bit, {share:.2g} % of what the default kernels give is one step beside it{left}"
        )


def is_quantized(graph: Graph) -> bool:
    """Returns whether any value of a graph is on a grid."""
    return any(type.quant is not None for node in graph.nodes for type in node.results)


def prove(graph: Graph, model: bytes, feeds: Feeds, where: str) -> Parity:
    """Returns the comparison of a file with the interpreter, node by node on the same operands.

    Every node of the interpreter is given the operands that the runtime itself had, so that what
    differs is named where it begins. The reference kernels must give the very integers; the
    default kernels, which an application gets, may round otherwise by `DEFAULT_STEPS`, and a
    file that shows all its values must answer as the one that ships. Real results are compared
    within `REAL_TOLERANCE`.

    Args:
        graph: What the file was emitted from.
        model: The file.
        feeds: Real numbers per input.
        where: What messages call the file.

    Shapes:
        Each feed is [items, *input shape without its batch].

    Raises:
        BackendError: An element differs, or the runtime fails on the file.
    """
    computed = [node for node in graph.nodes if node.inputs]
    known = [node for node in computed if has_arithmetic(node)]
    unchecked = tuple(f"%{node.name}" for node in computed if node not in known)
    found = Parity(len(next(iter(feeds.values()))), len(known), unchecked=unchecked)
    names = tensor_names(graph)
    with Runner(model, kernels="reference", preserve_all=True, name=where) as runner:
        for item in range(found.items):
            stored = _stored(runner, feeds, item)
            runner.run(stored)
            tensors = runner.tensors()
            seen = {value: tensors[name] for value, name in names.items()}
            for node in known:
                _compare(graph, node, seen, f"{where}, face {item}", "reference", 0)
    edit = graph.edit()
    for position, node in enumerate(computed):
        edit.output(f"shown_{position}", node.value)
    with (
        Runner(emit(edit.done()), name=where) as showing,
        Runner(model, name=where) as shipping,
    ):
        for item in range(found.items):
            stored = _stored(shipping, feeds, item)
            answers, shown = shipping.run(stored), showing.run(stored)
            seen = {node.value: shown[f"shown_{k}"] for k, node in enumerate(computed)}
            seen |= {node.value: stored[node.name] for node in graph.inputs}
            seen |= {n.value: compute(n, (), ()) for n in graph.nodes if n.op.kind == "constant"}
            place = f"{where}, face {item}"
            for node in known:
                steps = DEFAULT_STEPS.get(node.op.kind, 0)
                found.rounded += _compare(graph, node, seen, place, "default", steps)
                found.elements += seen[node.value].size * _is_stored(node)
            places = dict(graph.outputs)
            for name, answer in answers.items():
                node, whose = graph.producer(places[name]), "shipped file's"
                _require_near(node, answer, seen[places[name]], 0, place, whose)
    return found


def _stored(runner: Runner, feeds: Feeds, item: int) -> dict[str, Array]:
    return {
        info.name: to_model_input(feeds[info.name][item : item + 1], info) for info in runner.inputs
    }


def _is_stored(node: Node) -> bool:
    return node.results[0].quant is not None


def _compare(
    graph: Graph, node: Node, seen: Mapping[Value, Array], place: str, kernels: str, steps: int
) -> int:
    """Returns how many elements on a grid differ; raises BackendError beyond what is allowed."""
    operands = [seen[value] for value in node.inputs]
    arithmetic = compute if kernels == "reference" else compute_by_default
    wanted = arithmetic(node, operands, graph.input_types(node))
    return _require_near(node, seen[node.value], wanted, steps, place, f"{kernels} kernel's")


def _require_near(node: Node, got: Array, wanted: Array, steps: int, place: str, whose: str) -> int:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise BackendError(
            f"the {whose} %{node.name} is {got.dtype}{list(got.shape)}, the interpreter's "
            f"{wanted.dtype}{list(wanted.shape)}",
            where=place,
            hint=_HINT,
        )
    if _is_stored(node):
        gap, allowed = np.abs(got.astype(np.int64) - wanted.astype(np.int64)), float(steps)
    else:
        gap = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        allowed = REAL_TOLERANCE * float(np.abs(wanted).max(initial=0.0))
    beyond = ~(gap <= allowed)  # not a number counts
    if beyond.any():
        at = np.unravel_index(int(beyond.argmax()), beyond.shape)
        raise BackendError(
            f"%{node.name} ({node.op.kind}) is the first op that differs: element "
            f"{[int(k) for k in at]} is {got[at]} by the {whose} arithmetic, {wanted[at]} by the "
            f"interpreter's, {int(beyond.sum())} of {beyond.size} elements differ",
            where=place,
            hint=_HINT,
        )
    return int(np.count_nonzero(gap)) if _is_stored(node) else 0


_HINT = "this file does not compute what the graph says: keep the op in float32 with keep-float"
