"""What kernels are multiplied with on faces: mean and covariance, tap by tap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Node
from lmopt.ir.interp.window import taps
from lmopt.ir.ops import Conv2D, Dense, DepthwiseConv2D
from lmopt.pipeline.services import Moments

POSITIONS = 64
"""Places of each map that are looked at, at most."""


def moments_of(
    nodes: Sequence[Node], batches: Iterable[Sequence[NDArray[np.floating]]]
) -> dict[str, Moments]:
    """Returns the moments of what each kernel is multiplied with, by node.

    Args:
        nodes: Convolutions of one group, depthwise ones of multiplier 1, and dense layers.
        batches: The real values of each node's operand, batch by batch.
    """
    rng = np.random.default_rng(0)
    sums = [_Sums() for _ in nodes]
    for batch in batches:
        for node, operand, total in zip(nodes, batch, sums, strict=True):
            total.add(_operands(node, operand, rng))
    return {node.name: total.moments for node, total in zip(nodes, sums, strict=True)}


class _Sums:
    """Running sums over rows of [slices, rows, taps].

    Rows wait until they are as many as taps: adding a large matrix takes longer than finding it.
    """

    def __init__(self) -> None:
        self._count = 0
        self._waiting: list[NDArray[np.float64]] = []
        self._first: NDArray[np.float64] = np.zeros(())
        self._second: NDArray[np.float64] = np.zeros(())

    def add(self, rows: NDArray[np.float64]) -> None:
        self._waiting.append(rows)
        if sum(each.shape[1] for each in self._waiting) >= rows.shape[2]:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting, axis=1)
            self._waiting = []
            self._count += rows.shape[1]
            self._first = self._first + rows.sum(axis=1)
            self._second = self._second + rows.swapaxes(1, 2) @ rows

    @property
    def moments(self) -> Moments:
        self._flush()
        mean = self._first / self._count
        return Moments(mean, self._second / self._count - mean[:, :, None] * mean[:, None, :])


def _operands(node: Node, x: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns what the kernel meets at some places, [slices, places, taps]."""
    op = node.op
    if isinstance(op, Dense):
        return np.asarray(x, np.float64).reshape(1, -1, x.shape[-1])
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    height, width = node.weight("kernel").type.shape[:2]
    assert height is not None and width is not None
    views = list(taps(x, (height, width), op.stride, op.dilation, op.padding, 0.0))
    rows, columns = views[0].shape[1:3]
    places = rng.permutation(rows * columns)[:POSITIONS]
    seen = np.stack([view[:, places // columns, places % columns] for view in views], axis=2)
    seen = np.asarray(seen, np.float64).reshape(-1, len(views), x.shape[-1])
    if isinstance(op, DepthwiseConv2D):
        return seen.transpose(2, 0, 1)
    return seen.reshape(1, len(seen), -1)
