"""A pointwise and a depthwise convolution in a row, and the dense one that stands for both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import (
    Concat,
    Conv2D,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    MaxPool2D,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Sigmoid,
    Tanh,
)
from lmopt.pipeline.services import Calibrator, Moments

DAMPING = 1e-3
"""Part of the mean variance that every operand of a fit is given on top: some never vary."""
PLACES = 128
"""Places of each map that a fit draws from, at least, where the map has so many."""

Array = NDArray[np.float64]

_ACTIVATIONS = (Relu, Relu6, LeakyRelu, PRelu, HardSwish, Sigmoid, Tanh)


@dataclass(frozen=True)
class SeparablePair:
    """Two convolutions, one pointwise and one depthwise, that nothing else looks between.

    Attributes:
        first: What reads the operand.
        between: Activations and paddings from the first to the last, in order.
        last: What gives the result; its activation stays.
    """

    first: Node
    between: tuple[Node, ...]
    last: Node

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names of all its nodes, in order."""
        return (self.first.name, *(node.name for node in self.between), self.last.name)

    def overlaps(self, other: SeparablePair) -> bool:
        """Returns whether another pair has a node of this one."""
        return not set(self.names).isdisjoint(other.names)

    @property
    def is_linear(self) -> bool:
        """Returns whether nothing bends values between the two kernels."""
        bent = any(not isinstance(node.op, Pad) for node in self.between)
        return not bent and _op(self.first).activation == "none"

    @property
    def dense(self) -> Conv2D:
        """Returns the convolution that stands for both."""
        deep = next(n.op for n in (self.first, self.last) if isinstance(n.op, DepthwiseConv2D))
        filters = self.last.results[0].shape[-1]
        assert filters is not None
        return Conv2D(
            filters,
            deep.kernel,
            deep.stride,
            deep.dilation,
            deep.padding,
            activation=_op(self.last).activation,
        )


@dataclass(frozen=True, eq=False)
class DenseKernel:
    """What a dense convolution carries that stands for a pair.

    Attributes:
        kernel: [height, width, in, filters].
        bias: [filters].
        explained: Part of the variance of what the pair gives, before its activation, that the
            convolution gives too; None where it is composed.
    """

    kernel: Array
    bias: Array
    explained: float | None = None


def separable_pairs(graph: Graph) -> tuple[SeparablePair, ...]:
    """Returns the pairs of a graph: expand and depthwise, where that is missing the two behind.

    A depthwise convolution goes with the pointwise one before it, as in Fused-MBConv; one without
    (expansion 1) with the pointwise one behind it.
    """
    deep = [_pair(graph, node) for node in graph.nodes if isinstance(node.op, DepthwiseConv2D)]
    flat = [_pair(graph, node) for node in graph.nodes if _is_pointwise(node)]
    taken = {pair.last.name for pair in deep if pair is not None}
    pairs = [pair for pair in (*deep, *flat) if pair is not None and pair.first.name not in taken]
    order = {node.name: position for position, node in enumerate(graph.nodes)}
    return tuple(sorted(pairs, key=lambda pair: order[pair.last.name]))


def _pair(graph: Graph, last: Node) -> SeparablePair | None:
    """Returns the pair that ends in a convolution, if one does."""
    deep = isinstance(last.op, DepthwiseConv2D)
    passing = (*_ACTIVATIONS, Pad) if deep else _ACTIVATIONS
    between: list[Node] = []
    value = last.inputs[0]
    while len(graph.users(value)) == 1 and not graph.is_output(value):
        node = graph.producer(value)
        if not isinstance(node.op, passing):
            fits = _is_pointwise(node) if deep else isinstance(node.op, DepthwiseConv2D)
            return SeparablePair(node, tuple(between), last) if fits else None
        between.insert(0, node)
        value = node.inputs[0]
    return None


def _is_pointwise(node: Node) -> bool:
    op = node.op
    return isinstance(op, Conv2D) and op.kernel == (1, 1) and op.stride == (1, 1) and op.groups == 1


def _op(node: Node) -> Conv2D | DepthwiseConv2D:
    assert isinstance(node.op, Conv2D | DepthwiseConv2D)
    return node.op


def composed(pair: SeparablePair) -> DenseKernel:
    """Returns the two kernels multiplied out, as if nothing bent values between them.

    Where nothing does, that is the pair itself, but for one thing: where the window of the
    depthwise convolution reaches over the border of the map it does not see the bias of an
    expansion, which the bias of the dense convolution holds all the same.
    """
    (first, before), (last, bias) = (_weights(node) for node in (pair.first, pair.last))
    if isinstance(pair.last.op, DepthwiseConv2D):
        kernel = np.einsum("ic,yxcm->yxicm", first[0, 0], last)
        carried = (before[:, None] * last.sum(axis=(0, 1))).reshape(-1)
    else:
        rows = last[0, 0].reshape(*first.shape[2:], -1)
        kernel = np.einsum("yxim,imo->yxio", first, rows)
        carried = before @ last[0, 0]
    return DenseKernel(kernel.reshape(*kernel.shape[:3], -1), bias + carried)


