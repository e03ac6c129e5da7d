"""Building and changing graphs: a mutable working copy, verified when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.graph import Graph, Loc, Node, Value, sort_topologically
from lmopt.ir.op import Op
from lmopt.ir.ops import Input
from lmopt.ir.types import DType, Shape, TensorType, Weight


class Edit:
    """A graph under construction.

    Result types are inferred when an edit is done; a node whose results were given a quantized or
    converted element type keeps that type and its grid, with the inferred shape.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, Node] = {}
        self._outputs: dict[str, Value] = {}

    @classmethod
    def of(cls, graph: Graph) -> Edit:
        """Returns an edit that starts from `graph`."""
        edit = cls(graph.name)
        edit._nodes = {node.name: node for node in graph.nodes}
        edit._outputs = dict(graph.outputs)
        return edit

    def node(self, name: str) -> Node:
        """Returns a node in its present state."""
        if name not in self._nodes:
            raise GraphError(f"no node '%{name}' in graph '{self.name}'")
        return self._nodes[name]

    def uses(self, value: Value) -> int:
        """Returns how often a value is used, as an operand or an output."""
        operands = sum(node.inputs.count(value) for node in self._nodes.values())
        return operands + sum(value == out for out in self._outputs.values())

    def fresh(self, stem: str) -> str:
        """Returns a node name not in use: `stem`, or `stem_2`, `stem_3`, ..."""
        if stem not in self._nodes:
            return stem
        return next(n for k in range(2, 10**9) if (n := f"{stem}_{k}") not in self._nodes)

    def input(self, name: str, shape: Shape, dtype: DType = DType.F32) -> Value:
        """Adds a named input and returns its value."""
        return self.put(Node(name, Input(), (), (TensorType(dtype, shape),), loc=Loc(name)))

    def add(
        self,
        name: str,
        op: Op,
        *inputs: Value,
        weights: Mapping[str, Weight | NDArray[np.generic]] | None = None,
        type: TensorType | None = None,
        loc: Loc | None = None,
    ) -> Value:
        """Adds a node and returns its first result.

        Args:
            name: Must be free.
            op: The operation.
            *inputs: Operands, already in the graph.
            weights: Arrays or weights by parameter name; missing ones stay uninitialised.
            type: The result type where it is not the inferred one (grids, conversions).
            loc: Provenance; the name itself by default.
        """
        operands = tuple(self._type(value, name) for value in inputs)
        try:
            results = op.infer(operands)
            shapes = op.params(operands)
        except GraphError as error:
            raise GraphError(error.what, where=f"%{name}", hint=error.hint) from error
        given = {
            key: weight if isinstance(weight, Weight) else Weight.of(weight)
            for key, weight in (weights or {}).items()
        }
        unset = {key: Weight(TensorType(DType.F32, shape)) for key, shape in shapes.items()}
        return self.put(
            Node(
                name,
                op,
                inputs,
                results if type is None else (type,),
                {**unset, **given},
                loc or Loc(name),
            )
        )

    def put(self, node: Node) -> Value:
        """Adds a ready-made node and returns its first result."""
        if node.name in self._nodes:
            raise GraphError(f"a node '%{node.name}' exists already", where=self.name)
        self._nodes[node.name] = node
        return node.value

    def output(self, name: str, value: Value) -> None:
        """Names a value as an output (or points an existing output at it)."""
        self._type(value, name)
        self._outputs[name] = value

    def set_op(self, name: str, op: Op) -> None:
        """Replaces a node's op."""
        self._nodes[name] = replace(self.node(name), op=op)

    def set_inputs(self, name: str, *inputs: Value) -> None:
        """Replaces a node's operands."""
        self._nodes[name] = replace(self.node(name), inputs=inputs)

    def set_weights(self, name: str, **weights: Weight | NDArray[np.generic] | None) -> None:
        """Replaces weights of a node by parameter name; None removes one."""
        merged = dict(self.node(name).weights)
        for key, weight in weights.items():
            if weight is None:
                merged.pop(key, None)
            else:
                merged[key] = weight if isinstance(weight, Weight) else Weight.of(weight)
        self._nodes[name] = replace(self.node(name), weights=merged)

    def set_type(self, value: Value, type: TensorType) -> None:
        """Gives a result another element type or grid."""
        node = self.node(value.node)
        results = list(node.results)
        results[value.index] = type
        self._nodes[node.name] = replace(node, results=tuple(results))

    def touch(self, name: str, pass_name: str) -> None:
        """Notes in a node's provenance that a pass changed it."""
        node = self.node(name)
        self._nodes[name] = replace(node, loc=node.loc.via(pass_name))

    def rewire(self, old: Value, new: Value, *, only: Iterable[str] | None = None) -> None:
        """Makes users of `old` (all and the outputs, or those named in `only`) take `new`."""
        names = None if only is None else set(only)
        for node in list(self._nodes.values()):
            if old in node.inputs and (names is None or node.name in names):
                inputs = tuple(new if value == old else value for value in node.inputs)
                self._nodes[node.name] = replace(node, inputs=inputs)
        if names is None:
            self._outputs = {k: new if v == old else v for k, v in self._outputs.items()}

    def remove(self, name: str) -> None:
        """Removes a node that nothing uses any more.

        Raises:
            GraphError: It is still in use; the users are named.
        """
        users = [n.name for n in self._nodes.values() if any(v.node == name for v in n.inputs)]
        users += [f"output {k}" for k, v in self._outputs.items() if v.node == name]
        if users:
            raise GraphError(f"cannot remove '%{name}': used by {', '.join(users)}")
        del self._nodes[name]

    def prune_dead(self) -> None:
        """Removes every node, inputs apart, that reaches no output."""
        alive: set[str] = set()
        stack = [value.node for value in self._outputs.values()]
        while stack:
            name = stack.pop()
            if name not in alive:
                alive.add(name)
                stack += [value.node for value in self._nodes[name].inputs]
        self._nodes = {
            k: n for k, n in self._nodes.items() if k in alive or isinstance(n.op, Input)
        }

    def done(self) -> Graph:
        """Returns the new graph, sorted, with types inferred and verified.

        Raises:
            GraphError: What does not fit, and at which node.
        """
        from lmopt.ir.verify import verify

        nodes: list[Node] = []
        types: dict[Value, TensorType] = {}
        for node in sort_topologically(tuple(self._nodes.values())):
            typed = self._infer(node, types)
            types.update({Value(node.name, k): t for k, t in enumerate(typed.results)})
            nodes.append(typed)
        graph = Graph(self.name, tuple(nodes), tuple(self._outputs.items()))
        verify(graph)
        return graph

    def _infer(self, node: Node, types: Mapping[Value, TensorType]) -> Node:
        if isinstance(node.op, Input):
            return node
        try:
            inferred = node.op.infer([types[value] for value in node.inputs])
        except GraphError as error:
            raise GraphError(error.what, where=f"%{node.name}", hint=error.hint) from error
        except KeyError as error:
            raise GraphError(
                f"operand {error.args[0]} does not exist", where=f"%{node.name}"
            ) from error
        given = (*node.results, *[None] * (len(inferred) - len(node.results)))
        results = tuple(
            new if old is None or old.dtype is DType.F32 else old.with_shape(new.shape)
            for old, new in zip(given, inferred, strict=True)
        )
        return node if results == node.results else replace(node, results=results)

    def _type(self, value: Value, user: str) -> TensorType:
        node = self._nodes.get(value.node)
        if node is None or value.index >= len(node.results):
            raise GraphError(f"operand {value} does not exist", where=f"%{user}")
        return node.results[value.index]
