"""finetune: trains the weights a graph has, as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmopt.errors import UsageError
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float, require_weights
from lmopt.pipeline.services import Loss, TrainingPlan
from lmopt.pipeline.validation import Validation


def check_training(epochs: float, learning_rate: float, batch: int, distill: float) -> None:
    """Raises UsageError unless these options describe a training."""
    for option, value in (("epochs", epochs), ("learning-rate", learning_rate)):
        if not value > 0:
            raise UsageError(f"{option} is {value}, wanted above 0")
    if batch < 1:
        raise UsageError(f"batch is {batch}, wanted at least 1")
    if not 0 <= distill <= 1:
        raise UsageError(f"distill is {distill:g}, wanted 0 to 1")


@dataclass(frozen=True)
class Finetune(Pass):
    """Trains the float weights on the run's training faces; the structure stays.

    Attributes:
        epochs: Passes over the training faces (may be a fraction).
        learning_rate: Peak rate of Adam, cosine decay to 0.
        batch: Faces per step.
        loss: Coordinate loss in input pixels, or another that fits the graph.
        keep: The best epoch by the validation faces, or the last.
        distill: Part of the loss (0 to 1) that goes to what a teacher says about the same crops:
            the detector as it entered the pipeline, or the one given with --teacher.
    """

    name: ClassVar[str] = "finetune"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TRAINER})
    epochs: float = 2.0
    learning_rate: float = 1e-3
    batch: int = 32
    loss: Loss = "wing"
    keep: Literal["best", "last"] = "best"
    distill: float = 0.0

    def __post_init__(self) -> None:
        check_training(self.epochs, self.learning_rate, self.batch, self.distill)

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        require_weights(graph, self.name)
        plan = TrainingPlan(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch=self.batch,
            loss=self.loss,
            teacher=ctx.teacher(self.distill),
        )
        seed = ctx.derive_seed(f"{self.name}/{graph.digest()}")
        scorer = ctx.scorer_if_any if self.keep == "best" else None
        validation = None
        if scorer is not None:
            score = scorer.nme_percent
            validation = Validation(lambda epoch: score(epoch.graph), scorer.digest)
        result = ctx.trainer.finetune(graph, plan, seed=seed, validation=validation)
        taught = f", {self.distill:.0%} of it a teacher's" if self.distill else ""
        kept = "kept the last epoch" if validation is None else str(validation)
        note = f"{self.epochs:g} epochs of {self.loss} loss{taught}"
        return PassResult(result, True, (note, kept))
