"""factorize: dense layers and convolutions replaced by thinner ones in a row."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.factor import (
    Array,
    Directions,
    answer_directions,
    can_factor,
    factor_node,
    operand_directions,
)
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import Conv2D, Dense
from lmopt.ir.size import size_change
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt.pipeline.services import Calibrator, Moments


@dataclass(frozen=True)
class Factorize(Pass):
    """Replaces layers by factors of lower rank where that saves MACs and parameters.

    A layer becomes one of the same window with fewer answers and a 1x1 (or dense) one that makes
    all answers of them; a window larger than a pixel may also get a 1x1 convolution before it that
    reads fewer channels. The answers' directions are those in which they vary most on faces, which
    is the least squared error for that rank, and the mean of the answers is kept.

    Attributes:
        energy: Share of the variance of a layer's answers that its factors keep at least (the
            losses of both sides are added, an upper bound).
        keep: Share of the graph's MACs that may remain; below 1 the energy is lowered, alike for
            all layers, until it does.
        by: Whether energy is that of the answers on `faces`, or that of `kernels`, as if all they
            read varied alike and independently, which needs no faces.
        align: Ranks are multiples of it: kernels compute 8 channels at a time.
        gain: Share of its MACs and of its parameters that a layer must save at least: every factor
            is one more kernel to start, and one more map to write.
        faces: Calibration faces, of the training split.

    Source: Denton et al., "Exploiting Linear Structure Within Convolutional Networks", 2014
        (arXiv:1404.0736); Kim et al., "Compression of Deep Convolutional Neural Networks for Fast
        and Low Power Mobile Applications", 2016 (arXiv:1511.06530).
    """

    name: ClassVar[str] = "factorize"
    energy: float = 0.99
    keep: float = 1.0
    by: Literal["answers", "kernels"] = "answers"
    align: int = 8
    gain: float = 0.25
    faces: int = 200

    def __post_init__(self) -> None:
        for option, share in (("energy", self.energy), ("keep", self.keep)):
            if not 0 < share <= 1:
                raise UsageError(f"{option} is {share:g}, wanted above 0 and at most 1")
        if not 0 <= self.gain < 1:
            raise UsageError(f"gain is {self.gain:g}, wanted at least 0 and below 1")
        for option, count in (("align", self.align), ("faces", self.faces)):
            if count < 1:
                raise UsageError(f"{option} is {count}, wanted at least 1")

    def required(self) -> frozenset[Need]:
        return frozenset({Need.CALIBRATOR}) if self.by == "answers" else frozenset()

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        nodes = [node for node in graph.nodes if can_factor(node)]
        seen = _Seen()
        if self.by == "answers":
            seen = _Seen.on_faces(graph, nodes, ctx.calibrator, self.faces)
        layers = [self._layer(graph, node, seen) for node in nodes]
        chosen = self._chosen(graph, layers)
        if not chosen:
            note = f"no layer whose factors keep {self.energy:.2%} and save {self.gain:.0%}"
            return PassResult(graph, False, (note,))
        edit = graph.edit()
        for layer, split in chosen:
            layer.replace(edit, split)
        result = edit.done()
        notes = [f"{len(chosen)} of {len(nodes)} layers factorized; {size_change(graph, result)}"]
        notes += [layer.told(split) for layer, split in chosen]
        return PassResult(result, True, tuple(notes))

    def _layer(self, graph: Graph, node: Node, seen: _Seen) -> _Layer:
        kernel: Array = node.weight("kernel").real().astype(np.float64)
        answers, operands = seen.answers.get(node.name), seen.operands.get(node.name)
        mean = None if answers is None else answers.mean[0]
        answer = answer_directions(kernel, None if answers is None else answers.covariance[0])
        operand = None
        if _has_window(node):
            known = () if operands is None else (operands.mean[0], operands.covariance[0])
            operand = operand_directions(kernel, *known)
        layer = _Layer(node, operand, answer, mean)
        return replace(layer, splits=self._splits(graph, layer, kernel.shape))

    def _splits(self, graph: Graph, layer: _Layer, shape: tuple[int, ...]) -> tuple[_Split, ...]:
        """Returns every pair of ranks that saves enough, the fewest MACs first."""
        node = layer.node
        (source,), result = graph.input_types(node), node.results[0]
        reads, gives = shape[-2:]
        taps = math.prod(shape[:-2])
        pixels, places = source.elements // reads, result.elements // gives
        before = _Split(0.0, places * taps * reads * gives, taps * reads * gives, None, None)
        most = 1 - self.gain
        found = []
        for enter in (None, *(range(self.align, reads, self.align) if layer.operand else ())):
            for leave in (None, *range(self.align, gives, self.align)):
                inner, outer = enter or reads, leave or gives
                sizes = (
                    (pixels, reads * inner * (enter is not None)),
                    (places, taps * inner * outer),
                    (places, outer * gives * (leave is not None)),
                )
                split = _Split(
                    layer.lost(enter, leave),
                    sum(count * size for count, size in sizes),
                    sum(size for _, size in sizes),
                    enter,
                    leave,
                )
                if (
                    split.macs <= most * before.macs
                    and split.parameters <= most * before.parameters
                ):
                    found.append(replace(split, saved=before.macs - split.macs))
        return tuple(sorted(found, key=lambda split: (split.macs, split.lost)))

    def _chosen(self, graph: Graph, layers: Sequence[_Layer]) -> list[tuple[_Layer, _Split]]:
        """Returns the layers to replace and how, at the highest energy that leaves `keep`."""

        def within(lost: float) -> list[tuple[_Layer, _Split]]:
            fitting = ((layer, layer.within(lost)) for layer in layers)
            return [(layer, split) for layer, split in fitting if split is not None]

        def macs(lost: float) -> int:
            return graph.macs - sum(split.saved for _, split in within(lost))

        least = 1 - self.energy
        if self.keep == 1:
            return within(least)
        losses = sorted({split.lost for layer in layers for split in layer.splits} | {least})
        losses = losses[losses.index(least) :]
        wanted = self.keep * graph.macs
        if macs(losses[-1]) > wanted:
            share = macs(losses[-1]) / graph.macs
            raise PassError(
                f"{self.name} cannot leave {self.keep:.0%} of {graph.macs / 1e6:.1f} M MACs: with "
                f"align={self.align} and gain={self.gain:g} {share:.0%} remain",
                where=graph.name,
                hint=f"keep at least {math.ceil(100 * share) / 100:.2f}, or lower align or gain",
            )
        return within(losses[bisect.bisect_left(losses, True, key=lambda x: macs(x) <= wanted)])


@dataclass(frozen=True)
class _Split:
    """Ranks of a layer's two sides (None is all its channels) and what comes of them."""

    lost: float
    macs: int
    parameters: int
    enter: int | None
    leave: int | None
    saved: int = 0


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer with the directions of both sides and the splits that save enough."""

    node: Node
    operand: Directions | None
    answer: Directions
    mean: Array | None
    splits: tuple[_Split, ...] = ()

    def lost(self, enter: int | None, leave: int | None) -> float:
        """Returns the share of the answers' variance that is lost at most.

        Source: De Lathauwer et al., "A Multilinear Singular Value Decomposition", 2000, property
            10: losses of the sides add up to a bound.
        """
        read = 0.0 if enter is None or self.operand is None else self.operand.lost[enter]
        return float(read + (0.0 if leave is None else self.answer.lost[leave]))

    def within(self, lost: float) -> _Split | None:
        """Returns the split with the fewest MACs that loses no more."""
        return next((split for split in self.splits if split.lost <= lost), None)

    def replace(self, edit: Edit, split: _Split) -> None:
        """Puts the factors in the layer's place."""
        operand, answer = None, None
        if split.enter is not None and self.operand is not None:
            operand = self.operand, split.enter
        if split.leave is not None:
            answer = self.answer, split.leave
        factor_node(edit, self.node, operand, answer, self.mean, Factorize.name)

    def told(self, split: _Split) -> str:
        """Returns what became of the layer, for the report."""
        shape = self.node.weight("kernel").type.shape
        ranks = [f"{rank} {what}" for rank, what in _ranks(split)]
        return (
            f"%{self.node.name} {'x'.join(map(str, shape))}: {', '.join(ranks)}, "
            f"{split.lost:.2%} of the variance lost"
        )


