"""Float arithmetic of the ops on coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.interp.call import Array, Call, Kernel
from lmopt.ir.ops import HeatmapDecode, LandmarkHeatmap

Floats = NDArray[np.float32]


def _heatmap_decode(call: Call) -> Array:
    op = cast(HeatmapDecode, call.node.op)
    faces, height, width, count = call.x.shape
    maps = call.x.transpose(0, 3, 1, 2)
    if op.method == "softargmax":
        flat = np.float32(op.beta) * maps.reshape(faces, count, -1)
        weights = np.exp(flat - flat.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        rows, columns = pixel_centers(height), pixel_centers(width)
        grid = np.stack(np.broadcast_arrays(columns, rows[:, None]), axis=-1).reshape(-1, 2)
        return np.asarray((weights @ grid).reshape(faces, -1))
    row, column = np.divmod(maps.reshape(faces, count, -1).argmax(axis=-1), width)
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    face, landmark = np.ogrid[:faces, :count]

    def at(down: int, across: int) -> Floats:
        return np.asarray(padded[face, landmark, row + 1 + down, column + 1 + across])

    across = np.sign(at(0, 1) - at(0, -1)) * ((column > 0) & (column < width - 1))
    down = np.sign(at(1, 0) - at(-1, 0)) * ((row > 0) & (row < height - 1))
    x = (column + op.step * across + 0.5) / width
    y = (row + op.step * down + 0.5) / height
    return np.stack([x, y], axis=-1).reshape(faces, -1).astype(np.float32)


def pixel_centers(count: int) -> Floats:
    """Returns the centres of `count` pixels in unit coordinates."""
    return ((np.arange(count) + 0.5) / count).astype(np.float32)


def _points(landmarks: Array) -> Array:
    return landmarks.reshape(*landmarks.shape[:-1], -1, 2)


def _similarity_fit(call: Call) -> Array:
    source, target = _points(call.x), _points(call.operands[1])
    source_mean, target_mean = (p.mean(axis=-2, keepdims=True) for p in (source, target))
    source, target = source - source_mean, target - target_mean
    # cross[i, j] sums the products of coordinate i of the one and j of the other.
    cross = source.swapaxes(-1, -2) @ target
    along = cross[:, 0, 0] + cross[:, 1, 1]
    around = cross[:, 0, 1] - cross[:, 1, 0]
    matrix = np.stack([along, -around, around, along], axis=-1).reshape(-1, 2, 2)
    matrix /= np.square(source).sum(axis=(-2, -1))[:, None, None]
    shift = target_mean - source_mean @ matrix.swapaxes(-1, -2)
    return np.concatenate([matrix, shift.swapaxes(-1, -2)], axis=-1)


def _invert_transform(call: Call) -> Array:
    matrix = np.linalg.inv(call.x[..., :2])
    return np.concatenate([matrix, -matrix @ call.x[..., 2:]], axis=-1)


def _transform_landmarks(call: Call) -> Array:
    matrix, shift = call.operands[1][..., :2], call.operands[1][..., 2]
    moved = _points(call.x) @ matrix.swapaxes(-1, -2) + shift[:, None]
    return np.asarray(moved.reshape(call.x.shape))


def _warp(call: Call) -> Array:
    image, transform = call.operands
    height, width = image.shape[1:3]
    rows, columns = np.meshgrid(pixel_centers(height), pixel_centers(width), indexing="ij")
    grid = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size, np.float32)])
    size = np.array([[width], [height]], np.float32)
    places = np.clip(transform @ grid * size - np.float32(0.5), 0, size - 1)
    low = np.minimum(np.floor(places), size - 2)
    across, down = (part[..., None] for part in np.moveaxis(places - low, 1, 0))
    column, row = np.moveaxis(low.astype(np.int64), 1, 0)
    face = np.arange(len(image))[:, None]
    upper, lower = (
        image[face, r, column] + across * (image[face, r, column + 1] - image[face, r, column])
        for r in (row, row + 1)
    )
    return np.asarray(upper + down * (lower - upper)).reshape(image.shape)


def _landmark_heatmap(call: Call) -> Array:
    height, width = cast(LandmarkHeatmap, call.node.op).size
    points = _points(call.x)
    across = (pixel_centers(width)[:, None] - points[:, None, :, 0]) * np.float32(width)
    down = (pixel_centers(height)[:, None] - points[:, None, :, 1]) * np.float32(height)
    squares = np.square(down)[:, :, None] + np.square(across)[:, None]
    return np.asarray(1 / (1 + np.sqrt(squares.min(axis=-1, keepdims=True))))


LANDMARK: Mapping[str, Kernel] = {
    "heatmap_decode": _heatmap_decode,
    "similarity_fit": _similarity_fit,
    "invert_transform": _invert_transform,
    "transform_landmarks": _transform_landmarks,
    "warp": _warp,
    "landmark_heatmap": _landmark_heatmap,
}
