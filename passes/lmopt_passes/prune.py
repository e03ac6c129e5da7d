"""prune: channels removed by importance, or small kernel entries set to zero in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError, UsageError
from lmopt.ir.channels import ChannelGroup, ChannelMap, living, map_channels, slice_channels
from lmopt.ir.graph import Graph
from lmopt.ir.importance import channel_importance
from lmopt.ir.size import size_change, strip_weights
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt.pipeline.services import Loss, SparsityPlan, TrainingPlan
from lmopt_passes.channel_budget import Budget, Price
from lmopt_passes.channel_readers import Reader, find_readers, made_up, shares_of

ROUNDS = 4
"""How often the times of channels are found anew on the way to a latency."""


_DENSE = (
    "zeros are stored and multiplied like other numbers: the file is no faster, and smaller only "
    "once it is compressed; method=structured makes it faster"
)


@dataclass(frozen=True)
class Prune(Pass):
    """Removes what matters least.

    `structured` ranks all channels of the graph by importance over the square root of what goes
    with them, so that costly layers give more without one of them giving everything, and removes
    them, through residuals and concats, until at least `amount` of the MACs, or of the time that is
    estimated for the target, are gone: file and time shrink, no training. On calibration faces, a
    channel counts by the share it has in the variance of what reads it, biases take up its mean,
    and the kernels that read it are fitted to give what they gave. `magnitude` trains while the
    smallest `amount` of the entries of every kernel are set to 0 on tfmot's schedule: the file only
    shrinks when compressed.

    Attributes:
        amount: Share of MACs or time (structured) or of kernel entries (magnitude), above 0 and
            below 1.
        method: structured or magnitude.
        importance: structured: activation (on calibration faces), magnitude (norms of kernels,
            relative to their layer), or auto: activation where there are faces.
        reconstruct: structured: whether kernels are re-fitted where there are calibration faces.
        by: structured: whether MACs or the latency estimated for the target shrink by `amount`.
        faces: structured: calibration faces, of the training split.
        min_channels: structured: channels that every layer keeps.
        align: structured: layers keep a multiple of it, or all their channels; kernels compute 8
            channels at a time, so the odd ones save nothing.
        epochs: magnitude: passes over the training faces.
        learning_rate: magnitude: peak rate of Adam.
        batch: magnitude: faces per step.
        loss: magnitude: coordinate loss.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017, and for the share of cost
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference",
        2017, section 2.2 (structured); Zhu and Gupta, "To prune, or not to prune", 2017
        (magnitude).
    """

    name: ClassVar[str] = "prune"
    amount: float = 0.3
    method: Literal["structured", "magnitude"] = "structured"
    importance: Literal["auto", "activation", "magnitude"] = "auto"
    reconstruct: bool = True
    by: Literal["macs", "latency"] = "macs"
    faces: int = 200
    min_channels: int = 4
    align: int = 8
    epochs: float = 2.0
    learning_rate: float = 5e-4
    batch: int = 32
    loss: Loss = "wing"

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise UsageError(f"amount is {self.amount}, wanted above 0 and below 1")
        limits = (("min-channels", self.min_channels), ("align", self.align), ("faces", self.faces))
        for option, value in limits:
            if value < 1:
                raise UsageError(f"{option} is {value}, wanted at least 1")

    def required(self) -> frozenset[Need]:
        if self.method == "magnitude":
            return frozenset({Need.TRAINER})
        wanted = {
            Need.CALIBRATOR: self.importance == "activation",
            Need.COST: self.by == "latency",
        }
        return frozenset(need for need, is_wanted in wanted.items() if is_wanted)

    def follows_target(self) -> bool:
        return self.method == "structured" and self.by == "latency"

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        return (
            self._magnitude(graph, ctx) if self.method == "magnitude" else self._remove(graph, ctx)
        )

    def _magnitude(self, graph: Graph, ctx: PassContext) -> PassResult:
        plan = TrainingPlan(
            epochs=self.epochs, learning_rate=self.learning_rate, batch=self.batch, loss=self.loss
        )
        seed = ctx.derive_seed(f"{self.name}/{graph.digest()}")
        result = ctx.trainer.sparsify(graph, plan, SparsityPlan(self.amount), seed=seed)
        notes = (f"{_zero_share(result):.1%} of kernel entries are 0", _DENSE)
        return PassResult(result, True, notes)

    def _remove(self, graph: Graph, ctx: PassContext) -> PassResult:
        channels = map_channels(graph)
        groups = [group for group in channels.groups if group.removable]
        if not groups:
            raise PassError(f"prune found no channels that may go in '{graph.name}'")
        price = _MACS if self.by == "macs" else self._milliseconds(ctx)
        shapes = strip_weights(graph)
        budget = Budget(shapes, channels, groups, price, self.min_channels, self.align)
        whole, least = budget.cost({}), budget.least
        if least > whole * (1 - self.amount):
            raise PassError(
                f"prune cannot remove {self.amount:.0%} of {price.shown(whole)}: with "
                f"min-channels={self.min_channels} and align={self.align} "
                f"{price.shown(least)} remain",
                where=graph.name,
                hint=f"ask for at most {1 - least / whole:.2f}, or lower the limits",
            )
        readers = self._readers(graph, channels, ctx)
        keep = budget.spend(self._importance(graph, channels, groups, readers), self.amount)
        result = slice_channels(graph, keep, channels)
        gone = sum(group.size - len(keep[group.id]) for group in groups)
        total = sum(group.size for group in groups)
        notes = [f"{gone} of {total} channels removed; {size_change(graph, result)}"]
        if self.by == "latency":
            notes.append(f"estimated {price.shown(whole)} -> {price.shown(price.of(result))}")
        if readers is not None:
            alive = living(channels, keep)
            result = made_up(result, readers, alive, kernels=self.reconstruct)
            notes.append(self._made_up_note(readers, alive))
        elif self._wants_faces:
            notes.append("no calibration faces: ranked by weights, and nothing makes up for losses")
        return PassResult(result, True, tuple(notes))

    def _milliseconds(self, ctx: PassContext) -> Price:
        latency = ctx.cost.latency_ms
        return Price(latency, 1e-6, lambda ms: f"{ms:.3f} ms", step=self.align, rounds=ROUNDS)

    @property
    def _wants_faces(self) -> bool:
        return self.importance != "magnitude" or self.reconstruct

    def _readers(
        self, graph: Graph, channels: ChannelMap, ctx: PassContext
    ) -> tuple[Reader, ...] | None:
        """Returns what reads channels, on faces; None without faces or where none are wanted."""
        if not self._wants_faces:
            return None
        calibrator = ctx.calibrator if self.importance == "activation" else ctx.calibrator_if_any
        if calibrator is None:
            return None
        return find_readers(graph, channels, calibrator, faces=self.faces)

    def _importance(
        self,
        graph: Graph,
        channels: ChannelMap,
        groups: Sequence[ChannelGroup],
        readers: Sequence[Reader] | None,
    ) -> list[NDArray[np.float64]]:
        if readers is not None and self.importance != "magnitude":
            return [np.sqrt(shares_of(group, readers)) for group in groups]
        norms = [channel_importance(graph, channels, group) for group in groups]
        return [each / max(float(each.mean()), np.finfo(float).tiny) for each in norms]

    def _made_up_note(self, readers: Sequence[Reader], alive: NDArray[np.bool_]) -> str:
        changed = [reader for reader in readers if not alive[reader.rows].all()]
        large = [reader for reader in changed if reader.covariance.ndim == 1]
        if not self.reconstruct:
            return f"kernels whose biases stand for means of what went: {len(changed)}"
        fitted = f"kernels re-fitted on up to {self.faces} faces: {len(changed) - len(large)}"
        names = ", ".join(f"%{reader.node.name}" for reader in large)
        return f"{fitted}; too large for that: {names}" if large else fitted


def _zero_share(graph: Graph) -> float:
    kernels = [n.weights["kernel"].real() for n in graph.nodes if "kernel" in n.weights]
    total = sum(kernel.size for kernel in kernels)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / total


_MACS = Price(lambda graph: graph.macs, 1, lambda macs: f"{macs / 1e6:.1f} M MACs")