def _ranks(split: _Split) -> list[tuple[int, str]]:
    named = ((split.enter, "read"), (split.leave, "given"))
    return [(rank, what) for rank, what in named if rank is not None]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Moments of what layers give, before the activation, and read, by node; none without faces."""

    answers: Mapping[str, Moments] = field(default_factory=dict)
    operands: Mapping[str, Moments] = field(default_factory=dict)

    @classmethod
    def on_faces(
        cls, graph: Graph, nodes: Sequence[Node], calibrator: Calibrator, faces: int
    ) -> _Seen:
        """Returns the moments on faces, channel by channel, as kernels of one pixel see them."""
        edit = graph.edit()
        probes: dict[str, tuple[str, bool]] = {}

        def probe(value: Value, node: Node, gives: bool) -> None:
            map = isinstance(node.op, Conv2D)
            op = Conv2D(1, (1, 1), use_bias=False) if map else Dense(1, use_bias=False)
            channels = edit.node(value.node).results[value.index].shape[-1]
            assert channels is not None
            kernel = np.zeros((1, 1, channels, 1) if map else (channels, 1), np.float32)
            name = edit.fresh(f"{node.name}_seen")
            edit.add(name, op, value, weights={"kernel": kernel})
            probes[name] = node.name, gives

        for node in nodes:
            value = node.value
            assert isinstance(node.op, Conv2D | Dense)
            if node.op.activation != "none":
                op = replace(node.op, activation="none")
                value = edit.add(
                    edit.fresh(f"{node.name}_sum"), op, *node.inputs, weights=node.weights
                )
            probe(value, node, True)
            if _has_window(node):
                probe(node.inputs[0], node, False)
        found = calibrator.kernel_inputs(edit.done(), list(probes), faces=faces)
        given, read = (
            {node: found[name] for name, (node, gives) in probes.items() if gives is side}
            for side in (True, False)
        )
        return cls(given, read)


def _has_window(node: Node) -> bool:
    return isinstance(node.op, Conv2D) and node.op.kernel != (1, 1)
