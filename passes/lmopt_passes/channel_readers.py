"""The kernels that read channels: what they lose with a channel, and what makes up for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.channels import ChannelGroup, ChannelMap, Ids
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import Conv2D, Conv2DTranspose, Dense, Square
from lmopt.pipeline.services import Calibrator

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIDGE = 1e-3
"""Part of each row's variance by which a re-fitted kernel is held to what it was."""

MOST_ROWS = 4096
"""Rows of the largest kernel that is re-fitted: the work grows with their third power."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A kernel that mixes the channels it reads, and what it is multiplied with on faces.

    Attributes:
        node: Its node.
        rows: Number of the channel that each row of the kernel reads; a row is a tap and channel.
        results: Number of the channel that each column makes.
        kernel: [rows, columns].
        mean: Of what each row is multiplied with.
        covariance: [rows, rows], or [rows], their variances, where there are too many.
    """

    node: Node
    rows: Ids
    results: Ids
    kernel: Array
    mean: Array
    covariance: Array

    def shares(self, group: ChannelGroup) -> Array:
        """Returns which part of its answer's variance each channel of a group brings by itself.

        The mean does not count: a bias can stand for it.
        """
        if not np.isin(self.rows, group.channels).any():
            return np.zeros(group.size)
        reading = (np.flatnonzero(self.rows == channel) for channel in group.channels)
        return np.array([self._variance(rows) for rows in reading]) / self._whole

    @cached_property
    def _whole(self) -> float:
        return max(self._variance(np.arange(len(self.rows))), np.finfo(float).tiny)

    def _variance(self, rows: Ids) -> float:
        kernel = self.kernel[rows]
        if self.covariance.ndim == 1:
            return float(self.covariance[rows] @ (kernel**2).sum(axis=1))
        found = float(((self.covariance[np.ix_(rows, rows)] @ kernel) * kernel).sum())
        return max(found, 0.0)  # a channel that never changes may come out below by rounding

    def without(self, kept: Mask) -> tuple[Array, Array]:
        """Returns the rows that stay and what the answer's mean then lacks.

        They take up the rows that go as far as their operands vary alike: the least squares of the
        difference over faces, held to the old kernel by a ridge for the directions that few faces
        show.

        Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017
            (arXiv:1707.06168), section 3.1.
        """
        gone, stay = self.kernel[~kept], self.kernel[kept]
        shift = self.mean[~kept] @ gone
        if self.covariance.ndim == 1:
            return stay, shift
        wanted = self.covariance[np.ix_(kept, ~kept)] @ gone
        if not wanted.any():
            return stay, shift
        inner = self.covariance[np.ix_(kept, kept)]
        variances = np.diag(inner)
        ridge = RIDGE * variances + 1e-9 * variances.max()
        change = np.linalg.solve(inner + np.diag(ridge), wanted)
        return stay + change, shift - self.mean[kept] @ change


def find_readers(
    graph: Graph, channels: ChannelMap, calibrator: Calibrator, *, faces: int
) -> tuple[Reader, ...]:
    """Returns the kernels that mix channels which may go, with the moments of their operands."""
    loose = np.zeros(channels.count, bool)
    for group in channels.groups:
        loose[list(group.channels)] = group.removable
    nodes = [n for n in graph.nodes if _mixes(n) and loose[channels.of[n.inputs[0]]].any()]
    kernels = {node.name: _matrix(node) for node in nodes}
    small = [node for node in nodes if len(kernels[node.name]) <= MOST_ROWS]
    large = [node for node in nodes if len(kernels[node.name]) > MOST_ROWS]
    moments = {
        **_moments(graph, small, calibrator, faces),
        **_variances(graph, large, calibrator, faces),
    }
    return tuple(
        Reader(
            node,
            np.resize(channels.of[node.inputs[0]], len(kernels[node.name])),
            np.resize(channels.of[node.value], kernels[node.name].shape[1]),
            kernels[node.name],
            *moments[node.name],
        )
        for node in nodes
    )


def shares_of(group: ChannelGroup, readers: Sequence[Reader]) -> Array:
    """Returns the shares of each channel of a group, summed over all that reads it."""
    return sum((reader.shares(group) for reader in readers), np.zeros(group.size))


