"""legalize: what the target's engine lacks is said with ops that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.op import Op
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    BatchNorm,
    Constant,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    Mean,
    Mul,
    PRelu,
    Reshape,
)
from lmopt.ir.types import DType, TensorType, Weight
from lmopt.pipeline.base import Pass, PassContext, PassResult, Preserves


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


def _with_slopes(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a leaky relu a prelu whose slopes are all the same."""
    assert isinstance(node.op, LeakyRelu)
    channels = graph.type(node.inputs[0]).shape[-1]
    if channels is None:
        return False
    edit.set_op(node.name, PRelu())
    edit.set_weights(node.name, alpha=np.full(channels, node.op.alpha, np.float32))
    return True


def _multiplied(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a hard swish `relu6(x + 3) * x / 6`."""
    operand = node.inputs[0]

    def constant(stem: str, value: float) -> Value:
        array = np.array([value], np.float32)
        name = edit.fresh(f"{node.name}_{stem}")
        return edit.add(name, Constant((1,)), weights={"value": array}, loc=node.loc)

    def step(stem: str, op: Op, *operands: Value) -> Value:
        return edit.add(edit.fresh(f"{node.name}_{stem}"), op, *operands, loc=node.loc)

    gate = step("gate", Add("relu6"), operand, constant("three", 3.0))
    scaled = step("scaled", Mul(), gate, constant("sixth", 1 / 6))
    edit.set_op(node.name, Mul())
    edit.set_inputs(node.name, scaled, operand)
    return True


_REWRITES: Mapping[type[Op], tuple[Callable[[Edit, Graph, Node], bool], frozenset[str]]] = {
    Mean: (_pooled, frozenset({"avg_pool2d"})),
    BatchNorm: (_convolved, frozenset({"depthwise_conv2d"})),
    LeakyRelu: (_with_slopes, frozenset({"prelu"})),
    HardSwish: (_multiplied, frozenset({"add", "mul"})),
}
"""What says the same as an op, and the ops it takes."""
