"""What is drawn on the skin: eyes, brows, nose, mouth, folds, glasses and occluders."""

from __future__ import annotations

import cv2
import numpy as np

from lmopt.data.synthetic.head import Head
from lmopt.data.synthetic.paint import Array, Canvas, curve
from lmopt.data.synthetic.pose import Pose
from lmopt.data.synthetic.skin import Look

IRIS_TONES = np.array(
    [[60, 40, 25], [90, 60, 30], [70, 110, 130], [80, 120, 80], [110, 120, 125]], np.float64
)
_EYES = (slice(36, 42), slice(42, 48))
_BROWS = (slice(17, 22), slice(22, 27))


def draw_eyes(
    canvas: Canvas, rng: np.random.Generator, head: Head, pose: Pose, look: Look, points: Array
) -> None:
    """Draws both eyes with their brows, the far one first."""
    gaze = rng.normal(0, 0.045, 2) * [1, 0.5]
    iris = IRIS_TONES[rng.integers(len(IRIS_TONES))] * rng.uniform(0.6, 1.2)
    lash_width = 0.03 if rng.random() < 0.3 else 0.018
    brow_width = rng.uniform(0.035, 0.085)
    brow_opacity = rng.uniform(0.3, 0.7) if look.hair.mean() > 140 else rng.uniform(0.45, 1)
    sparkle = rng.random() < 0.7
    whiteness = rng.uniform(0.75, 1)
    for eye in (0, 1) if pose.yaw > 0 else (1, 0):
        lids, solid = points[_EYES[eye]], head.points[_EYES[eye]]
        ball = Canvas(canvas.pixels.copy())
        ball.fill(curve(lids, 5, closed=True), np.full(3, 230.0) * look.exposure * whiteness)
        center = pose.project(solid.mean(0) + [*gaze, 0])[:2]
        radius = pose.scale * 0.072
        axes = (radius * abs(np.cos(pose.yaw)), radius)
        tilt = float(np.rad2deg(pose.roll))
        ball.ellipse(center, axes, tilt, iris * look.exposure)
        ball.ellipse(center, (axes[0] / 2, axes[1] / 2), tilt, np.full(3, 8.0))
        if sparkle:
            glint = center + radius * 0.35 * np.array([np.sign(look.direction[0]), -1])
            ball.ellipse(glint, (radius * 0.22, radius * 0.22), 0, np.full(3, 250.0))
        canvas.paste(ball.pixels, canvas.mask(curve(lids, 5, closed=True)))
        upper = curve(lids[:4], 4, closed=False)
        canvas.line(upper, np.clip(look.hair * 0.35, 0, 90), pose.scale * lash_width)
        crease = look.skin * look.exposure * 0.62
        canvas.line(curve(lids[[3, 4, 5, 0]], 4, closed=False), crease)
        fold = pose.project(solid[:4] + np.array([0, -0.055, 0]))
        canvas.line(curve(fold, 4, closed=False), crease)
        _draw_brow(canvas, head, pose, look, eye, brow_width, brow_opacity)


def _draw_brow(
    canvas: Canvas, head: Head, pose: Pose, look: Look, eye: int, width: float, opacity: float
) -> None:
    middle = head.points[_BROWS[eye]]
    taper = np.array([0.35, 0.8, 1, 1, 0.8]) * width / 2
    lift = np.stack([np.zeros(5), taper if eye == 0 else taper[::-1], np.zeros(5)], -1)
    outline = np.vstack([pose.project(middle - lift), pose.project(middle + lift)[::-1]])
    canvas.fill(curve(outline, 3, closed=True), look.hair * 0.75 * look.exposure, opacity)


