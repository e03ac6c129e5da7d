"""qat: training under the rounding that the emitted file will compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmopt.ir.graph import Graph
from lmopt.pipeline.base import (
    Loss,
    Need,
    Observer,
    Pass,
    PassContext,
    PassResult,
    TrainingPlan,
)
from lmopt.quant.assign import EdgeType, check_quantizable, plan_grids, quantize_graph
from lmopt_passes.finetune import check_distill
from lmopt_passes.post_training import INT8, UINT8, keeping


@dataclass(frozen=True)
class Qat(Pass):
    """Trains a folded float graph with tfmot's quantizers on lmopt's grid, then quantizes it.

    Attributes:
        storage: int8 (kernels per channel) or uint8 (per tensor).
        epochs: Passes over the training faces.
        learning_rate: Peak rate of Adam, cosine decay.
        batch: Faces per step.
        loss: Coordinate loss.
        observer: How the ranges to start from are chosen.
        faces: Calibration faces.
        input: Element type of the inputs.
        output: Element type of the outputs.
        keep_float: Nodes that stay in float32; `stage1_*` means all that begin so.
        distill: Part of the loss (0 to 1) that goes to what a teacher says about the same crops:
            the detector as it entered the pipeline, or the one given with --teacher.

    Source: Jacob et al., CVPR 2018, section 3.
    """

    name: ClassVar[str] = "qat"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR, Need.TRAINER})
    storage: Literal["int8", "uint8"] = "int8"
    epochs: float = 2.0
    learning_rate: float = 2e-4
    batch: int = 32
    loss: Loss = "wing"
    observer: Observer = "percentile"
    faces: int = 200
    input: EdgeType = "uint8"
    output: EdgeType = "float32"
    keep_float: tuple[str, ...] = ()
    distill: float = 0.0

    def __post_init__(self) -> None:
        check_distill(self.distill)

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        check_quantizable(graph)
        storage = INT8 if self.storage == "int8" else UINT8
        scheme = keeping(graph, storage, self.keep_float)
        owners = plan_grids(graph, scheme).owners
        start = ctx.calibrator.ranges(
            graph, owners, self.observer, faces=self.faces, storage=scheme.storage
        )
        plan = TrainingPlan(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch=self.batch,
            loss=self.loss,
            teacher=ctx.teacher(self.distill),
        )
        trained, ranges = ctx.trainer.quantization_aware(
            graph, start, scheme, plan, seed=ctx.derive_seed(f"{self.name}/{graph.digest()}")
        )
        result = quantize_graph(
            trained, ranges, scheme, input_type=self.input, output_type=self.output
        )
        note = (
            f"{len(owners)} ranges started from {self.observer} calibration, storage {self.storage}"
        )
        return PassResult(result, True, (note,))
