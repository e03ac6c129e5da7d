"""to-float16: weights stored in half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import BatchNorm
from lmopt.ir.types import DType, TensorType, Weight
from lmopt.pipeline.base import Pass, PassContext, PassResult, Preserves

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class ToFloat16(Pass):
    """Stores weights as float16; activations stay float32 and targets may compute in either.

    The weights of batch norms that could not be folded stay float32, because small variances
    vanish in float16.
    """

    name: ClassVar[str] = "to-float16"
    preserves: ClassVar[Preserves] = Preserves.SHAPES

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        quantized = next((n for n in graph.nodes if any(t.quant for t in n.results)), None)
        if quantized is not None:
            raise PassError(
                f"'%{quantized.name}' is quantized to {quantized.results[0].dtype}; wanted float32",
                where=self.name,
                hint="a pipeline ends in to-float16 or in a quantization, not in both",
            )
        edit = graph.edit()
        changed = False
        notes: list[str] = []
        for node in graph.nodes:
            if isinstance(node.op, BatchNorm):
                notes.append(f"batch norm '%{node.name}' keeps float32 weights")
                continue
            halved = {
                k: _half(node, k) for k, w in node.weights.items() if w.type.dtype is DType.F32
            }
            if halved:
                edit.set_weights(node.name, **halved)
                edit.touch(node.name, self.name)
                changed = True
        return PassResult(edit.done() if changed else graph, changed, tuple(notes))


def _half(node: Node, key: str) -> Weight:
    weight = node.weights[key]
    if weight.array is None:
        return Weight(TensorType(DType.F16, weight.type.shape))
    largest = float(np.abs(weight.array).max(initial=0.0))
    if not largest <= _LARGEST:
        raise PassError(
            f"weight '{key}' reaches {largest:.4g}, float16 ends at {_LARGEST:.0f}",
            where=f"%{node.name}",
        )
    return Weight.of(weight.array.astype(np.float16))
