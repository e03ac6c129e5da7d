"""legalize: what the target's engine lacks is said with ops that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    AvgPool2D,
    BatchNorm,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    Mean,
    Reshape,
)
from lmopt.ir.types import DType, TensorType, Weight
from lmopt.pipeline.base import Pass, PassContext, PassResult, Preserves
from lmopt_passes.activation import hard_swish_as_product, leaky_as_prelu


@dataclass(frozen=True)
class Legalize(Pass):
    """Rewrites float ops that the target's engine does not run; values stay the same.

    A mean over the whole map becomes average pooling, a lone batch norm a 1x1 depthwise
    convolution, leaky relu a prelu, hard swish a clipped sum times its operand. Every op saved so
    saves two transfers between the engine and the CPU. What stays outside is noted.
    """

    name: ClassVar[str] = "legalize"
    preserves: ClassVar[Preserves] = Preserves.VALUES
    by_target: ClassVar[bool] = True

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        known = ctx.engine.supported_ops
        edit, notes, changed = graph.edit(), [], False
        for node in graph.nodes:
            kind = node.op.kind
            if kind in known or kind in ("input", "constant", "reshape"):
                continue
            rewrite, wanted = _REWRITES.get(type(node.op), (None, frozenset[str]()))
            if (
                rewrite is not None
                and wanted <= known
                and node.results[0].quant is None
                and node.results[0].dtype is DType.F32
                and rewrite(edit, graph, node)
            ):
                edit.touch(node.name, self.name)
                notes.append(f"'%{node.name}': {kind} is said with {', '.join(sorted(wanted))}")
                changed = True
            else:
                notes.append(f"'%{node.name}' stays: the target's engine runs no {kind}")
        if not changed:
            told = notes or ["the target's engine runs every op"]
            return PassResult(graph, False, tuple(told))
        return PassResult(edit.done(), True, tuple(notes))


def _pooled(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a mean average pooling over the whole map."""
    assert isinstance(node.op, Mean)
    height, width = graph.type(node.inputs[0]).shape[1:3]
    if height is None or width is None:
        return False
    pool = AvgPool2D((height, width), (height, width), "valid")
    if node.op.keepdims:
        edit.set_op(node.name, pool)
        return True
    pooled = edit.add(edit.fresh(f"{node.name}_pool"), pool, node.inputs[0], loc=node.loc)
    edit.set_op(node.name, Reshape())
    edit.set_inputs(node.name, pooled)
    return True


def _convolved(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a batch norm over a map a depthwise convolution with a 1x1 window."""
    assert isinstance(node.op, BatchNorm)
    if graph.type(node.inputs[0]).rank != 4:
        return False
    channels = node.weight("gamma").type.shape[0]
    shapes = {"kernel": (1, 1, channels, 1), "bias": (channels,)}
    made = {key: Weight(TensorType(DType.F32, shape)) for key, shape in shapes.items()}
    if all(weight.array is not None for weight in node.weights.values()):
        gamma, beta, mean, variance = (
            node.weight(key).real() for key in ("gamma", "beta", "mean", "variance")
        )
        factor = gamma / np.sqrt(variance + node.op.epsilon)
        bias = beta - mean * factor
        made = {
            "kernel": Weight.of(factor.reshape(shapes["kernel"]).astype(np.float32)),
            "bias": Weight.of(bias.astype(np.float32)),
        }
    edit.set_op(node.name, DepthwiseConv2D((1, 1)))
    edit.set_weights(node.name, **dict.fromkeys(node.weights), **made)
    return True


_REWRITES: Mapping[type[Op], tuple[Callable[[Edit, Graph, Node], bool], frozenset[str]]] = {
    Mean: (_pooled, frozenset({"avg_pool2d"})),
    BatchNorm: (_convolved, frozenset({"depthwise_conv2d"})),
    LeakyRelu: (leaky_as_prelu, frozenset({"prelu"})),
    HardSwish: (hard_swish_as_product, frozenset({"add", "mul"})),
}
"""What says the same as an op, and the ops it takes."""
