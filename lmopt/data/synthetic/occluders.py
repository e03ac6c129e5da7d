"""What is in front of the skin: glasses, hair, hats, hands and random things."""

from __future__ import annotations

import cv2
import numpy as np

from lmopt.data.synthetic.paint import Array, Canvas, curve
from lmopt.data.synthetic.sitter import Sitter

_ANCHORS = np.array([3, 5, 8, 11, 13, 30, 36, 41, 45, 46, 48, 54, 57])  # where hands touch
_FINGERS = np.array([[-0.21, 0.62], [-0.07, 0.72], [0.07, 0.7], [0.2, 0.56]])  # base, length


def draw_glasses(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> bool:
    """Draws a frame, sometimes with dark lenses; returns whether one can see through them."""
    pose = sitter.pose
    tone = rng.uniform(0, 120, 3) if rng.random() < 0.7 else rng.uniform(100, 230, 3)
    thick = pose.scale * rng.uniform(0.015, 0.045)
    width, height, corners = rng.uniform(0.23, 0.29), rng.uniform(0.15, 0.22), rng.uniform(2, 4)
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    ring = np.stack(
        [
            np.sign(cos) * np.abs(cos) ** (2 / corners) * width,
            np.sign(sin) * np.abs(sin) ** (2 / corners) * height,
            np.zeros(28),
        ],
        -1,
    )
    dark = rng.random() < 0.15
    for side in (-1, 1):
        rim = pose.project(ring + [side * 0.36, 0.03, 0.72])
        if dark:
            canvas.fill(rim, np.full(3, 26.0))
        canvas.line(rim, tone, thick, closed=True)
        if pose.is_turned_to(side) < 0.2:
            temple = np.array([[side * (0.36 + width), 0.0, 0.72], [side * 0.8, -0.02, 0.0]])
            canvas.line(pose.project(temple), tone, thick)
    bridge = np.array([[-0.36 + width, 0.0, 0.74], [0, -0.03, 0.78], [0.36 - width, 0.0, 0.74]])
    canvas.line(pose.project(bridge), tone, thick)
    return not dark


def draw_fringe(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws hair that falls over the forehead, sometimes over the brows."""
    look, pose = sitter.look, sitter.pose
    x = np.linspace(-0.72, 0.72, 9)
    z = 0.68 * np.sqrt(np.maximum(1 - (x / 0.86) ** 2, 0)) + 0.03
    parting, lowest = rng.uniform(-0.6, 0.6), rng.uniform(-0.48, -0.08)
    lower = lowest - 0.25 * np.exp(-(((x - parting) / 0.25) ** 2)) + rng.normal(0, 0.035, 9)
    upper = np.full(9, -0.92)
    ends, roots = (np.stack([x, y, z], -1) for y in (lower, upper))
    roots[:, 2] -= 0.2
    tone = look.light.lit(look.hair, 0.5)
    ends, roots = pose.project(ends), pose.project(roots)
    canvas.fill(np.vstack([curve(ends, 3, closed=False), roots[::-1]]), tone)
    for k in range(1, 8):
        strand = np.stack([roots[k], ends[k]]) + rng.normal(0, pose.scale * 0.03, 3)
        canvas.line(strand, tone * rng.uniform(0.6, 1.35), pose.scale * 0.03, opacity=0.6)


def draw_hat(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws a cap, a hat or a headband, pulled down to somewhere on the forehead."""
    pose, tone = sitter.pose, sitter.look.light.flat * rng.uniform(0, 255, 3)
    turn = np.linspace(-1.45, 1.45, 11)
    low, high = rng.uniform(-0.62, -0.3), rng.choice([-0.65, -1.15, -1.4])
    wide, deep = 0.86 * np.sin(turn), 0.76 * np.cos(turn)
    rim = np.stack([wide, low - 0.06 * np.cos(turn), deep - 0.05], -1)
    crown = np.stack([wide * 0.92, np.full(11, min(high, low - 0.12)), deep * 0.6 - 0.2], -1)
    edge = pose.project(rim)
    canvas.fill(np.vstack([edge, pose.project(crown)[::-1]]), tone)
    if rng.random() < 0.5:
        brim = rim + np.array([0, 0.05, 0.45]) * np.cos(turn / 1.2)[:, None]
        canvas.fill(np.vstack([edge, pose.project(brim)[::-1]]), tone * 0.7)


def draw_hand(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws a hand that touches the face, with its forearm or sleeve."""
    scale, look = sitter.pose.scale, sitter.look
    touched = sitter.points[_ANCHORS[rng.integers(len(_ANCHORS))]]
    outward = touched - sitter.points[27:36].mean(0) + rng.normal(0, 0.3, 2) * scale
    outward = outward + [0, 0.5 * scale]  # arms come from below
    away = outward / (np.linalg.norm(outward) + 1e-6)
    size = scale * rng.uniform(0.75, 1.05)
    side = np.array([-away[1], away[0]]) * rng.choice([-1, 1])
    palm = touched + away * size * rng.uniform(0.2, 0.75)
    tone = look.skin * look.light.color * look.light.flat * rng.uniform(0.75, 1.1)
    cloth = rng.uniform(0, 255, 3) if rng.random() < 0.6 else tone * 0.95
    wrist = palm + away * size * 0.45
    canvas.line(np.stack([wrist, wrist + away * size * 3]), cloth, size * 0.5)
    spread, bend = rng.uniform(0.0, 0.5), rng.normal(0, 0.18)
    for base, length in _FINGERS * [1, rng.uniform(0.6, 1)]:
        root = palm + side * base * size * 1.1 - away * size * 0.15
        lean = -away + side * (base * spread * 2 + bend)
        tip = root + lean * length * size + side * bend * 0.3 * size
        _draw_finger(canvas, np.stack([root, tip]), tone, size * 0.135)
    angle = np.linspace(0, 2 * np.pi, 15, endpoint=False)[:, None]
    canvas.fill(palm + (np.cos(angle) * side + 0.88 * np.sin(angle) * away) * size * 0.33, tone)
    thumb = palm - side * size * 0.3 + (-away - side * 0.6) * size * np.array([[0.0], [0.4]])
    _draw_finger(canvas, thumb, tone, size * 0.15)


def _draw_finger(canvas: Canvas, path: Array, tone: Array, width: float) -> None:
    canvas.line(path, tone * 0.6, width + 2)
    canvas.line(path, tone, width)


def draw_thing(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws something of any shape and colour over a part of the face."""
    scale, look = sitter.pose.scale, sitter.look
    center = sitter.points[rng.integers(len(sitter.points))] + rng.normal(0, 0.15, 2) * scale
    corners = center + rng.normal(0, 1, (rng.integers(4, 7), 2)) * scale * rng.uniform(0.12, 0.35)
    hull = cv2.convexHull(corners.astype(np.float32))[:, 0].astype(np.float64)
    like_skin = look.skin * look.light.flat * rng.uniform(0.8, 1.1)
    canvas.fill(
        curve(hull, 4, closed=True), like_skin if rng.random() < 0.4 else rng.uniform(0, 255, 3)
    )
