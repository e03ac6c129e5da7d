"""equalize: channels that share a scale are brought to ranges alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Abs, BatchNorm, Constant, Input, MaxPool2D
from lmopt.ir.scaling import ScaleMap, map_scales, rescale
from lmopt.pipeline.base import Calibrator, Need, Pass, PassContext, PassResult, Preserves
from lmopt.quant.equalize import equalizing_scales


@dataclass(frozen=True)
class Equalize(Pass):
    name: ClassVar[str] = "equalize"
    preserves: ClassVar[Preserves] = Preserves.VALUES
    kernels: Literal["per-tensor", "per-channel"] = "per-tensor"
    activations: float = 1.0
    exact: bool = True
    faces: int = 200
    rms: bool = False

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        units = map_scales(graph)
        peaks = _peaks(graph, units, ctx.calibrator, self.faces, self.rms) if self.activations else {}
        scales = equalizing_scales(graph, units, peaks, per_channel=self.kernels == "per-channel", activation_weight=self.activations)
        if self.exact:
            scales = 2.0 ** np.rint(np.log2(scales))
        print(self.kernels, len(scales), units.free.sum(), scales.min(), scales.max())
        return PassResult(rescale(graph, units, scales), True, ())


def _peaks(graph, units, calibrator, faces, rms=False):
    """Returns the mean over faces of every channel's largest magnitude in a picture."""
    edit, watched = graph.edit(), {}
    from lmopt.ir.ops import Square, Mean
    for node in graph.nodes:
        if isinstance(node.op, Input | Constant) or node.op.keeps_grid or not units.free[units.of[node.value]].any():
            continue
        size = graph.type(node.value).shape[1:-1]
        peak = edit.add(edit.fresh("magnitude"), Square() if rms else Abs(), node.value)
        if len(size) == 2:
            peak = edit.add(edit.fresh("peak"), Mean() if rms else MaxPool2D(size, size), peak)
        watched[node.value] = peak
    extended = edit.done()
    means = calibrator.means(extended, list(watched.values()), faces=faces)
    return {v: np.maximum.reduce(m.reshape(-1, m.shape[-1])) ** (0.5 if rms else 1) for v, m in ((v, means[p]) for v, p in watched.items())}
