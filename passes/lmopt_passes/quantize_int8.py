"""quantize-int8: post-training quantization to int8 storage, kernels per channel."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, Observer, Pass, PassContext, PassResult, QuantScheme
from lmopt.quant.assign import EdgeType, check_quantizable, plan_grids, quantize_graph

INT8 = QuantScheme(DType.I8, per_channel=True)
UINT8 = QuantScheme(DType.U8, per_channel=False)


@dataclass(frozen=True)
class QuantizeInt8(Pass):
    """Puts a folded float graph on int8 grids calibrated on training faces.

    Attributes:
        observer: How an activation's range is chosen: min-max, percentile or mse.
        faces: Calibration faces drawn from the training split.
        input: Element type of the inputs: float32, uint8 (the picture's bytes) or int8.
        output: Element type of the outputs.
        keep_float: Nodes that stay in float32; `stage1_*` means all that begin so.

    Source: Jacob et al., CVPR 2018; TensorFlow Lite 8-bit quantization specification.
    """

    name: ClassVar[str] = "quantize-int8"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATOR})
    observer: Observer = "percentile"
    faces: int = 200
    input: EdgeType = "uint8"
    output: EdgeType = "float32"
    keep_float: tuple[str, ...] = ()

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        scheme = keeping(graph, INT8, self.keep_float)
        return post_training(graph, ctx, scheme, self.observer, self.faces, self.input, self.output)


def keeping(graph: Graph, scheme: QuantScheme, patterns: Sequence[str]) -> QuantScheme:
    """Returns a scheme under which the nodes that match a pattern stay in float32.

    Raises:
        PassError: A pattern matches no node.
    """
    real: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter((node.name for node in graph.nodes), pattern)
        if not found:
            raise PassError(
                f"keep-float: no node is called '{pattern}'",
                where=graph.name,
                hint="lmopt inspect --ir shows the names",
            )
        real.update(found)
    return replace(scheme, real=frozenset(real) - {node.name for node in graph.inputs})


def post_training(
    graph: Graph,
    ctx: PassContext,
    scheme: QuantScheme,
    observer: Observer,
    faces: int,
    input_type: EdgeType,
    output_type: EdgeType,
) -> PassResult:
    """Returns `graph` calibrated and quantized under `scheme`."""
    check_quantizable(graph)
    plan = plan_grids(graph, scheme)
    owners = plan.owners
    ranges = ctx.calibrator.ranges(graph, owners, observer, faces=faces, storage=scheme.storage)
    result = quantize_graph(graph, ranges, scheme, input_type=input_type, output_type=output_type)
    note = f"{len(owners)} {observer} ranges from {faces} training faces, storage {scheme.storage}"
    if not plan.real:
        return PassResult(result, True, (note,))
    stays = f"{len(plan.real)} nodes stay in float32: %{', %'.join(sorted(plan.real))}"
    return PassResult(result, True, (note, stays))
