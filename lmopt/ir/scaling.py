"""Channels that can be written in another unit, everywhere at once, without changing an answer.

A value's channel divided by a positive number is made by kernels divided by it and read by kernels
multiplied by it. Activations that are positively homogeneous (f(a x) = a f(x)), pools, padding and
resizing pass it on; a sum wants the same number of both operands. What an op bends (relu6,
sigmoid, a product), inputs and outputs keep their unit.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019
    (arXiv:1906.04721), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.channels import CHANNEL_AXES, TRANSFER, Ids, Side, Ties, Transfer, opaque
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import DepthwiseConv2D
from lmopt.ir.types import DType

Scales = NDArray[np.float64]


@dataclass(frozen=True)
class ScaleMap:
    """The units of a graph's channels.

    Attributes:
        of: For each value the number of the unit of every position of its last axis.
        free: For each number whether the unit may change.
    """

    of: Mapping[Value, Ids]
    free: NDArray[np.bool_]

    def sides(self, node: Node) -> dict[Side, Ids]:
        """Returns the units that a node's first operand and its result are in."""
        sides: dict[Side, Ids] = {"out": self.of[node.value]}
        if node.inputs:
            sides["in"] = self.of[node.inputs[0]]
        return sides


def map_scales(graph: Graph) -> ScaleMap:
    """Returns the units of every value of a graph's channels."""
    ties = Ties(graph)
    ties.follow(_TRANSFER)
    for node in graph.nodes:
        if node.results[0].dtype is not DType.F32:  # what is stored has a grid of its own
            for value in (node.value, *node.inputs):
                ties.pin(ties.of[value])
    numbers, pinned = ties.numbered()
    return ScaleMap({value: numbers[ids] for value, ids in ties.of.items()}, ~pinned)


def rescale(graph: Graph, units: ScaleMap, scales: Scales) -> Graph:
    """Returns the graph with every channel divided by the scale of its unit.

    Args:
        graph: A float graph with weights.
        units: Of the graph.
        scales: A positive number per unit; 1 where it is not free.

    Raises:
        GraphError: A scale is not positive, or that of a unit which is not free is not 1.
    """
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise GraphError("the scale of a channel must be finite and above 0")
    if (scales[~units.free] != 1).any():
        raise GraphError("the scale of an input, an output or what an op bends must be 1")
    edit = graph.edit()
    for node in graph.nodes:
        for key, weight in node.weights.items():
            factors = weight_factors(node, key, units, scales)
            if any((factor != 1).any() for factor in factors):
                array = weight.real().astype(np.float64)
                for factor in factors:
                    array = array * factor
                edit.set_weights(node.name, **{key: array.astype(np.float32)})
    return edit.done()


def find_scales(graph: Graph, units: ScaleMap, rescaled: Graph) -> Scales:
    """Returns the scales with which `rescale` makes one graph of another, as its kernels tell.

    Nodes belong together by name. Kernels that were rounded since give their scales up to that;
    units that no common kernel makes keep 1.

    Args:
        graph: A float graph with weights.
        units: Of the graph.
        rescaled: A float graph of other units, perhaps with nodes of its own.
    """
    scales = np.ones(len(units.free))
    open_ = units.free.copy()
    for node in graph.nodes:
        if "kernel" not in node.weights or node.name not in rescaled:
            continue
        twin = rescaled.node(node.name)
        if twin.op.kind != node.op.kind:
            continue
        before = node.weight("kernel").real().astype(np.float64)
        after = twin.weight("kernel").real().astype(np.float64)
        for factor in weight_factors(node, "kernel", units, scales):
            before = before * factor
        made = units.sides(node)["out"]
        if before.shape != after.shape:
            continue
        own, common = (_per_result(node, before * other, len(made)) for other in (before, after))
        numerator, denominator = np.zeros_like(scales), np.zeros_like(scales)
        np.add.at(numerator, made, own)
        np.add.at(denominator, made, common)
        known = np.unique(made[open_[made]])
        known = known[(numerator[known] > 0) & (denominator[known] > 0)]
        scales[known] = numerator[known] / denominator[known]
        open_[known] = False
    return scales


def _per_result(node: Node, products: Scales, count: int) -> Scales:
    """Returns the sum of a kernel-shaped array for each channel of the result."""
    if isinstance(node.op, DepthwiseConv2D):
        return np.asarray(products.reshape(-1, count).sum(axis=0))
    (axis,) = (axis for axis, side in CHANNEL_AXES[node.op.kind]["kernel"] if side == "out")
    others = tuple(k for k in range(products.ndim) if k != axis % products.ndim)
    return np.asarray(products.sum(axis=others))


def weight_factors(node: Node, key: str, units: ScaleMap, scales: Scales) -> list[Scales]:
    """Returns what a weight is multiplied by, shaped to broadcast with it.

    Slopes of a prelu and the statistics of a batch norm's operand have no unit of the result.
    """
    shape = node.weight(key).type.shape
    sides = {side: scales[ids] for side, ids in units.sides(node).items()}
    if node.op.kind == "prelu":
        return []
    if node.op.kind == "batch_norm" and key in ("mean", "variance"):
        return []
    if isinstance(node.op, DepthwiseConv2D) and key == "kernel":
        return [sides["in"][:, None], 1 / sides["out"].reshape(-1, node.op.multiplier)]
    factors = []
    for axis, side in CHANNEL_AXES[node.op.kind][key]:
        factor = sides[side] if side == "in" else 1 / sides[side]
        if shape[axis] == len(factor):  # else one value stands for all channels: pinned
            factors.append(factor.reshape(-1, *[1] * (len(shape) - 1 - axis % len(shape))))
    return factors


def _bends(node: Node) -> bool:
    return getattr(node.op, "activation", "none") == "relu6"


def _made(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    """A kernel: the result's units are its own."""
    result = TRANSFER[node.op.kind](ties, node, operands)
    if _bends(node):
        ties.pin(result)
    return result


def _renewed(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    """Weights per channel, so that operand and result may have other units."""
    result = ties.fresh(ties.width(node.value))
    if _bends(node):
        ties.pin(result)
    return result


def _normed(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    ties.pin(operands[0])  # its statistics stay in the operand's unit
    return ties.fresh(ties.width(node.value))


def _same(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    """A sum or an extreme: both operands and the result in one unit."""
    left, right = operands
    if len(left) != len(right) or _bends(node):
        return opaque(ties, node, operands)
    ties.tie(left, right)
    return left


_TRANSFER: Mapping[str, Transfer] = {
    **TRANSFER,
    **dict.fromkeys(("conv2d", "conv2d_transpose", "dense"), _made),
    "depthwise_conv2d": _renewed,
    "batch_norm": _normed,
    **dict.fromkeys(("add", "sub", "maximum", "minimum"), _same),
    **dict.fromkeys(
        (
            "mul",
            "div",
            "relu6",
            "sigmoid",
            "tanh",
            "hard_swish",
            "exp",
            "sqrt",
            "rsqrt",
            "square",
            "quantize",
            "dequantize",
        ),
        opaque,
    ),
}
