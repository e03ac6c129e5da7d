"""Kernels of lower rank: a layer replaced by thinner ones in a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Node
from lmopt.ir.ops import Conv2D, Dense

Array = NDArray[np.float64]
_SILENT = 1e-4
"""Power of an operand's direction, relative to the strongest, below which it counts as this.

What was silent on some faces need not be on others.
"""


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions in a layer's channels, most important first.

    The first r span the best r-dimensional stand-in: `reduce[:, :r] @ expand[:r]` projects onto it.

    Attributes:
        reduce: [channels, channels].
        expand: [channels, channels], its inverse.
        lost: [channels + 1], at r: the part of the answers' variance that r directions miss.
    """

    reduce: Array
    expand: Array
    lost: Array

    def first(self, rank: int) -> tuple[Array, Array]:
        """Returns orthonormal columns that span the first directions, and the way back."""
        columns, triangle = np.linalg.qr(self.reduce[:, :rank])
        return columns, triangle @ self.expand[:rank]


def can_factor(node: Node) -> bool:
    """Returns whether a node is a dense layer or a convolution of one group."""
    return isinstance(node.op, Dense) or (isinstance(node.op, Conv2D) and node.op.groups == 1)


def answer_directions(kernel: Array, covariance: Array | None = None) -> Directions:
    """Returns the directions in which a layer's answers vary most.

    Args:
        kernel: [..., channels, answers].
        covariance: Of the answers on data; None takes that of white operands.

    Source: Zhang et al., "Accelerating Very Deep Convolutional Networks", 2015 (arXiv:1505.06798),
        section 3.1; without data the truncated SVD of Denton et al., "Exploiting Linear Structure
        Within Convolutional Networks", 2014 (arXiv:1404.0736), section 3.2.
    """
    flat = kernel.reshape(-1, kernel.shape[-1])
    power, vectors = _descending(flat.T @ flat if covariance is None else covariance)
    return Directions(vectors, vectors.T, _missed(power, power.sum()))


def operand_directions(
    kernel: Array, mean: Array | None = None, covariance: Array | None = None
) -> Directions:
    """Returns the directions of a layer's operand that matter most for its answers.

    All taps of the window read the same directions, as if they varied independently. What is
    missed of the mean counts as lost, since a border without it could not be corrected.

    Args:
        kernel: [..., channels, answers].
        mean: Of the operand's channels on data; None takes 0.
        covariance: Of them; None takes that of white ones.

    Source: Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power
        Mobile Applications", 2016 (arXiv:1511.06530), section 3.1 (the input side of Tucker-2),
        in the metric of the data.
    """
    channels = kernel.shape[-2]
    rows = np.moveaxis(kernel, -2, 0).reshape(channels, -1)
    inner = rows @ rows.T
    root, inverse, spread = np.eye(channels), np.eye(channels), np.eye(channels)
    if covariance is not None and mean is not None:
        power, vectors = _descending(covariance + np.outer(mean, mean))
        sides = np.sqrt(np.maximum(power, max(_SILENT * power[0], np.finfo(float).tiny)))
        root, inverse = vectors * sides @ vectors.T, vectors / sides @ vectors.T
        spread = covariance
    power, vectors = _descending(root @ inner @ root)
    lost = _missed(power, float(np.sum(inner * spread)))
    return Directions(inverse @ vectors, vectors.T @ root, lost)


def factor_node(
    edit: Edit,
    node: Node,
    operand: tuple[Directions, int] | None,
    answer: tuple[Directions, int] | None,
    mean: Array | None,
    history: str,
) -> None:
    """Replaces a layer by up to three: 1x1 to fewer channels, its own window, 1x1 to all answers.

    The last one keeps the node's name and carries bias and activation.

    Args:
        edit: Holds the node.
        node: One that `can_factor`, with weights.
        operand: Directions and rank of the channels it reads (a convolution's); None reads all.
        answer: Directions and rank of what it gives; None gives all.
        mean: Of the answers before the activation on data, which the last layer then keeps.
        history: Name of the pass, for the provenance.
    """
    kernel: Array = node.weight("kernel").real().astype(np.float64)
    x, op, loc = node.inputs[0], node.op, node.loc.via(history)
    assert isinstance(op, Conv2D | Dense)
    if operand is not None:
        columns, back = operand[0].first(operand[1])
        weights = {"kernel": columns[None, None].astype(np.float32)}
        thin = Conv2D(operand[1], (1, 1), use_bias=False)
        x = edit.add(edit.fresh(f"{node.name}_enter"), thin, x, weights=weights, loc=loc)
        kernel = back @ kernel
    if answer is not None:
        columns, back = answer[0].first(answer[1])
        bias = node.weights["bias"].real() if op.use_bias else np.zeros(back.shape[1])
        if mean is not None:
            bias = mean - (mean - bias) @ columns @ back
        core, last = _parted(op, answer[1], op.use_bias or mean is not None)
        weights = {"kernel": (kernel @ columns).astype(np.float32)}
        x = edit.add(edit.fresh(f"{node.name}_core"), core, x, weights=weights, loc=loc)
        kernel = back if isinstance(op, Dense) else back[None, None]
        edit.set_op(node.name, last)
        if last.use_bias:
            edit.set_weights(node.name, bias=bias.astype(np.float32))
    edit.set_weights(node.name, kernel=kernel.astype(np.float32))
    edit.set_inputs(node.name, x)
    edit.touch(node.name, history)


def _parted(op: Conv2D | Dense, rank: int, use_bias: bool) -> tuple[Conv2D | Dense, Conv2D | Dense]:
    if isinstance(op, Dense):
        core: Conv2D | Dense = replace(op, units=rank, use_bias=False, activation="none")
        return core, replace(op, use_bias=use_bias)
    core = replace(op, filters=rank, use_bias=False, activation="none")
    last = Conv2D(op.filters, (1, 1), use_bias=use_bias, activation=op.activation)
    return core, last


def _descending(symmetric: Array) -> tuple[Array, Array]:
    """Returns eigenvalues, none below 0, and eigenvectors (columns), the largest first."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _missed(power: Array, total: float) -> Array:
    tails = np.append(np.cumsum(power[::-1])[::-1], 0.0)
    return np.asarray(tails / max(total, np.finfo(float).tiny))