def made_up(small: Graph, readers: Sequence[Reader], alive: Mask, *, kernels: bool) -> Graph:
    """Returns a graph without some channels in which biases stand for the means of those.

    Args:
        small: Of the living channels.
        readers: Of the whole graph.
        alive: For each channel number whether it stays.
        kernels: Whether the rows of kernels that stay are re-fitted, too.
    """
    edit = small.edit()
    for reader in readers:
        kept, made = alive[reader.rows], alive[reader.results]
        if kept.all():
            continue
        node = edit.node(reader.node.name)
        if kernels:
            rows, shift = reader.without(kept)
            edit.set_weights(node.name, kernel=_kernel(node, rows[:, made]))
        else:
            shift = reader.mean[~kept] @ reader.kernel[~kept]
        if shift.any():
            _shift_bias(edit, node, shift[made])
    return edit.done()


def _mixes(node: Node) -> bool:
    if isinstance(node.op, Conv2D):
        return node.op.groups == 1
    return isinstance(node.op, (Conv2DTranspose, Dense))


def _matrix(node: Node) -> Array:
    """Returns a kernel as rows by columns; a transposed one has a column per tap and filter."""
    kernel = node.weight("kernel").real().astype(np.float64)
    if isinstance(node.op, Conv2DTranspose):
        return np.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1)
    return kernel.reshape(-1, kernel.shape[-1])


def _kernel(node: Node, matrix: Array) -> NDArray[np.float32]:
    """Returns what `_matrix` was made of."""
    shape = tuple(size or 1 for size in node.weight("kernel").type.shape)
    if isinstance(node.op, Conv2DTranspose):
        high, wide, depth, filters = shape
        matrix = np.moveaxis(matrix.reshape(depth, high, wide, filters), 0, 2)
    return np.ascontiguousarray(matrix.reshape(shape), np.float32)


def _shift_bias(edit: Edit, node: Node, shift: Array) -> None:
    """Adds something to what a kernel answers, [columns]."""
    if isinstance(node.op, Conv2DTranspose):
        # A pixel of the answer gets the taps of as many operands as windows overlap there.
        high, wide = node.op.stride
        shift = shift.reshape(-1, node.op.filters).sum(axis=0) / (high * wide)
    assert isinstance(node.op, Conv2D | Conv2DTranspose | Dense)
    before = node.weight("bias").real() if "bias" in node.weights else 0.0
    edit.set_op(node.name, replace(node.op, use_bias=True))
    edit.set_weights(node.name, bias=(before + shift).astype(np.float32))


def _moments(
    graph: Graph, nodes: Sequence[Node], calibrator: Calibrator, faces: int
) -> dict[str, tuple[Array, Array]]:
    """Returns mean and covariance of operands; those of a transposed kernel are single pixels."""
    if not nodes:
        return {}
    edit, place = graph.edit(), dict[str, str]()
    for node in nodes:
        place[node.name] = node.name
        if isinstance(node.op, Conv2DTranspose):
            depth = node.weight("kernel").type.shape[2]
            pixel = Conv2D(1, (1, 1), use_bias=False)
            zeros = np.zeros((1, 1, depth or 1, 1), np.float32)
            name = edit.fresh(f"{node.name}_operand")
            place[node.name] = edit.add(name, pixel, node.inputs[0], weights={"kernel": zeros}).node
    found = calibrator.kernel_inputs(edit.done(), list(place.values()), faces=faces)
    return {name: (found[at].mean[0], found[at].covariance[0]) for name, at in place.items()}


def _variances(
    graph: Graph, nodes: Sequence[Node], calibrator: Calibrator, faces: int
) -> Mapping[str, tuple[Array, Array]]:
    """Returns mean and variance of operands, the same at every tap."""
    if not nodes:
        return {}
    edit = graph.edit()
    power = {n.name: edit.add(edit.fresh("power"), Square(), n.inputs[0]) for n in nodes}
    wanted = [*(node.inputs[0] for node in nodes), *power.values()]
    means = calibrator.means(edit.done(), wanted, faces=faces)
    found = {}
    for node in nodes:
        rows = len(_matrix(node))
        first, second = (
            means[value].reshape(-1, means[value].shape[-1]).mean(axis=0)
            for value in (node.inputs[0], power[node.name])
        )
        spread = np.maximum(second - first**2, 0.0)
        found[node.name] = np.resize(first, rows), np.resize(spread, rows)
    return found
