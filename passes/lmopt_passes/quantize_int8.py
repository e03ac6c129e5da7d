"""quantize-int8: post-training quantization to int8 storage, kernels per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult
from lmopt.pipeline.services import Observer, Rounding
from lmopt.target.profile import EndType
from lmopt_passes.post_training import PostTraining
from lmopt_passes.scheme import INT8, check_faces, keeping


@dataclass(frozen=True)
class QuantizeInt8(Pass):
    """Puts a folded float graph on int8 grids calibrated on training faces.

    Answers that are float32 are computed as their mean over the calibration faces, in float32, and
    the rest in integers; their mean is then corrected to the float graph's.

    Attributes:
        observer: How an activation's range is chosen: min-max, percentile, mse or kl.
        faces: Calibration faces drawn from the training split; 0 takes as many as pay: until twice
            as many save less than 5 % of the rounding error on faces not among them.
        input: Element type of the inputs: float32, uint8 (the picture's bytes), int8 or int16.
        output: Element type of the outputs.
        keep_float: Nodes that stay in float32; `stage1_*` means all that begin so.
        equalize: Whether channels are rescaled first, as by the pass `equalize`: an activation has
            one scale for all of them.
        float_head: Whether the last, cheap layers stay in float32 where the answers are float32,
            and vectors that eight bits cannot hold because rare faces stretch their range.
        rounding: How kernels are rounded: nearest, or reconstructed: so that what they give errs
            least on calibration faces, in some seconds more.

    Source: Jacob et al., CVPR 2018; TensorFlow Lite 8-bit quantization specification.
    """

    name: ClassVar[str] = "quantize-int8"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR})
    observer: Observer = "mse"
    faces: int = 200
    input: EndType = "uint8"
    output: EndType = "float32"
    keep_float: tuple[str, ...] = ()
    equalize: bool = True
    float_head: bool = True
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        check_faces(self.faces)

    def calibrated(self, graph: Graph, ctx: PassContext) -> PostTraining:
        """Returns the graph with its ranges; any part of it can then be quantized."""
        scheme = keeping(graph, INT8, self.keep_float)
        return PostTraining.of(graph, scheme, ctx.calibrator, self, rounding=self.rounding)

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        prepared = self.calibrated(graph, ctx)
        return PassResult(prepared.corrected(), True, prepared.notes)