def draw_nose(canvas: Canvas, head: Head, pose: Pose, look: Look, points: Array) -> None:
    """Draws nostrils and the lower edge of the nose."""
    dark, edge = look.skin * look.exposure * 0.33, look.skin * look.exposure * 0.6
    for side, outer, inner in ((-1, 31, 32), (1, 35, 34)):
        wing, base = head.points[outer], head.points[inner]
        hole = pose.project(wing * 0.35 + base * 0.65 + [0, -0.02, 0.01])
        tilt = float(np.rad2deg(pose.roll)) + side * 20
        canvas.ellipse(hole[:2], (pose.scale * 0.035, pose.scale * 0.018), tilt, dark)
        if pose.is_turned_to(side) < 0.5:
            rim = wing + np.array([[0, -0.09, 0], [side * 0.03, -0.03, 0], [0, 0.01, 0]])
            canvas.line(curve(pose.project(rim), 3, closed=False), edge)
    canvas.line(curve(points[31:36], 3, closed=False), edge)


def draw_mouth(
    canvas: Canvas, rng: np.random.Generator, head: Head, look: Look, points: Array
) -> None:
    """Draws lips, and the dark and the teeth between them."""
    painted = np.array([rng.uniform(120, 210), rng.uniform(20, 80), rng.uniform(30, 90)])
    tone = painted if rng.random() < 0.3 else look.skin * [0.82, 0.55, 0.52]
    lips = np.clip(tone * look.exposure * rng.uniform(0.85, 1.1), 0, 255)
    opacity = rng.uniform(0.55, 1)
    inner = points[60:68]
    canvas.fill(curve(points[48:60], 3, closed=True), lips, opacity)
    upper = np.vstack([points[48:55], points[60:65][::-1]])
    canvas.fill(curve(upper, 2, closed=True), lips * 0.82, opacity)
    canvas.fill(curve(inner, 3, closed=True), np.array([60.0, 20, 20]) * look.exposure, opacity)
    if head.mouth_open > 0.05 and rng.random() < 0.8:
        share = min(0.6, 0.09 / max(head.mouth_open, 0.09))
        lower = inner[[4, 5, 6, 7, 0]]
        teeth = np.vstack([inner[:5], inner[:5][::-1] * (1 - share) + lower * share])
        canvas.fill(teeth, np.array([216.0, 212, 198]) * look.exposure, opacity)
    canvas.line(curve(inner[:5], 3, closed=False), lips * 0.4, opacity=opacity)


def draw_folds(
    canvas: Canvas, rng: np.random.Generator, head: Head, pose: Pose, look: Look
) -> None:
    """Draws the folds from nose to mouth on half of the faces."""
    if rng.random() >= 0.5:
        return
    for side, wing_index, corner_index in ((-1, 31, 48), (1, 35, 54)):
        wing, corner = head.points[wing_index], head.points[corner_index]
        path = np.stack(
            [
                wing + [side * 0.06, -0.04, 0],
                wing * 0.4 + corner * 0.6 + [side * 0.1, -0.02, 0],
                corner + [side * 0.08, 0.02, 0],
            ]
        )
        line = curve(pose.project(path), 4, closed=False)
        canvas.line(line, look.skin * look.exposure * 0.6, opacity=0.5)


def draw_glasses(canvas: Canvas, rng: np.random.Generator, pose: Pose) -> None:
    """Draws a frame, sometimes with dark lenses."""
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


def draw_occluders(
    canvas: Canvas, rng: np.random.Generator, pose: Pose, look: Look, points: Array
) -> None:
    """Draws one or two blobs, of the colour of a hand or of anything, over parts of the face."""
    for _ in range(rng.integers(1, 3)):
        center = points[rng.integers(len(points))] + rng.normal(0, 0.15, 2) * pose.scale
        spread = pose.scale * rng.uniform(0.12, 0.35)
        corners = center + rng.normal(0, 1, (rng.integers(4, 7), 2)) * spread
        hull = cv2.convexHull(corners.astype(np.float32))[:, 0].astype(np.float64)
        hand = look.skin * look.exposure * rng.uniform(0.8, 1.1)
        tone = hand if rng.random() < 0.5 else rng.uniform(0, 255, 3)
        canvas.fill(curve(hull, 4, closed=True), tone)
