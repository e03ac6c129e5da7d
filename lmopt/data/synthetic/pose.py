"""Where the head is in the picture: rotation, weak perspective, and the visible jaw line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic.head import COLUMNS, Head

Array = NDArray[np.float64]

_PIVOT = np.array([0.0, 0.35, 0.0])
_YAW, _PITCH, _ROLL = (17.0, 60.0), (10.0, 30.0), (10.0, 35.0)  # sigma and limit, degrees
_ANYWHERE = 0.2  # part of the faces whose yaw is even over its whole range


@dataclass(frozen=True)
class Pose:
    """A rotated head in a picture.

    Attributes:
        yaw, pitch, roll: Radians. Positive yaw turns the face to the picture's right, positive
            pitch downwards, positive roll clockwise.
        rotation: Head to camera, [3, 3].
        perspective: Relative growth per unit of nearness.
        scale: Pixels per head unit.
        offset: Pixels of the camera's origin.
    """

    yaw: float
    pitch: float
    roll: float
    rotation: Array
    perspective: float
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)

    def turned(self, points: Array) -> Array:
        """Returns head points rotated, in head units."""
        return np.asarray((points - _PIVOT) @ self.rotation.T, np.float64)

    def project(self, points: Array) -> Array:
        """Returns head points in pixels; the third number is nearness in pixels."""
        turned = self.turned(points)
        grown = turned[..., :2] / (1 - self.perspective * turned[..., 2:])
        place = grown * self.scale + np.asarray(self.offset)
        return np.concatenate([place, turned[..., 2:] * self.scale], axis=-1)

    def is_turned_to(self, side: int) -> float:
        """Returns how far the face is turned to a side (-1 left, 1 right of the picture), -1..1."""
        return float(side * np.sin(self.yaw))


def draw_pose(rng: np.random.Generator, head: Head, size: int) -> Pose:
    """Returns a pose that puts the face into a picture of `size` pixels."""
    yaw, pitch, roll = (
        min(limit, max(-limit, rng.normal(0, sigma))) for sigma, limit in (_YAW, _PITCH, _ROLL)
    )
    if rng.random() < _ANYWHERE:
        yaw = rng.uniform(-_YAW[1], _YAW[1])
    yaw, pitch, roll = math.radians(yaw), math.radians(pitch), math.radians(roll)
    bare = Pose(yaw, pitch, roll, _rotation(yaw, pitch, roll), rng.uniform(0.03, 0.14))
    points = landmarks(head, bare)
    low, high = points.min(0), points.max(0)
    scale = size * rng.uniform(0.5, 0.6) / float((high - low).max())
    center = size / 2 - 0.5 + rng.normal(0, 0.02, 2) * size
    offset = center - scale * (low + high) / 2
    return Pose(
        yaw,
        pitch,
        roll,
        bare.rotation,
        bare.perspective,
        scale,
        (float(offset[0]), float(offset[1])),
    )


def landmarks(head: Head, pose: Pose) -> Array:
    """Returns the 68 landmarks in pixels.

    A jaw point hidden behind the cheek of a turned head slides to the visible contour at its
    height, as people annotate it.

    Shapes:
        returns: [68, 2].
    """
    points = pose.project(head.points)
    rows = pose.project(head.jaw_rows)
    across = pose.rotation[:2, 0] / np.linalg.norm(pose.rotation[:2, 0])
    middle = COLUMNS // 2
    for index in range(17):
        side = -1 if index < 8 else 1
        half = rows[index, : middle + 1] if side < 0 else rows[index, middle:]
        reach = half[:, :2] @ across * side
        edge = int(reach.argmax())
        own = points[index, :2] @ across * side
        if index != 8 and reach[edge] > own and points[index, 2] < half[edge, 2]:
            points[index] = half[edge]
    return points[:, :2]


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(tilt @ nod @ turn, np.float64)
