"""The text of graphs: printing, and a parser that gives the same graph back.

One statement per node, in topological order:

    graph two-convs
    %image = input() : f32[?,8,8,3]
    %stem = conv2d(%image) {filters=4, stride=2} [bias=f32[4]@.., kernel=f32[3,3,3,4]@..] : f32[..]
    output features = %stem

Attributes at their default are left out; a pair of equal numbers prints as one. A weight prints
by digest and is looked up when it is parsed; `@unset` has no values yet. By hand one may also
write `f32[2]=[1.0, 2.0]`, `f32[2]=0.5` (filled) and `f32[3,3,3,4]~7` (normal draw from seed 7,
scaled by 1/sqrt(fan-in)), leave result types to inference, and comment after `//`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

import numpy as np

from lmopt.errors import GraphError, LmoptError, did_you_mean
from lmopt.ir.graph import Graph, Loc, Node, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import OPS, Input
from lmopt.ir.syntax import Scanner, build, field_texts, scan_fields
from lmopt.ir.types import DType, Quant, TensorType, Weight
from lmopt.ir.verify import verify

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/+-]*")
_KIND = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"[+-]?(?:inf|nan|\d+\.?\d*(?:e[+-]?\d+)?)")
_COUNT = re.compile(r"\d+")
_DIGEST = re.compile(r"[0-9a-f]+|unset")


def print_graph(graph: Graph) -> str:
    """Returns the text of a graph, ending in a newline; provenance is not printed."""
    lines = [f"graph {_quoted(graph.name)}"]
    lines += [print_node(node) for node in graph.nodes]
    lines += [f"output {_quoted(name)} = {_value(value)}" for name, value in graph.outputs]
    return "\n".join(lines) + "\n"


def print_node(node: Node) -> str:
    """Returns the text of one node."""
    attributes = ", ".join(f"{key}={text}" for key, text in field_texts(node.op).items())
    weights = ", ".join(f"{key}={_weight(node.weights[key])}" for key in sorted(node.weights))
    return "".join(
        (
            f"%{_quoted(node.name)} = {node.op.kind}({', '.join(map(_value, node.inputs))})",
            f" {{{attributes}}}" if attributes else "",
            f" [{weights}]" if weights else "",
            f" : {', '.join(map(str, node.results))}",
        )
    )


def weights_of(graph: Graph) -> dict[str, Weight]:
    """Returns the weights that have values by digest: what `parse_graph` looks up."""
    weights = (w for node in graph.nodes for w in node.weights.values())
    return {weight.digest: weight for weight in weights if weight.array is not None}


def parse_graph(
    text: str, weights: Mapping[str, Weight] | None = None, *, where: str = "graph"
) -> Graph:
    """Returns the verified graph that `text` describes.

    Args:
        text: What `print_graph` gives, or the same written by hand.
        weights: Weights by digest, see `weights_of`.
        where: What error messages call the text.

    Raises:
        GraphError: Text that does not parse (at line:column) or a graph that does not verify.
    """

    def blame(what: str, position: int, hint: str | None) -> LmoptError:
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        return GraphError(what, where=f"{where}:{line}:{column}", hint=hint)

    return _Parser(Scanner(text, blame, comments=True), weights or {}).graph()


def _quoted(name: str) -> str:
    return name if _NAME.fullmatch(name) else json.dumps(name)


def _value(value: Value) -> str:
    return f"%{_quoted(value.node)}" + (f":{value.index}" if value.index else "")


def _weight(weight: Weight) -> str:
    grid = weight.type.quant
    if weight.array is None and grid is not None and grid.axis is not None:
        steps = ", ".join(f"{s!r}:{z}" for s, z in zip(grid.scale, grid.zero_point, strict=True))
        return f"{weight.type}<{steps} axis {grid.axis}>@unset"
    return f"{weight.type}@{weight.digest}"


class _Parser:
    def __init__(self, scanner: Scanner, weights: Mapping[str, Weight]) -> None:
        self.scanner = scanner
        self.weights = weights
        self.nodes: list[Node] = []
        self.types: dict[Value, TensorType] = {}

    def graph(self) -> Graph:
        scan = self.scanner
        scan.expect("graph")
        name = scan.word(_NAME, "the graph's name")
        while scan.sees("%"):
            self.node()
        outputs: list[tuple[str, Value]] = []
        while scan.accept("output"):
            output = scan.word(_NAME, "the output's name")
            scan.expect("=")
            outputs.append((output, self.operand()))
        if not scan.done:
            scan.fail(f"expected '%', 'output' or the end, got {scan.rest()}")
        graph = Graph(name, tuple(self.nodes), tuple(outputs))
        verify(graph)
        return graph

    def node(self) -> None:
        scan = self.scanner
        start = scan.skip()
        scan.expect("%")
        name = scan.word(_NAME, "a node name")
        if Value(name) in self.types:
            scan.fail(f"a node '%{name}' exists already", at=start)
        scan.expect("=")
        kind_at = scan.skip()
        kind = scan.match(_KIND, "an operation")
        if kind not in OPS:
            scan.fail(f"unknown operation '{kind}'", at=kind_at, hint=did_you_mean(kind, OPS))
        operands = self.operands()
        attributes = scan_fields(scan, "}") if scan.accept("{") else {}
        op = build(OPS[kind], attributes, scan, kind, kind_at)
        weights = self.node_weights() if scan.accept("[") else {}
        results = self.results(op, operands, kind_at)
        self.nodes.append(Node(name, op, operands, results, weights, Loc(name)))
        self.types.update({Value(name, k): t for k, t in enumerate(results)})

    def operands(self) -> tuple[Value, ...]:
        scan = self.scanner
        scan.expect("(")
        operands: list[Value] = []
        while not scan.accept(")"):
            if operands:
                scan.expect(",")
            operands.append(self.operand())
        return tuple(operands)

    def operand(self) -> Value:
        scan = self.scanner
        start = scan.skip()
        scan.expect("%")
        name = scan.word(_NAME, "a node name")
        index = int(scan.match(_COUNT, "a result number")) if scan.accept(":") else 0
        value = Value(name, index)
        if value not in self.types:
            names = [node.name for node in self.nodes]
            scan.fail(f"{value} is not defined before", at=start, hint=did_you_mean(name, names))
        return value

    def results(self, op: Op, operands: tuple[Value, ...], at: int) -> tuple[TensorType, ...]:
        scan = self.scanner
        if scan.accept(":"):
            types = [self.type()]
            while scan.accept(","):
                types.append(self.type())
            return tuple(types)
        if isinstance(op, Input):
            scan.fail("an input needs its type, like `: f32[?,112,112,3]`", at=scan.skip())
        try:
            return op.infer([self.types[value] for value in operands])
        except GraphError as error:
            scan.fail(error.what, at=at, hint=error.hint)

    def type(self) -> TensorType:
        scan = self.scanner
        start = scan.skip()
        name = scan.match(_KIND, "an element type")
        if name not in {d.value for d in DType}:
            known = [d.value for d in DType]
            scan.fail(
                f"unknown element type '{name}' (there are: {', '.join(known)})",
                at=start,
                hint=did_you_mean(name, known),
            )
        scan.expect("[")
        shape: list[int | None] = []
        while not scan.accept("]"):
            if shape:
                scan.expect(",")
            shape.append(
                None if scan.accept("?") else int(scan.match(_COUNT, "a dimension or '?'"))
            )
        grid = self.grid()
        try:
            return TensorType(DType(name), tuple(shape), grid)
        except GraphError as error:
            scan.fail(error.what, at=start)

    def grid(self) -> Quant | None:
        scan = self.scanner
        if not scan.accept("<"):
            return None
        start = scan.skip()
        scales: list[float] = []
        zeros: list[int] = []
        while not scales or scan.accept(","):
            scales.append(float(scan.match(_NUMBER, "a scale")))
            scan.expect(":")
            zeros.append(int(scan.match(re.compile(r"-?\d+"), "a zero point")))
        axis = int(scan.match(_COUNT, "an axis")) if scan.accept("axis") else None
        scan.expect(">")
        try:
            return Quant(tuple(scales), tuple(zeros), axis)
        except GraphError as error:
            scan.fail(error.what, at=start)

    def node_weights(self) -> dict[str, Weight]:
        scan = self.scanner
        weights: dict[str, Weight] = {}
        while not weights or scan.accept(","):
            start = scan.skip()
            key = scan.match(_KIND, "a weight's name")
            if key in weights:
                scan.fail(f"weight '{key}' is given twice", at=start)
            scan.expect("=")
            weights[key] = self.weight()
        scan.expect("]")
        return weights

    def weight(self) -> Weight:
        scan = self.scanner
        start = scan.skip()
        type = self.type()
        if None in type.shape:
            scan.fail(f"a weight needs known dimensions, got {type}", at=start)
        if scan.accept("@"):
            return self.stored(type, scan.match(_DIGEST, "a digest or 'unset'"), start)
        if scan.accept("~"):
            return self.drawn(type, int(scan.match(_COUNT, "a seed")), start)
        scan.expect("=")
        return self.literal(type)

    def stored(self, type: TensorType, digest: str, at: int) -> Weight:
        if digest == "unset":
            return Weight(type)
        weight = self.weights.get(digest)
        if weight is None:
            self.scanner.fail(f"no weight with digest {digest} was given", at=at)
        if str(weight.type) != str(type):
            self.scanner.fail(f"weight {digest} is {weight.type}, not {type}", at=at)
        return weight

    def drawn(self, type: TensorType, seed: int, at: int) -> Weight:
        shape = tuple(d for d in type.shape if d is not None)
        real = np.random.default_rng(seed).normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
        if type.quant is not None:
            return Weight(type, type.quant.quantize(real, type.dtype))
        if not type.dtype.is_float:
            self.scanner.fail(f"a draw needs a float type or a grid, got {type}", at=at)
        return Weight(type, real.astype(type.dtype.numpy))

    def literal(self, type: TensorType) -> Weight:
        scan = self.scanner
        start = scan.skip()
        fill = not scan.accept("[")
        numbers = [self.number(type)]
        while not fill and not scan.accept("]"):
            scan.expect(",")
            numbers.append(self.number(type))
        if not fill and len(numbers) != type.elements:
            scan.fail(f"{type} holds {type.elements} numbers, got {len(numbers)}", at=start)
        shape = tuple(d for d in type.shape if d is not None)
        array = np.array(numbers * type.elements if fill else numbers, type.dtype.numpy)
        return Weight(type, array.reshape(shape))

    def number(self, type: TensorType) -> float | int:
        scan = self.scanner
        start = scan.skip()
        text = scan.match(_NUMBER, "a number")
        if type.dtype.is_float:
            return float(text)
        low, high = type.dtype.bounds
        if not re.fullmatch(r"[+-]?\d+", text) or not low <= int(text) <= high:
            scan.fail(f"{type.dtype} holds integers from {low} to {high}, got {text}", at=start)
        return int(text)
