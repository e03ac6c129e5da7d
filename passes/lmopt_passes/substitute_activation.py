"""substitute-activation: activations a target lacks, or that cost much, become cheaper ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import Constant, LeakyRelu, Minimum, Mul, PRelu, Relu, Relu6, Square
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt_passes.activation import as_hard_sigmoid, leaky_as_prelu
from lmopt_passes.fold_batchnorm import absorb, obstacle

AUTO = "auto"
FACES = 50
"""Calibration faces that tell a slope: one number from thousands of values of each."""

INSTEAD: Mapping[str, tuple[str, ...]] = {
    "relu": ("relu6",),
    "relu6": ("relu",),
    "leaky_relu": ("prelu", "relu", "relu6"),
    "prelu": ("leaky_relu", "relu", "relu6"),
    "hard_swish": ("leaky_relu", "relu", "relu6"),
    "sigmoid": ("hard_sigmoid",),
}
"""What can stand for an activation, the nearest first."""
CHEAPEST: Mapping[str, str] = {
    **dict.fromkeys(INSTEAD, "relu"),
    "relu": "relu6",
    "sigmoid": "hard_sigmoid",
}
"""What stands for an activation where nothing but its time is wrong with it."""


@dataclass(frozen=True)
class SubstituteActivation(Pass):
    """Replaces activations by cheaper ones, or by ones that the target's engine has.

    `leaky_relu` gets the slope that errs least on faces, for each activation its own; in a run
    without faces, the mean of the slopes of the prelu it replaces. `hard_sigmoid` is a sum and a
    product, `relu6(x + 3) / 6`. What becomes relu or relu6 runs in the kernel before it where it
    can. Values change: meant to be followed by `finetune{distill=0.5}`.

    Attributes:
        old: What is replaced. `auto`: what the engine lacks; if it lacks nothing, what costs most
            time according to the estimate.
        new: What takes its place. `auto`: for what the engine lacks the nearest that it has, else
            the cheapest: relu, for a relu relu6, for a sigmoid hard_sigmoid.
    """

    name: ClassVar[str] = "substitute-activation"
    by_target: ClassVar[bool] = True
    old: Literal["auto", "relu", "relu6", "leaky_relu", "prelu", "hard_swish", "sigmoid"] = "auto"
    new: Literal["auto", "relu", "relu6", "leaky_relu", "prelu", "hard_sigmoid"] = "auto"

    def __post_init__(self) -> None:
        if self.old != AUTO and not self._candidates(self.old):
            raise UsageError(
                f"{self.new} cannot stand for {self.old}",
                hint=f"new: {', '.join(INSTEAD[self.old])}",
            )

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        present = [kind for kind in INSTEAD if _ending_in(graph, kind)]
        if self.old != AUTO and self.old not in present:
            raise PassError(
                f"{self.name} found no {self.old} to replace",
                where=graph.name,
                hint=f"it has {', '.join(present) or 'no activations'}",
            )
        if self.old != AUTO:
            return self._replaced(graph, ctx, {self.old: self._cheapest(self.old)})
        engine = ctx.engine_if_any
        if engine is not None:
            alone = {node.op.kind for node in graph.nodes}
            lacking = [kind for kind in present if kind in alone - engine.supported_ops]
            if lacking:
                return self._legal(graph, ctx, lacking, engine.supported_ops)
        return self._faster(graph, ctx, present)

    def _legal(
        self, graph: Graph, ctx: PassContext, lacking: Sequence[str], known: frozenset[str]
    ) -> PassResult:
        """Returns the graph without the activations that the engine lacks, as far as that goes."""
        ways: dict[str, str] = {}
        notes: list[str] = []
        for old in lacking:
            found = [new for new in self._candidates(old) if _ops_of(new) <= known]
            if found:
                ways[old] = found[0]
            else:
                notes.append(f"{old} stays: the target's engine has nothing that stands for it")
        return self._replaced(graph, ctx, ways, *notes)

    def _faster(self, graph: Graph, ctx: PassContext, present: Sequence[str]) -> PassResult:
        """Returns the graph without the activation whose substitution saves most time."""
        cost = ctx.cost_if_any
        if cost is None:
            note = "no engine lacks an activation and no times are known: name one with old"
            return PassResult(graph, False, (note,))
        before = cost.latency_ms(graph)
        tried = [
            self._replaced(graph, ctx, {old: self._cheapest(old)})
            for old in present
            if self._candidates(old)
        ]
        times = [cost.latency_ms(made.graph) for made in tried]
        if not times or min(times) >= before:
            return PassResult(graph, False, ("no activation costs more than what stands for it",))
        best = tried[times.index(min(times))]
        note = f"estimated {before:.3g} ms -> {min(times):.3g} ms in float32"
        return replace(best, notes=(*best.notes, note))

    def _candidates(self, old: str) -> list[str]:
        """Returns what may stand for an activation, the nearest first."""
        return [new for new in INSTEAD[old] if self.new in (AUTO, new)]

    def _cheapest(self, old: str) -> str:
        return CHEAPEST[old] if self.new == AUTO else self.new

    def _replaced(
        self, graph: Graph, ctx: PassContext, ways: Mapping[str, str], *notes: str
    ) -> PassResult:
        """Returns the graph with activations replaced, old by new."""
        edit = graph.edit()
        told: list[str] = []
        for old, new in ways.items():
            nodes = _ending_in(graph, old)
            slopes = _slopes(graph, nodes, ctx) if new == "leaky_relu" else {}
            for node in nodes:
                edit.touch(node.name, self.name)
                _rewrite(edit, graph, edit.node(node.name), old, new, slopes.get(node.name, 0.0))
            places = ", ".join(
                f"%{node.name}" + (f" ({slopes[node.name]:.3g})" if slopes else "")
                for node in nodes
            )
            told.append(f"{old} became {new}: {places}")
        return PassResult(edit.done() if ways else graph, bool(ways), (*told, *notes))


def _ending_in(graph: Graph, kind: str) -> tuple[Node, ...]:
    """Returns the nodes that are an activation of a kind, or end in one."""
    return tuple(
        node
        for node in graph.nodes
        if kind in (node.op.kind, getattr(node.op, "activation", "none"))
    )


def _ops_of(new: str) -> frozenset[str]:
    return frozenset({"add", "mul"} if new == "hard_sigmoid" else {new})


def _rewrite(edit: Edit, graph: Graph, node: Node, old: str, new: str, slope: float) -> None:
    """Puts an activation in the place of another, in the kernel before it where it can be."""
    if node.op.kind != old:
        edit.set_op(node.name, replace(cast(Any, node.op), activation=new))
    elif new == "hard_sigmoid":
        as_hard_sigmoid(edit, graph, node)
    elif isinstance(node.op, LeakyRelu) and new == "prelu":
        leaky_as_prelu(edit, graph, node)
    else:
        made = {"relu": Relu(), "relu6": Relu6(), "leaky_relu": LeakyRelu(slope)}[new]
        edit.set_op(node.name, made)
        edit.set_weights(node.name, **dict.fromkeys(node.weights))
        before = edit.node(node.inputs[0].node)
        if new != "leaky_relu" and obstacle(edit, before, edit.node(node.name)) is None:
            absorb(edit, before, edit.node(node.name))


def _slopes(graph: Graph, nodes: Sequence[Node], ctx: PassContext) -> dict[str, float]:
    """Returns the slope below 0 that comes nearest to each activation.

    Raises:
        PassError: There are neither faces nor slopes to tell it, or no weights.
    """
    require_weights(graph, SubstituteActivation.name)
    calibrator = ctx.calibrator_if_any
    if calibrator is None and all(isinstance(node.op, PRelu) for node in nodes):
        return {node.name: float(node.weight("alpha").real().mean()) for node in nodes}
    edit = graph.edit()
    zero = edit.add(edit.fresh("zero"), Constant((1,)), weights={"value": np.zeros(1, np.float32)})
    watched = {}
    for node in nodes:
        below = edit.add(edit.fresh(f"{node.name}_below"), Minimum(), node.inputs[0], zero)
        product = edit.add(edit.fresh(f"{node.name}_product"), Mul(), node.value, below)
        power = edit.add(edit.fresh(f"{node.name}_power"), Square(), below)
        watched[node.name] = product, power
    wanted = [value for pair in watched.values() for value in pair]
    means = ctx.calibrator.means(edit.done(), wanted, faces=FACES)
    sums = {name: [float(means[value].sum()) for value in pair] for name, pair in watched.items()}
    return {name: product / power if power else 0.0 for name, (product, power) in sums.items()}
