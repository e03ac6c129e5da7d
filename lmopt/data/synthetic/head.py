"""The 3-D head: surface, landmarks and features of one drawn identity with one expression.

Lengths are distances between the outer eye corners; x points to the picture's right, y down, z to
the camera; the origin lies between the eyes. Proportions are set by hand after common anatomy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROWS, COLUMNS = 32, 35
EAR_TURN, TURN_POWER = math.radians(112), 1.15
"""Columns lie closer in the middle: at signed powers of even steps, times the turn to the ear."""
_TOP, _CHIN = -1.05, 1.2
_LEVELS = np.array([-1.05, -0.98, -0.85, -0.7, -0.4, 0, 0.3, 0.6, 0.85, 1.0, 1.1, 1.17, 1.2])
_HALF_WIDTHS = np.array(
    [0.18, 0.4, 0.59, 0.7, 0.79, 0.805, 0.78, 0.715, 0.59, 0.45, 0.305, 0.145, 0.02]
)
_DEPTHS = np.array([0.2, 0.33, 0.46, 0.56, 0.64, 0.64, 0.66, 0.68, 0.69, 0.67, 0.63, 0.58, 0.55])
_JAW_SIDE = np.array([0.0, 0.21, 0.42, 0.62, 0.8, 0.945, 1.065, 1.155, 1.195])
_JAW = np.concatenate([_JAW_SIDE, _JAW_SIDE[-2::-1]])
_BROW = np.array(
    [[-0.665, -0.14], [-0.565, -0.228], [-0.425, -0.252], [-0.28, -0.232], [-0.145, -0.182]]
)
_NOSE = np.array(
    [
        [0, -0.02],
        [0, 0.12],
        [0, 0.263],
        [0, 0.405],
        [-0.16, 0.483],
        [-0.083, 0.51],
        [0, 0.536],
        [0.083, 0.51],
        [0.16, 0.483],
    ]
)
_EYE = np.array(
    [
        [-0.5, 0.0],
        [-0.413, -0.06],
        [-0.306, -0.058],
        [-0.22, 0.014],
        [-0.312, 0.043],
        [-0.42, 0.043],
    ]
)
_MIRRORED_EYE = [3, 2, 1, 0, 5, 4]


@dataclass(frozen=True)
class Head:
    """One head.

    Attributes:
        vertices: Grid of surface points, top to chin and ear to ear.
        points: The 68 landmarks on the surface, jaw points at the anatomical edge.
        jaw_rows: Points of the surface along each of the 17 jaw heights, ear to ear.
        mouth_open: Gap between the lips.
        hairline: Height above which hair grows.
        expression: How far the face is from rest; 1 is strong.

    Shapes:
        vertices: [ROWS, COLUMNS, 3]; points: [68, 3]; jaw_rows: [17, COLUMNS, 3].
    """

    vertices: Array
    points: Array
    jaw_rows: Array
    mouth_open: float
    hairline: float
    expression: float


@dataclass(frozen=True)
class _Build:
    """Factors on the average head's proportions, and the jaw's opening."""

    width: float
    jaw: float
    length: float
    nose_length: float
    nose_height: float
    nose_width: float
    eye_gap: float
    mouth_y: float
    brow_y: float
    opened: float

    def half_width(self, y: Array) -> Array:
        taper = np.clip(y / 1.2, 0, 1) * (self.jaw - 1) * (1.1 - np.clip(y, 0, 1.1)) / 0.6
        return np.asarray(np.interp(y, _LEVELS, _HALF_WIDTHS) * self.width * (1 + taper))

    def depth(self, x: Array, y: Array) -> Array:
        """Returns z of the surface of the closed face."""
        inside = np.clip(1 - (np.abs(x) / np.maximum(self.half_width(y), 1e-3)) ** 2.4, 0, 1)
        z = np.interp(y, _LEVELS, _DEPTHS) * inside**0.55 + self._nose(x, y)
        for side in (-1, 1):
            z = z - 0.085 * _bump(x, y, (side * 0.34 * self.eye_gap, 0.0), (0.17, 0.11))
            z = z + 0.045 * _bump(x, y, (side * 0.36, -0.2 + self.brow_y), (0.22, 0.07))
            z = z + 0.05 * _bump(x, y, (side * 0.46, 0.32), (0.2, 0.18))
        z = z + 0.05 * _bump(x, y, (0, 0.8 * self.mouth_y), (0.22, 0.1))
        z = z + 0.05 * _bump(x, y, (0, 1.08), (0.17, 0.1))
        return np.asarray(z - 0.03 * _bump(x, y, (0, 0.97), (0.2, 0.04)))

    def _nose(self, x: Array, y: Array) -> Array:
        end = 0.43 * self.nose_length
        along = np.clip((y + 0.12) / (end + 0.12), 0, 1)
        tip = 1 / (1 + np.exp((y - end - 0.055) / 0.022))
        root = np.clip((y + 0.3) / 0.2, 0, 1)
        ridge = (0.05 + 0.27 * along**1.4) * tip * root
        z = ridge * np.exp(-((x / ((0.07 + 0.06 * along) * self.nose_width)) ** 2))
        for side in (-1, 1):
            wing = (side * 0.12 * self.nose_width, 0.46 * self.nose_length)
            z = z + 0.09 * _bump(x, y, wing, (0.055, 0.06))
        return np.asarray(z * self.nose_height)

    def place(self, pairs: Array, drop: Array | None = None) -> Array:
        """Returns surface points over (x, y), the head lengthened and the jaw opened.

        Args:
            pairs: [..., 2] on the closed face.
            drop: Share of the jaw's opening that each point takes; None follows its height.
        """
        x, y = pairs[..., 0], pairs[..., 1]
        return self.opened_jaw(np.stack([x, y, self.depth(x, y)], -1), drop)

    def opened_jaw(self, points: Array, drop: Array | None = None) -> Array:
        """Returns points of the closed face lengthened, and lowered with the jaw."""
        share = (
            np.clip((points[..., 1] - 0.78 * self.mouth_y) / 0.25, 0, 1) if drop is None else drop
        )
        moved = points.copy()
        moved[..., 1] = points[..., 1] * self.length + share * self.opened * 0.75
        moved[..., 2] = points[..., 2] - share * self.opened * 0.12
        return moved

    def rings(self, levels: Array) -> Array:
        """Returns the surface from ear to ear at each height, [levels, COLUMNS, 3]."""
        even = np.linspace(-1, 1, COLUMNS)
        turns = np.sign(even) * np.abs(even) ** TURN_POWER * EAR_TURN
        turn, level = np.meshgrid(turns, levels)
        x = self.half_width(level) * np.sin(np.clip(turn, -np.pi / 2, np.pi / 2))
        share = np.clip(np.abs(turn) / (np.pi / 2), 0, 1)
        behind = np.clip(np.abs(turn) - np.pi / 2, 0, None)
        z = self.depth(x, level) - behind * 0.9 - 0.12 * share**6
        return self.opened_jaw(np.stack([x, level, z], axis=-1))


def draw_head(rng: np.random.Generator) -> Head:
    """Returns a head of random proportions and expression."""

    def about(sigma: float) -> float:
        return math.exp(sigma * min(2.5, max(-2.5, rng.normal())))

    def within(mean: float, sigma: float, low: float, high: float) -> float:
        return min(high, max(low, rng.normal(mean, sigma)))

    opened = max(0.0, rng.normal(-0.08, 0.15)) if rng.random() < 0.75 else rng.uniform(0.08, 0.42)
    build = _Build(
        width=about(0.06),
        jaw=about(0.09),
        length=about(0.07),
        nose_length=about(0.09),
        nose_height=about(0.22),
        nose_width=about(0.15),
        eye_gap=about(0.05),
        mouth_y=about(0.06),
        brow_y=rng.normal(0, 0.035),
        opened=opened,
    )
    smile, raised = within(0.25, 0.5, -0.7, 1.2), within(0, 0.04, -0.06, 0.1)
    brow = _BROW + [0, build.brow_y - raised]
    brow[3:, 1] += within(0, 0.02, -0.04, 0.05) * np.array([0.7, 1.2])
    eye_size, asymmetry = about(0.12), within(0, 0.05, -0.15, 0.15)
    openness = 0.12 if rng.random() < 0.06 else within(0.95, 0.25, 0.3, 1.6)
    right_eye = _EYE * [1, eye_size * openness]
    right_eye[:, 0] = (_EYE[:, 0] + 0.36) * (0.8 + 0.2 * eye_size) - 0.36 * build.eye_gap
    left_eye = (right_eye * [-1, 1 - asymmetry])[_MIRRORED_EYE]
    nose = _NOSE * [1, build.nose_length]
    nose[4:, 0] *= build.nose_width
    still = np.concatenate([brow, brow[::-1] * [-1, 1], nose, right_eye, left_eye])
    lips = _lips(build, smile, corner=0.3 * about(0.14), thickness=about(0.28))
    levels = np.linspace(0, 1, ROWS) ** 0.95 * (_CHIN - _TOP) + _TOP
    surface = build.rings(np.concatenate([levels, _JAW]))
    return Head(
        vertices=surface[:ROWS],
        points=np.concatenate([_jaw(build), build.place(still), lips]),
        jaw_rows=surface[ROWS:],
        mouth_open=opened,
        hairline=within(-0.66, 0.12, -1.0, -0.42),
        expression=max(abs(smile) / 1.2, opened / 0.3, abs(raised) / 0.08),
    )


def _bump(x: Array, y: Array, at: tuple[float, float], size: tuple[float, float]) -> Array:
    return np.asarray(np.exp(-(((x - at[0]) / size[0]) ** 2) - ((y - at[1]) / size[1]) ** 2))


def _jaw(build: _Build) -> Array:
    side = np.sign(np.arange(17) - 8.0)
    x = side * build.half_width(_JAW) * 0.995
    z = build.depth(x * 0.93, _JAW)
    z[[0, 16]] -= 0.2
    z[[1, 15]] -= 0.12
    return build.opened_jaw(np.stack([x, _JAW, z], axis=-1))


def _lips(build: _Build, smile: float, *, corner: float, thickness: float) -> Array:
    """Returns landmarks 48 to 67."""
    width = corner * (1 + 0.16 * max(smile, 0))
    top = 0.075 * thickness * (1 - 0.25 * max(smile, 0))
    low = 0.1 * thickness * (1 - 0.25 * max(smile, 0))

    outer_x = [-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.6, 0.24, 0, -0.24, -0.6]
    inner_x = [-0.88, -0.3, 0, 0.3, 0.88, 0.3, 0, -0.3]
    upward = [-top * share for share in (0, 0.8, 1.05, 0.9, 1.05, 0.8, 0)]
    downward = [low * share for share in (0.75, 1.05, 1.1, 1.05, 0.75)]
    between = [-top * share for share in (0, 0.06, 0.05, 0.06, 0)] + [0.1 * low] * 3
    outer_drop = [0.17, 0, -0.05, -0.05, -0.05, 0, 0.17, 0.8, 0.97, 1, 0.97, 0.8]
    inner_drop = [0.19, 0, -0.03, 0, 0.19, 0.97, 1, 0.97]
    x = np.array(outer_x + inner_x)
    y = 0.735 * build.mouth_y - 0.05 * smile * np.abs(x) ** 1.5
    y = y + np.array(upward + downward + between)
    return build.place(np.stack([x * width, y], -1), np.array(outer_drop + inner_drop))
