"""The immutable graph: nodes are the truth, everything else is derived from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from lmopt.errors import GraphError
from lmopt.ir.op import Op
from lmopt.ir.types import TensorType, Weight

if TYPE_CHECKING:
    import networkx as nx

    from lmopt.ir.edit import Edit


@dataclass(frozen=True)
class Value:
    """A result of a node, by name: `%node` or `%node:1`."""

    node: str
    index: int = 0

    def __str__(self) -> str:
        return f"%{self.node}" if self.index == 0 else f"%{self.node}:{self.index}"


@dataclass(frozen=True)
class Loc:
    """Where a node comes from: the source layer and the passes that touched it."""

    source: str = ""
    passes: tuple[str, ...] = ()

    def via(self, pass_name: str) -> Loc:
        """Returns this location with one more pass in its history."""
        return Loc(self.source, (*self.passes, pass_name))


@dataclass(frozen=True)
class Node:
    """One operation at work: its operands, result types and weights.

    Attributes:
        name: Unique in the graph.
        op: What is computed.
        inputs: Operand values; the same value may stand twice.
        results: Result types; quantized graphs keep their grids here.
        weights: Weights by parameter name.
        loc: Provenance; does not count in comparisons or digests.
    """

    name: str
    op: Op
    inputs: tuple[Value, ...]
    results: tuple[TensorType, ...]
    weights: Mapping[str, Weight] = field(default_factory=dict)
    loc: Loc = field(default=Loc(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    def __hash__(self) -> int:
        return hash((self.name, self.op, self.inputs, self.results))

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.name, self.op, self.inputs, self.results, dict(self.weights), self.loc)
        return (Node, fields)

    @property
    def value(self) -> Value:
        """Returns the first (mostly the only) result."""
        return Value(self.name)

    def weight(self, name: str) -> Weight:
        """Returns a weight by parameter name.

        Raises:
            GraphError: The node has no such weight.
        """
        if name not in self.weights:
            raise GraphError(
                f"{self.op.kind} has no weight '{name}' (it has {sorted(self.weights)})",
                where=f"%{self.name}",
            )
        return self.weights[name]


@dataclass(frozen=True)
class Graph:
    """A dataflow graph; build and change it with `Edit`, which verifies on exit.

    Attributes:
        name: For people and files.
        nodes: In topological order.
        outputs: Output name and value, in order.
    """

    name: str
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[str, Value], ...]

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _users(self) -> dict[Value, tuple[tuple[Node, int], ...]]:
        users: dict[Value, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for position, value in enumerate(node.inputs):
                users.setdefault(value, []).append((node, position))
        return {value: tuple(found) for value, found in users.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def node(self, name: str) -> Node:
        """Returns the node called `name`.

        Raises:
            GraphError: There is none.
        """
        if name not in self._by_name:
            raise GraphError(f"no node '%{name}' in graph '{self.name}'")
        return self._by_name[name]

    def type(self, value: Value) -> TensorType:
        """Returns the type of a value."""
        results = self.node(value.node).results
        if value.index >= len(results):
            raise GraphError(f"{value} does not exist: the node has {len(results)} result(s)")
        return results[value.index]

    def producer(self, value: Value) -> Node:
        """Returns the node a value comes from."""
        return self.node(value.node)

    def users(self, value: Value) -> tuple[tuple[Node, int], ...]:
        """Returns every use of a value as (node, operand position); outputs do not count."""
        return self._users.get(value, ())

    def is_output(self, value: Value) -> bool:
        """Returns whether a value leaves the graph."""
        return any(value == out for _, out in self.outputs)

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """Returns the input nodes, in order."""
        return tuple(node for node in self.nodes if node.op.kind == "input")

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Returns the operand types of a node."""
        return tuple(self.type(value) for value in node.inputs)

    @cached_property
    def index(self) -> nx.MultiDiGraph[str]:
        """Returns the graph as networkx sees it: node names, one edge per operand."""
        return dataflow(self.nodes)

    @cached_property
    def parameters(self) -> int:
        """Returns the number of weight elements; batch-norm statistics count, constants do not."""
        return sum(
            weight.type.elements
            for node in self.nodes
            if node.op.kind != "constant"
            for weight in node.weights.values()
        )

    @cached_property
    def macs(self) -> int:
        """Returns the multiply-accumulates of one inference."""
        return sum(node.op.macs(self.input_types(node)) for node in self.nodes)

    @property
    def is_initialized(self) -> bool:
        """Returns whether every weight has values."""
        return all(w.array is not None for node in self.nodes for w in node.weights.values())

    def weights(self) -> dict[str, Weight]:
        """Returns every weight as `node/parameter`."""
        return {f"{n.name}/{key}": w for n in self.nodes for key, w in n.weights.items()}

    def edit(self) -> Edit:
        """Returns a mutable copy; `done()` gives the verified new graph."""
        from lmopt.ir.edit import Edit

        return Edit.of(self)

    @cached_property
    def _digest(self) -> str:
        return hashlib.blake2b(str(self).encode(), digest_size=16).hexdigest()

    def digest(self) -> str:
        """Returns 32 hex digits over text and weights; memoised, as are the weights' own."""
        return self._digest

    def __str__(self) -> str:
        from lmopt.ir.text import print_graph

        return print_graph(self)

    def __reduce__(self) -> tuple[object, ...]:
        return (Graph, (self.name, self.nodes, self.outputs))


def dataflow(nodes: tuple[Node, ...]) -> nx.MultiDiGraph[str]:
    """Returns nodes and operand edges as a networkx multigraph."""
    import networkx as nx

    index: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    index.add_nodes_from(node.name for node in nodes)
    index.add_edges_from((value.node, node.name) for node in nodes for value in node.inputs)
    return index


def sort_topologically(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Returns the nodes so that producers come first, keeping the given order where it fits.

    Raises:
        GraphError: A cycle, or an operand from an unknown node.
    """
    import networkx as nx

    by_name = {node.name: node for node in nodes}
    for node in nodes:
        for value in node.inputs:
            if value.node not in by_name:
                raise GraphError(f"operand {value} comes from no node", where=f"%{node.name}")
    order = {node.name: position for position, node in enumerate(nodes)}
    try:
        names = list(nx.lexicographical_topological_sort(dataflow(nodes), key=order.__getitem__))
    except nx.NetworkXUnfeasible as error:
        raise GraphError("the nodes form a cycle") from error
    return tuple(by_name[name] for name in names)
