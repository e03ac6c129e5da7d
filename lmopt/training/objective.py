"""Objectives: what a training makes small, and which values of the graph it reads for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lmopt.detector.contract import Contract
from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.pipeline.services import Loss, TrainingPlan
from lmopt.training.backend import tf
from lmopt.training.geometry import decode, draw_heatmaps
from lmopt.training.losses import HEATMAP_LOSSES, LOSSES, pfld, pixels_per_unit
from lmopt.training.pose_branch import pose_branch, pose_features

Tensor = Any


class Objective(Protocol):
    """The loss of a batch.

    Attributes:
        reads: Nodes whose values it needs; only what leads to them is computed and trained.
        variables: Its own, trained along and left behind.
        with_traits: Whether batches must carry pose angles and rarities.
    """

    reads: tuple[str, ...]
    variables: Sequence[Any]
    with_traits: bool

    def __call__(self, values: Mapping[str, Tensor], targets: Tensor, *traits: Tensor) -> Tensor:
        """Returns the loss.

        Args:
            values: Of the nodes it reads.
            targets: As the contract encodes them.
            traits: Pose angles and rarities, where it wants them.
        """
        ...


class CoordinateObjective:
    """A coordinate loss on the answer's errors in input pixels."""

    variables: Sequence[Any] = ()
    with_traits = False

    def __init__(self, node: str, loss: Loss, contract: Contract) -> None:
        self.reads: tuple[str, ...] = (node,)
        self._loss = LOSSES[loss]
        self._scale = tf.constant(pixels_per_unit(contract))

    def __call__(self, values: Mapping[str, Tensor], targets: Tensor, *traits: Tensor) -> Tensor:
        """Returns the loss; see `Objective`."""
        return self._loss(_error(values[self.reads[0]], targets, self._scale))


class PfldObjective:
    """PFLD's loss with its pose branch."""

    with_traits = True

    def __init__(self, node: str, graph: Graph, contract: Contract) -> None:
        features = pose_features(graph)
        self.reads: tuple[str, ...] = (node, features)
        self._scale = tf.constant(pixels_per_unit(contract))
        self._branch = pose_branch(graph.node(features).results[0].shape)
        self.variables: Sequence[Any] = self._branch.trainable_variables

    def __call__(self, values: Mapping[str, Tensor], targets: Tensor, *traits: Tensor) -> Tensor:
        """Returns the loss; see `Objective`."""
        (answer, features), (angles, rarity) = (values[name] for name in self.reads), traits
        turned = self._branch(features, training=True) - angles
        return pfld(_error(answer, targets, self._scale), turned, rarity)


class HeatmapObjective:
    """A loss on heatmaps, against Gaussians drawn at the landmarks."""

    variables: Sequence[Any] = ()
    with_traits = False

    def __init__(
        self, node: str, graph: Graph, loss: Loss, contract: Contract, sigma: float
    ) -> None:
        self.reads: tuple[str, ...] = (node,)
        _, height, width, _ = graph.node(node).results[0].shape
        self._cells = (int(height or 0), int(width or 0))
        self._loss, self._contract, self._sigma = HEATMAP_LOSSES[loss], contract, sigma

    def __call__(self, values: Mapping[str, Tensor], targets: Tensor, *traits: Tensor) -> Tensor:
        """Returns the loss; see `Objective`."""
        wanted = draw_heatmaps(decode(targets, self._contract), *self._cells, self._sigma)
        return self._loss(values[self.reads[0]], wanted)


def objective_of(graph: Graph, plan: TrainingPlan, contract: Contract) -> Objective:
    """Returns what a plan makes small for a graph.

    Raises:
        PassError: The graph has no value that could be landmarks or heatmaps.
    """
    if plan.loss == "pfld":
        return PfldObjective(_coordinates(graph, plan, contract), graph, contract)
    if plan.loss in HEATMAP_LOSSES:
        node = _heatmaps(graph, plan, contract)
        return HeatmapObjective(node, graph, plan.loss, contract, plan.heatmap_sigma)
    return CoordinateObjective(_coordinates(graph, plan, contract), plan.loss, contract)


def _error(answer: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    return (tf.reshape(answer, tf.shape(targets)) - targets) * scale


def _coordinates(graph: Graph, plan: TrainingPlan, contract: Contract) -> str:
    outputs = dict(graph.outputs)
    if plan.answer is not None:
        value, place = graph.node(plan.answer).value, f"%{plan.answer}"
    elif contract.output in outputs:
        value, place = outputs[contract.output], f"output {contract.output}"
    else:
        raise PassError(
            f"no output '{contract.output}' (there are {sorted(outputs)})",
            where=graph.name,
            hint="give the contract that belongs to this model",
        )
    elements = graph.type(value).elements
    if elements != 2 * contract.scheme.count:
        raise PassError(
            f"output of {elements} numbers, wanted {2 * contract.scheme.count} for "
            f"{contract.scheme.count} landmarks",
            where=place,
            hint="give the contract that belongs to this model",
        )
    return value.node


def _heatmaps(graph: Graph, plan: TrainingPlan, contract: Contract) -> str:
    count = contract.scheme.count
    nodes = graph.nodes if plan.answer is None else (graph.node(plan.answer),)
    found = [node.name for node in nodes if _is_heatmap(node.results[0].shape, count)]
    if not found:
        raise PassError(
            f"no heatmaps: nothing gives [?, height, width, {count}]",
            where=graph.name if plan.answer is None else f"%{plan.answer}",
            hint=f"choose a loss on coordinates: {', '.join(LOSSES)}",
        )
    return found[-1]


def _is_heatmap(shape: tuple[int | None, ...], count: int) -> bool:
    return len(shape) == 4 and shape[3] == count and min(shape[1] or 0, shape[2] or 0) > 1
