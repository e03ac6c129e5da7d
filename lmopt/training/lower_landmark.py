"""What TensorFlow computes for the ops on coordinates, gradients included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmopt.ir.graph import Node
from lmopt.training.backend import tf

Tensor = Any

# The slope of a root at 0 is infinite; a pixel this near a landmark counts as on it.
_LEAST_SQUARE = 1e-12


def _centers(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def _heatmap_decode(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    op: Any = node.op
    _, height, width, count = operands[0].shape
    maps = tf.reshape(tf.transpose(operands[0], (0, 3, 1, 2)), (-1, count, height * width))
    rows, columns = np.meshgrid(_centers(height), _centers(width), indexing="ij")
    grid = np.stack([columns.ravel(), rows.ravel()], axis=-1)
    points = tf.tensordot(tf.nn.softmax(op.beta * maps), grid, 1)
    if op.method == "argmax":
        # The place of the highest pixel has no slope; that of the weighted mean stands for it.
        points += tf.stop_gradient(_highest(maps, height, width, op.step) - points)
    return tf.reshape(points, (-1, 2 * count))


def _highest(maps: Tensor, height: int, width: int, step: float) -> Tensor:
    place = tf.argmax(maps, axis=-1, output_type=tf.int32)

    def coordinate(pixel: Tensor, size: int, distance: int) -> Tensor:
        last = height * width - 1
        after, before = (
            tf.gather(maps, tf.clip_by_value(place + d, 0, last)[..., None], batch_dims=2)[..., 0]
            for d in (distance, -distance)
        )
        inside = tf.cast((pixel > 0) & (pixel < size - 1), tf.float32)
        moved = step * tf.sign(after - before) * inside
        return (tf.cast(pixel, tf.float32) + moved + 0.5) / size

    return tf.stack(
        [coordinate(place % width, width, 1), coordinate(place // width, height, width)], axis=-1
    )


def _points(landmarks: Tensor) -> Tensor:
    return tf.reshape(landmarks, (-1, landmarks.shape[-1] // 2, 2))


def _similarity_fit(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    source, target = _points(operands[0]), _points(operands[1])
    source_mean, target_mean = (tf.reduce_mean(p, axis=1, keepdims=True) for p in (source, target))
    source, target = source - source_mean, target - target_mean
    along = tf.reduce_sum(source * target, axis=(1, 2))
    around = tf.reduce_sum(
        source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0], axis=1
    )
    spread = tf.reduce_sum(tf.square(source), axis=(1, 2))
    rows = tf.stack([along, -around, around, along], axis=-1) / spread[:, None]
    matrix = tf.reshape(rows, (-1, 2, 2))
    shift = target_mean - tf.matmul(source_mean, matrix, transpose_b=True)
    return tf.concat([matrix, tf.transpose(shift, (0, 2, 1))], axis=-1)


def _invert_transform(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    a, b, c, d = (operands[0][:, i, j] for i in (0, 1) for j in (0, 1))
    rows = tf.stack([d, -b, -c, a], axis=-1) / (a * d - b * c)[:, None]
    matrix = tf.reshape(rows, (-1, 2, 2))
    return tf.concat([matrix, -tf.matmul(matrix, operands[0][:, :, 2:])], axis=-1)


def _transform_landmarks(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    landmarks, transform = operands
    moved = tf.matmul(_points(landmarks), transform[:, :, :2], transpose_b=True)
    return tf.reshape(moved + transform[:, None, :, 2], (-1, landmarks.shape[-1]))


def _warp(node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool) -> Tensor:
    image, transform = operands
    _, height, width, channels = image.shape
    rows, columns = np.meshgrid(_centers(height), _centers(width), indexing="ij")
    grid = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size, np.float32)], axis=-1)
    size = np.array([[width], [height]], np.float32)
    unit = tf.tensordot(transform, grid, [[2], [1]])
    places = tf.clip_by_value(unit * size - 0.5, 0.0, size - 1)
    low = tf.stop_gradient(tf.minimum(tf.floor(places), size - 2))
    across, down = tf.unstack((places - low)[..., None], axis=1)
    column, row = tf.unstack(tf.cast(low, tf.int32), axis=1)
    first = row * width + column
    flat = tf.reshape(image, (-1, height * width, channels))
    upper, lower = (
        start + across * (tf.gather(flat, at + 1, batch_dims=1) - start)
        for at in (first, first + width)
        for start in [tf.gather(flat, at, batch_dims=1)]
    )
    return tf.reshape(upper + down * (lower - upper), (-1, height, width, channels))


def _landmark_heatmap(
    node: Node, operands: Sequence[Tensor], w: Mapping[str, Any], _: bool
) -> Tensor:
    op: Any = node.op
    height, width = op.size
    points = _points(operands[0])[:, None]
    across = tf.square((points[..., 0] - _centers(width)[:, None]) * width)
    down = tf.square((points[..., 1] - _centers(height)[:, None]) * height)
    least = tf.reduce_min(down[:, :, None] + across[:, None], axis=-1, keepdims=True)
    return 1.0 / (1.0 + tf.sqrt(tf.maximum(least, _LEAST_SQUARE)))


LANDMARK_LOWERINGS = {
    "heatmap_decode": _heatmap_decode,
    "similarity_fit": _similarity_fit,
    "invert_transform": _invert_transform,
    "transform_landmarks": _transform_landmarks,
    "warp": _warp,
    "landmark_heatmap": _landmark_heatmap,
}
"""What TensorFlow computes for each kind of op on coordinates."""
