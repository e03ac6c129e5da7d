"""How much each channel of a group matters, from the weights alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.channels import CHANNEL_AXES, ChannelGroup, ChannelMap, Side
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import BatchNorm

_STAGES: tuple[tuple[frozenset[str], Side], ...] = (
    (frozenset({"conv2d", "conv2d_transpose", "dense"}), "out"),
    (frozenset({"depthwise_conv2d"}), "in"),
    (frozenset({"conv2d", "conv2d_transpose", "dense"}), "in"),
)


def channel_importance(
    graph: Graph, channels: ChannelMap, group: ChannelGroup
) -> NDArray[np.float64]:
    """Returns one number per channel of a group; 0 for a channel that is always 0, mean near 1.

    A channel counts by the L2 norm of the kernels that make it (times the gain of a batch norm
    behind), of the depthwise kernels it runs through and of the kernels that read it. Each kernel's
    norms are divided by their mean over the group, averaged over the kernels of a stage, and the
    three stages multiplied, so that moving a factor from one kernel to the next changes nothing.

    Raises:
        GraphError: A kernel has no values.

    Source: L2 filter norms as in Li et al., "Pruning Filters for Efficient ConvNets", 2017; reading
        both ends of a channel follows Nagel et al. 2019 (arXiv:1906.04721), section 4.1.
    """
    importance = np.ones(group.size)
    position = np.full(channels.count, -1)
    position[list(group.channels)] = np.arange(group.size)
    for kinds, side in _STAGES:
        found: list[NDArray[np.float64]] = []
        for node in graph.nodes:
            if node.op.kind not in kinds:
                continue
            norms = _norms(graph, channels, node, side, position, group.size)
            if norms is not None:
                found.append(norms / max(float(norms.mean()), np.finfo(float).tiny))
        if found:
            importance = importance * np.mean(found, axis=0)
    return importance


def _norms(
    graph: Graph,
    channels: ChannelMap,
    node: Node,
    side: Side,
    position: NDArray[np.int64],
    size: int,
) -> NDArray[np.float64] | None:
    places = position[channels.of[node.value if side == "out" else node.inputs[0]]]
    here = places >= 0
    axis = next(axis for axis, of in CHANNEL_AXES[node.op.kind]["kernel"] if of == side)
    if not here.any() or len(places) != node.weight("kernel").type.shape[axis]:
        return None  # the other groups' node, or a grouped convolution, whose channels stay
    kernel = node.weight("kernel").real()
    letters = "abcd"[: kernel.ndim]
    energy = np.einsum(f"{letters},{letters}->{letters[axis]}", kernel, kernel).astype(np.float64)
    gain = _gain(graph, node)
    if (side == "out" or node.op.kind == "depthwise_conv2d") and len(gain) == len(places):
        energy *= gain**2
    total = np.zeros(size)
    np.add.at(total, places[here], energy[here])
    return np.asarray(np.sqrt(total))


def _gain(graph: Graph, node: Node) -> NDArray[np.float64]:
    users = graph.users(node.value)
    if len(users) != 1 or not isinstance(norm := users[0][0].op, BatchNorm):
        return np.ones(0)
    weights = users[0][0].weights
    gamma, variance = weights["gamma"].real(), weights["variance"].real()
    return np.asarray(np.abs(gamma) / np.sqrt(variance + norm.epsilon), np.float64)
