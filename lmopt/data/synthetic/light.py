"""Light on a face: harmonic ambient light, one lamp, and the shadows it casts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lmopt.data.synthetic.head import EAR_TURN, TURN_POWER, Head
from lmopt.data.synthetic.paint import Array
from lmopt.data.synthetic.pose import Pose

_STEPS = np.array([0.08, 0.16, 0.27, 0.42, 0.62])  # towards the lamp, in head units
_SOFTNESS = 0.07


@dataclass(frozen=True)
class Light:
    """What shines on a face.

    Attributes:
        color: RGB factors.
        ambient, diffuse: Strengths of the light from all around and of the lamp.
        direction: Unit vector to the lamp, camera axes.
        harmonics: How the ambient light changes with the normal: spherical harmonics of degree
            one and two, without constants.
        edge: Line (cos, sin, place) beyond which something keeps the lamp off, or None.
        casts_shadows: Whether the lamp is so small that features cast shadows.
    """

    color: Array
    ambient: float
    diffuse: float
    direction: Array
    harmonics: Array
    edge: tuple[float, float, float] | None
    casts_shadows: bool

    @property
    def is_hard(self) -> bool:
        """Returns whether parts of a face are much darker than others."""
        return self.edge is not None or self.diffuse > 1.4 * self.ambient

    @property
    def flat(self) -> float:
        """Returns the brightness of what has no shape of its own."""
        return min(1.2, max(0.3, self.ambient + 0.5 * self.diffuse))

    def lit(self, albedo: Array, direct: float) -> Array:
        """Returns a colour under the ambient light and a share of the lamp's."""
        return np.asarray(albedo * self.color * (self.ambient + direct * self.diffuse))

    def strength(self, head: Head, pose: Pose, turned: Array, normal: Array) -> Array:
        """Returns the light that falls on each point of the surface.

        Shapes:
            turned, normal: [ROWS, COLUMNS, 3], camera axes; returns [ROWS, COLUMNS].
        """
        x, y, z = normal[..., 0], normal[..., 1], normal[..., 2]
        basis = np.stack([x, y, z, x * y, x * z, y * z, x * x - y * y, 1.5 * z * z - 0.5], -1)
        around = self.ambient * np.maximum(0.8 + 0.2 * z + basis @ self.harmonics, 0.25)
        direct = self.diffuse * np.maximum(normal @ self.direction, 0)
        if self.casts_shadows:
            direct *= 1 - _shadow(head, self.direction @ pose.rotation)
        if self.edge is not None:
            cos, sin, place = self.edge
            beyond = (turned[..., 0] * cos + turned[..., 1] * sin - place) / 0.1
            direct *= 1 / (1 + np.exp(np.minimum(beyond, 30)))
        return np.asarray(around + direct, np.float64)


def draw_light(rng: np.random.Generator) -> Light:
    """Returns a random light, mostly mild."""
    ambient = rng.uniform(0.25, 0.8)
    direction = rng.normal(0, 1, 3) * [1, 0.8, 0.5] + [0, -0.5, 0.9]
    angle, place = rng.uniform(0, 2 * np.pi), rng.normal(0.2, 0.3)
    return Light(
        color=np.clip(rng.normal(1, 0.07, 3), 0.8, 1.2),
        ambient=ambient,
        diffuse=(1.15 - ambient) * rng.uniform(0.6, 1.25),
        direction=direction / np.linalg.norm(direction),
        harmonics=rng.normal(0, 0.12, 8),
        edge=(np.cos(angle), np.sin(angle), place) if rng.random() < 0.1 else None,
        casts_shadows=bool(rng.random() < 0.5),
    )


def _shadow(head: Head, to_lamp: Array) -> Array:
    """Returns how much of the lamp is hidden by the head itself from each surface point."""
    points = head.vertices[..., None, :] + _STEPS[:, None] * to_lamp
    above = _surface(head, points[..., 0], points[..., 1]) - points[..., 2]
    return np.asarray(np.clip(above.max(-1) / _SOFTNESS, 0, 1))


def _surface(head: Head, x: Array, y: Array) -> Array:
    """Returns z of the surface over (x, y), far behind outside of the face."""
    vertices = head.vertices
    rows, columns = vertices.shape[:2]
    middle = vertices[:, columns // 2, 1]
    row = np.interp(y, middle, np.arange(rows), left=-9, right=-9)
    across = x / np.interp(row, np.arange(rows), vertices[..., 0].max(1))
    turn = np.arcsin(np.clip(across, -1, 1))
    even = np.sign(turn) * (np.abs(turn) / EAR_TURN) ** (1 / TURN_POWER)
    column = np.where(np.abs(across) < 1, (even + 1) / 2 * (columns - 1), -9)
    flat = (-1, x.shape[-1])
    found = cv2.remap(
        vertices[..., 2].astype(np.float32),
        column.reshape(flat).astype(np.float32),
        row.reshape(flat).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=-9,
    )
    return np.asarray(found, np.float64).reshape(x.shape)
