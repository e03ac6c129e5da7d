"""fold-batchnorm: batch norms become part of the kernels before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import (
    Add,
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Mul,
    Relu,
    Relu6,
    Sub,
)
from lmopt.ir.types import DType, TensorType, Weight
from lmopt.pipeline.base import Pass, PassContext, PassResult, Preserves

Kernel = Conv2D | Conv2DTranspose | DepthwiseConv2D | Dense
Activated = Kernel | Add | Sub | Mul


@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Folds batch norms into the convolution or dense layer before them, and fuses relu and relu6.

    A batch norm that follows anything else, or a value with other users, stays and is noted.
    Without weights only the structure changes.
    """

    name: ClassVar[str] = "fold-batchnorm"
    preserves: ClassVar[Preserves] = Preserves.VALUES

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        edit = graph.edit()
        kept: list[str] = []
        changes = 0
        for node in graph.nodes:
            if not isinstance(node.op, BatchNorm | Relu | Relu6):
                continue
            before = edit.node(edit.node(node.name).inputs[0].node)
            reason = obstacle(edit, before, node)
            if reason is None:
                absorb(edit, before, node)
                changes += 1
            elif isinstance(node.op, BatchNorm):
                kept.append(f"batch norm '%{node.name}' stays: {reason}")
        if not changes:
            return PassResult(graph, False, tuple(kept))
        return PassResult(edit.done(), True, tuple(kept))


def obstacle(edit: Edit, before: Node, node: Node) -> str | None:
    """Returns why `node` cannot become part of the node before it, or None when it can."""
    allowed = Kernel if isinstance(node.op, BatchNorm) else Activated
    if not isinstance(before.op, allowed):
        return f"it follows {before.op.kind} '%{before.name}'"
    if before.op.activation != "none":
        return f"it follows the {before.op.activation} of '%{before.name}'"
    if before.results[0].dtype is not DType.F32 or node.results[0].dtype is not DType.F32:
        return f"'%{before.name}' is not float32"
    if edit.uses(before.value) != 1:
        return f"'%{before.name}' has other users"
    return None


def absorb(edit: Edit, before: Node, node: Node) -> None:
    """Makes `node` part of the node before it, where there is no `obstacle`."""
    if isinstance(node.op, BatchNorm):
        op = cast(Kernel, before.op)
        edit.set_op(before.name, replace(op, use_bias=True))
        edit.set_weights(before.name, **_folded(before, node, node.op.epsilon))
    else:
        kind: Literal["relu", "relu6"] = "relu" if isinstance(node.op, Relu) else "relu6"
        edit.set_op(before.name, replace(cast(Activated, before.op), activation=kind))
    edit.touch(before.name, FoldBatchnorm.name)
    edit.rewire(Value(node.name), before.value)
    edit.remove(node.name)


def _folded(before: Node, norm: Node, epsilon: float) -> dict[str, Weight | NDArray[np.generic]]:
    """Returns kernel and bias that compute the normalized output.

    Source: Jacob et al., CVPR 2018, equation 14.
    """
    kernel = before.weight("kernel")
    weights = (*before.weights.values(), *norm.weights.values())
    if any(weight.array is None for weight in weights):
        bias_type = TensorType(DType.F32, norm.weight("beta").type.shape)
        return {
            "kernel": Weight(TensorType(DType.F32, kernel.type.shape)),
            "bias": Weight(bias_type),
        }
    gamma, beta, mean, variance = (
        norm.weight(key).real().astype(np.float64) for key in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + epsilon)
    shift = before.weight("bias").real() if "bias" in before.weights else 0.0
    per_kernel = factor
    if isinstance(before.op, DepthwiseConv2D):
        # Its kernel ends in [channels, multiplier]; the output channels run in that order.
        per_kernel = factor.reshape(-1, before.op.multiplier)
    return {
        "kernel": (kernel.real() * per_kernel).astype(np.float32),
        "bias": (beta + (shift - mean) * factor).astype(np.float32),
    }
