"""equalize: channels that share a scale are brought to ranges alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Abs, MaxPool2D, Mean, Square
from lmopt.ir.scaling import ScaleMap, Scales, map_scales, rescale
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult, Preserves
from lmopt.pipeline.services import Calibrator, QuantScheme
from lmopt.quant.assign import plan_grids
from lmopt.quant.equalize import ChannelStatistics, even_scales, quiet_scales
from lmopt.quant.weights import KERNEL_AXIS
from lmopt_passes.scheme import INT8, UINT8

FACES = 50
"""Faces that tell the units.

More bring nothing: with 25, 50 and 200 the landmarks of pfld-0.25@300w shift by 0.32, 0.34, 0.35 %
in int8 and 0.36, 0.33, 0.38 % in uint8, those of pfld-1.0@300w by 0.29, 0.29, 0.29 and 0.32, 0.33,
0.31 % (193 validation faces, 2026-11-22).
"""


@dataclass(frozen=True)
class Equalize(Pass):
    """Divides channels where they are made and multiplies them where they are read.

    What shares one scale (a kernel, an activation) then holds channels that eight bits divide about
    as finely as each needs. Units pass through depthwise convolutions, relu, prelu, pools, sums and
    concats; those that relu6, sigmoid, a product or the border of the graph bends or fixes stay.

    Attributes:
        kernels: Whether the kernels will have one scale (uint8) or one per output channel (int8).
        by: What is made least: `noise`, that of all kernels and activations in the answers, or the
            unevenness of the `ranges` of kernels alone, which needs no faces.
        exact: Whether scales are powers of two, which leaves every answer as it was to the bit.
        faces: Calibration faces, of the training split, for the ranges of activations.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
        2019 (arXiv:1906.04721), section 4.1.
    """

    name: ClassVar[str] = "equalize"
    preserves: ClassVar[Preserves] = Preserves.VALUES
    kernels: Literal["per-tensor", "per-channel"] = "per-tensor"
    by: Literal["noise", "ranges"] = "noise"
    exact: bool = False
    faces: int = FACES

    def required(self) -> frozenset[Need]:
        return frozenset({Need.CALIBRATOR}) if self.by == "noise" else frozenset()

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        if not graph.is_initialized:
            raise PassError(
                "equalization needs weights",
                where=graph.name,
                hint="train the detector first: lmopt train DETECTOR --data PATH",
            )
        for node in graph.nodes:
            if node.results[0].dtype is not DType.F32:
                raise PassError(
                    f"the graph is not float32 any more ({node.results[0]})",
                    where=f"%{node.name}",
                    hint="equalize the float32 graph, before it is quantized",
                )
        per_channel = self.kernels == "per-channel"
        if self.by == "noise":
            scheme = INT8 if per_channel else UINT8
            units, scales = quiet(graph, ctx.calibrator, scheme, faces=self.faces)
        else:
            units = map_scales(graph)
            scales = even_scales(graph, units, per_channel=per_channel)
        if self.exact:
            scales = 2.0 ** np.rint(np.log2(scales))
        result, note = _rescaled(graph, units, scales)
        return PassResult(result, result is not graph, (note,))


def equalized(
    graph: Graph, calibrator: Calibrator, scheme: QuantScheme, *, faces: int
) -> tuple[Graph, str]:
    """Returns the graph with the units that make the least noise on at most `faces`, and a note."""
    units, scales = quiet(graph, calibrator, scheme, faces=min(faces, FACES))
    return _rescaled(graph, units, scales)


def _rescaled(graph: Graph, units: ScaleMap, scales: Scales) -> tuple[Graph, str]:
    moved = scales[scales != 1]
    note = f"{len(moved)} of {len(scales)} channels rescaled"
    if not len(moved):
        return graph, note
    note += f", by {1 / moved.max():.3g} to {1 / moved.min():.3g}"
    return rescale(graph, units, scales), note


def quiet(
    graph: Graph, calibrator: Calibrator, scheme: QuantScheme, *, faces: int
) -> tuple[ScaleMap, Scales]:
    """Returns the units of a graph's channels and the scales with the least noise on faces.

    What 16 bits round away of values is next to nothing: there the noise of kernels alone counts.
    """
    units = map_scales(graph)
    wide = scheme.storage is DType.I16
    stored = () if wide else plan_grids(graph, replace(scheme, real=frozenset())).owners
    statistics = _statistics(graph, stored, calibrator, faces)
    return units, quiet_scales(graph, units, statistics, stored, per_channel=scheme.per_channel)


def _statistics(
    graph: Graph, stored: Sequence[Value], calibrator: Calibrator, faces: int
) -> dict[Value, ChannelStatistics]:
    """Returns the peaks (their mean over faces) and powers of what is stored or read by kernels."""
    watched = dict.fromkeys(stored)
    for node in graph.nodes:
        if node.op.kind in KERNEL_AXIS:
            watched[node.inputs[0]] = None
    edit, places = graph.edit(), dict[Value, tuple[Value, Value]]()
    for value in watched:
        peak = edit.add(edit.fresh("magnitude"), Abs(), value)
        power = edit.add(edit.fresh("power"), Square(), value)
        if graph.type(value).rank == 4:
            height, width = graph.type(value).shape[1:3]
            size = (height or 1, width or 1)
            peak = edit.add(edit.fresh("peak"), MaxPool2D(size, size), peak)
            power = edit.add(edit.fresh("mean_power"), Mean(), power)
        places[value] = peak, power
    wanted = [place for pair in places.values() for place in pair]
    means = calibrator.means(edit.done(), wanted, faces=faces)

    def rows(place: Value) -> NDArray[np.float64]:
        return means[place].reshape(-1, means[place].shape[-1])

    return {
        value: ChannelStatistics(rows(peak).max(axis=0), rows(power).mean(axis=0))
        for value, (peak, power) in places.items()
    }
