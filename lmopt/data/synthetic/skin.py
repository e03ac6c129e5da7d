"""The skin: colours per mesh point under the light, and the mesh drawn far to near."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic.head import Head
from lmopt.data.synthetic.light import Light, draw_light
from lmopt.data.synthetic.paint import SHIFT, Array, Canvas, fixed
from lmopt.data.synthetic.pose import Pose

SKIN_TONES = np.array(
    [
        [255, 224, 196],
        [241, 194, 155],
        [224, 172, 125],
        [198, 134, 92],
        [141, 85, 50],
        [92, 56, 36],
        [60, 38, 28],
    ],
    np.float64,
)
HAIR_TONES = np.array(
    [
        [150, 150, 150],
        [215, 210, 205],
        [20, 16, 14],
        [45, 30, 20],
        [80, 52, 32],
        [120, 80, 45],
        [190, 150, 90],
        [150, 70, 35],
    ],
    np.float64,
)
_GRAYS = 2


@dataclass(frozen=True)
class Look:
    """Colours of one face and the light on it.

    Attributes:
        skin, hair: Albedo, RGB.
        tone: Place of the skin in SKIN_TONES, 0 the lightest.
        age: 0 young and smooth, 1 old and wrinkled.
        bald: Whether no hair grows.
        light: What shines on the face.
    """

    skin: Array
    hair: Array
    tone: float
    age: float
    bald: bool
    light: Light


def draw_look(rng: np.random.Generator) -> Look:
    """Returns random colours over the whole range of skins and hair, an age, and a light."""
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    part = tone - int(tone)
    skin = SKIN_TONES[int(tone)] * (1 - part) + SKIN_TONES[min(int(tone) + 1, 6)] * part
    age = rng.random()
    kind = rng.integers(_GRAYS if age < 0.5 else 0, len(HAIR_TONES))
    return Look(
        skin=np.clip(skin * rng.normal(1, 0.05, 3), 15, 255),
        hair=np.clip(HAIR_TONES[kind] * rng.normal(1, 0.15), 5, 240),
        tone=tone,
        age=age,
        bald=bool(rng.random() < 0.04 + 0.08 * age),
        light=draw_light(rng),
    )


@dataclass(frozen=True)
class Mesh:
    """The visible quads of a head, far to near.

    Attributes:
        corners: Fixed-point pixels, a little enlarged so that no gap shows, [quads, 4, 2].
        colors: RGB per quad, [quads, 3].
        on_nose: Whether a quad belongs to the nose, [quads].
        strength: Light on each point of the head's surface, [ROWS, COLUMNS].
    """

    corners: NDArray[np.int32]
    colors: list[list[float]]
    on_nose: NDArray[np.bool_]
    strength: Array

    def draw(self, canvas: Canvas, chosen: NDArray[np.bool_] | None, blur: float) -> None:
        """Draws the quads (all, or the chosen ones), smoothed within their outline."""
        drawn = canvas.pixels.copy()
        covered = np.zeros((canvas.size, canvas.size), np.uint8)
        if chosen is None:
            for corners, color in zip(self.corners, self.colors, strict=True):
                cv2.fillConvexPoly(drawn, corners, color, cv2.LINE_8, SHIFT)
        else:
            for index in np.flatnonzero(chosen):
                corners = self.corners[index]
                cv2.fillConvexPoly(drawn, corners, self.colors[index], cv2.LINE_8, SHIFT)
                cv2.fillConvexPoly(covered, corners, 255, cv2.LINE_8, SHIFT)
        if chosen is None:
            canvas.pixels = drawn
            outline = cv2.convexHull(self.corners.reshape(-1, 1, 2))
            cv2.fillConvexPoly(covered, outline, 255, cv2.LINE_8, SHIFT)
            covered = np.asarray(cv2.erode(covered, np.ones((3, 3), np.uint8)), np.uint8)
        canvas.paste(np.asarray(cv2.GaussianBlur(drawn, (0, 0), blur), np.uint8), covered)


def draw_mesh(rng: np.random.Generator, head: Head, pose: Pose, look: Look) -> Mesh:
    """Returns the shaded mesh of a head."""
    x, y = head.vertices[..., 0], head.vertices[..., 1]
    turned = pose.turned(head.vertices)
    normal = _normals(turned)
    strength = look.light.strength(head, pose, turned, normal) * _crevices(x, y)
    gloss = np.maximum(normal @ _halfway(look.light.direction), 0) ** 20 * rng.uniform(0, 45)
    color = _albedo(rng, head, look, x, y) * strength[..., None] * look.light.color
    color = np.clip(color + gloss[..., None], 0, 255)
    quads = _quads(pose.project(head.vertices))
    first, second = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    order = np.argsort(quads[..., 2].mean(1))
    order = order[area[order] > 0]
    center = quads[..., :2].mean(1, keepdims=True)
    mid_x, mid_y = _quads(np.stack([x, y], -1)).mean(1).T
    nose = (np.abs(mid_x) < 0.17) & (mid_y > -0.12) & (mid_y < 0.52)
    return Mesh(
        corners=fixed(center + (quads[..., :2] - center) * 1.06)[order],
        colors=_quads(color).mean(1)[order].tolist(),
        on_nose=nose[order],
        strength=strength,
    )


def _quads(grid: Array) -> Array:
    """Returns the four corners of every cell of a grid of points, [cells, 4, ...]."""
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    return corners.reshape(-1, 4, grid.shape[-1])


def _spot(x: Array, y: Array, at: tuple[float, float], size: tuple[float, float]) -> Array:
    return np.asarray(np.exp(-(((x - at[0]) / size[0]) ** 2) - ((y - at[1]) / size[1]) ** 2))


def _albedo(rng: np.random.Generator, head: Head, look: Look, x: Array, y: Array) -> Array:
    speckle = 1 + rng.normal(0, 0.035, x.shape)
    cheeks = _spot(np.abs(x), y, (0.42, 0.35), (0.2, 0.2)) * rng.uniform(0, 0.12)
    sockets = _spot(np.abs(x), y, (0.34, 0.0), (0.19, 0.1)) * rng.uniform(0, 0.3)
    albedo = look.skin * (speckle * (1 - sockets))[..., None]
    albedo = albedo * (1 - cheeks[..., None] * np.array([0.0, 1.0, 1.0]))
    if not look.bald:
        line = head.hairline + rng.normal(0, 0.03, x.shape)
        line = line + rng.uniform(-0.15, 0.25) * np.abs(x) + rng.uniform(-0.2, 0.2) * x
        sides = (np.abs(x) > rng.uniform(0.72, 0.8)) & (y < rng.uniform(-0.15, 0.35))
        strands = look.hair * (1 + rng.normal(0, 0.12, x.shape))[..., None]
        albedo = np.where(((y < line) | sides)[..., None], strands, albedo)
    if look.age > 0.2 and rng.random() < 0.3:
        side_burn = np.clip(np.abs(x) / 0.3 + np.clip((y - 0.95) / 0.1, 0, 1), 0, 1)
        beard = np.clip((y - 0.55) / 0.2, 0, 1) * side_burn
        moustache = _spot(x, y, (0, 0.62), (0.25, 0.06))
        parts = [beard, moustache, np.maximum(beard, moustache)][rng.integers(3)]
        growth = rng.uniform(0.25, 0.95) * (1 + rng.normal(0, 0.15, x.shape))
        cover = np.clip(parts * growth, 0, 0.92)[..., None]
        albedo = albedo * (1 - cover) + look.hair * cover
    return np.asarray(albedo)


def _normals(surface: Array) -> Array:
    normal = np.cross(np.gradient(surface, axis=1), np.gradient(surface, axis=0))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    return np.asarray(-normal if normal[..., 2].mean() < 0 else normal)


def _crevices(x: Array, y: Array) -> Array:
    """Returns how much light reaches folds, 1 where there is none."""
    under_nose = 0.25 * _spot(x, y, (0, 0.58), (0.16, 0.05))
    under_lip = 0.25 * _spot(x, y, (0, 0.98), (0.28, 0.05))
    return np.asarray(1 - under_nose - under_lip - 0.3 * np.clip((y - 1.12) / 0.1, 0, 1))


def _halfway(direction: Array) -> Array:
    """Returns the unit vector between a direction and the camera."""
    both = direction + np.array([0, 0, 1])
    return np.asarray(both / np.linalg.norm(both))