def _weights(node: Node) -> tuple[Array, Array]:
    """Returns kernel and bias of a convolution."""
    kernel = node.weight("kernel").real().astype(np.float64)
    if "bias" in node.weights:
        return kernel, node.weight("bias").real().astype(np.float64)
    return kernel, np.zeros(node.results[0].shape[-1] or 0)


def fitted(
    graph: Graph, pairs: Sequence[SeparablePair], calibrator: Calibrator, *, faces: int
) -> tuple[DenseKernel, ...]:
    """Returns for each pair what comes nearest to it on faces: least squares, with the mean exact.

    What is fitted is what the last kernel gives before its activation, from the windows of the
    pair's operand. A pair with nothing bent in between is multiplied out instead.
    """
    edit, probes = graph.edit(), dict[int, str]()
    for index, pair in enumerate(pairs):
        if not pair.is_linear:
            probes[index] = _probe(edit, graph, pair)
    watched = edit.done()
    found = calibrator.kernel_inputs(watched, list(probes.values()), faces=faces) if probes else {}
    return tuple(
        _solved(pair, found[probes[index]]) if index in probes else composed(pair)
        for index, pair in enumerate(pairs)
    )


def _probe(edit: Edit, graph: Graph, pair: SeparablePair) -> str:
    """Adds a kernel that reads a pair's windows and, behind them, what it makes of each."""
    dense = pair.dense
    taps, channels = math.prod(dense.kernel), graph.type(pair.first.inputs[0]).shape[-1] or 0
    rows = np.eye(taps, dtype=np.float32).reshape(*dense.kernel, 1, taps)
    windows = edit.add(
        edit.fresh(f"{pair.last.name}_windows"),
        DepthwiseConv2D(
            dense.kernel, dense.stride, dense.dilation, dense.padding, taps, use_bias=False
        ),
        _operand(edit, pair),
        weights={"kernel": np.repeat(rows, channels, axis=2)},
    )
    wanted = edit.add(
        edit.fresh(f"{pair.last.name}_wanted"),
        replace(_op(pair.last), activation="none"),
        *pair.last.inputs,
        weights=pair.last.weights,
    )
    name = edit.fresh(f"{pair.last.name}_probe")
    both = edit.add(edit.fresh(f"{name}_operand"), Concat(), windows, wanted)
    height, width = (side or 1 for side in pair.last.results[0].shape[1:3])
    skip = max(math.isqrt(height * width // PLACES), 1)
    if skip > 1:  # what is not looked at need not leave the runtime
        some = MaxPool2D((1, 1), (skip, skip))
        both = edit.add(edit.fresh(f"{name}_some"), some, both)
    kernel = np.zeros((1, 1, channels * taps + dense.filters, 1), np.float32)
    edit.add(name, Conv2D(1, (1, 1), use_bias=False), both, weights={"kernel": kernel})
    return name


def _operand(edit: Edit, pair: SeparablePair) -> Value:
    """Returns what the dense convolution reads: the pair's operand, padded like the map between."""
    value = pair.first.inputs[0]
    for node in pair.between:
        if isinstance(node.op, Pad):
            value = edit.add(edit.fresh(f"{node.name}_moved"), node.op, value, loc=node.loc)
    return value


def _solved(pair: SeparablePair, moments: Moments) -> DenseKernel:
    dense = pair.dense
    taps, filters = math.prod(dense.kernel), dense.filters
    mean, covariance = moments.mean[0], moments.covariance[0]
    size = len(mean) - filters
    own, cross = covariance[:size, :size], covariance[:size, size:]
    damping = DAMPING * float(np.trace(own)) / size
    if damping > 0:
        rows = np.linalg.solve(own + damping * np.eye(size), cross)
    else:  # the operand never varies: its mean says all
        rows = np.zeros((size, filters))
    whole = float(np.trace(covariance[size:, size:]))
    missed = whole - float(2 * (rows * cross).sum() - (rows * (own @ rows)).sum())
    kernel = rows.reshape(-1, taps, filters).swapaxes(0, 1)
    return DenseKernel(
        kernel.reshape(*dense.kernel, -1, filters),
        mean[size:] - mean[:size] @ rows,
        1 - missed / whole if whole > 0 else 1.0,
    )


def fused(graph: Graph, kernels: Mapping[SeparablePair, DenseKernel], pass_name: str) -> Graph:
    """Returns the graph with dense convolutions in the place of pairs that share no node."""
    edit = graph.edit()
    for pair, made in kernels.items():
        value = edit.add(
            edit.fresh(f"{pair.last.name}_fused"),
            pair.dense,
            _operand(edit, pair),
            weights={
                "kernel": made.kernel.astype(np.float32),
                "bias": made.bias.astype(np.float32),
            },
            loc=pair.last.loc.via(pass_name),
        )
        edit.rewire(pair.last.value, value)
        for name in reversed(pair.names):
            edit.remove(name)
    return edit.done()
