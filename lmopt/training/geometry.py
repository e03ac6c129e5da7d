"""Coordinates and heatmaps inside TensorFlow, by the contract's rules."""

from __future__ import annotations

from typing import Any

from lmopt.detector.contract import Contract
from lmopt.training.backend import tf

Tensor = Any


def decode(answers: Tensor, contract: Contract) -> Tensor:
    """Returns landmarks in `unit` coordinates, as `Contract.decode` does.

    Shapes:
        answers: [faces, 2 * landmarks]; returns [faces, landmarks, 2] as (x, y).
    """
    count = contract.scheme.count
    if contract.order == "xyxy":
        points = tf.reshape(answers, (-1, count, 2))
    else:
        points = tf.transpose(tf.reshape(answers, (-1, 2, count)), (0, 2, 1))
    if contract.unit == "pixel":
        return (points + 0.5) / _size(contract)
    return (points + 1.0) / 2.0 if contract.unit == "centered" else points


def encode(points: Tensor, contract: Contract) -> Tensor:
    """Returns a network's answers for landmarks in `unit` coordinates; the inverse of `decode`."""
    if contract.unit == "pixel":
        points = points * _size(contract) - 0.5
    elif contract.unit == "centered":
        points = points * 2.0 - 1.0
    if contract.order == "xxyy":
        points = tf.transpose(points, (0, 2, 1))
    return tf.reshape(points, (-1, 2 * contract.scheme.count))


def draw_heatmaps(points: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Returns one Gaussian of height 1 per landmark; the first cell starts at coordinate 0.

    Args:
        points: In `unit` coordinates.
        height: Cells down.
        width: Cells across.
        sigma: In cells.

    Shapes:
        points: [faces, landmarks, 2]; returns [faces, height, width, landmarks].
    """
    across = _bells(points[..., 0], width, sigma)
    down = _bells(points[..., 1], height, sigma)
    return tf.einsum("nlh,nlw->nhwl", down, across)


def _bells(places: Tensor, cells: int, sigma: float) -> Tensor:
    centers = (tf.range(cells, dtype=tf.float32) + 0.5) / cells
    return tf.exp(-0.5 * tf.square((places[..., None] - centers) * cells / sigma))


def _size(contract: Contract) -> Tensor:
    return tf.constant([contract.width, contract.height], tf.float32)
