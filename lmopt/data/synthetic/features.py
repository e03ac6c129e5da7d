"""What is drawn on the skin: eyes, brows, nose, mouth, folds and wrinkles."""

from __future__ import annotations

import numpy as np

from lmopt.data.synthetic.paint import Canvas, curve
from lmopt.data.synthetic.sitter import Sitter

IRIS_TONES = np.array(
    [[60, 40, 25], [90, 60, 30], [70, 110, 130], [80, 120, 80], [110, 120, 125]], np.float64
)
_EYES = (slice(36, 42), slice(42, 48))
_BROWS = (slice(17, 22), slice(22, 27))
_NOSE, _MOUTH, _FOREHEAD = slice(27, 36), slice(48, 68), slice(17, 27)
_WRINKLED = 0.55  # age from which lines show


def draw_eyes(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws both eyes with their brows, the far one first."""
    head, pose, look, points = sitter.head, sitter.pose, sitter.look, sitter.points
    gaze = rng.normal(0, 0.045, 2) * [1, 0.5]
    iris = IRIS_TONES[rng.integers(len(IRIS_TONES))] * rng.uniform(0.6, 1.2)
    lash_width = 0.03 if rng.random() < 0.3 else 0.018
    brow_width = rng.uniform(0.035, 0.085)
    brow_opacity = rng.uniform(0.3, 0.7) if look.hair.mean() > 140 else rng.uniform(0.45, 1)
    sparkle = rng.random() < 0.7
    whiteness = rng.uniform(0.75, 1)
    for eye in (0, 1) if pose.yaw > 0 else (1, 0):
        lids, solid = points[_EYES[eye]], head.points[_EYES[eye]]
        glow = sitter.light_on(_EYES[eye])
        ball = Canvas(canvas.pixels.copy())
        ball.fill(curve(lids, 5, closed=True), 230 * whiteness * glow)
        center = pose.project(solid.mean(0) + [*gaze, 0])[:2]
        radius = pose.scale * 0.072
        axes = (radius * abs(np.cos(pose.yaw)), radius)
        tilt = float(np.rad2deg(pose.roll))
        ball.ellipse(center, axes, tilt, iris * glow)
        ball.ellipse(center, (axes[0] / 2, axes[1] / 2), tilt, np.full(3, 8.0))
        if sparkle:
            glint = center + radius * 0.35 * np.array([np.sign(look.light.direction[0]), -1])
            ball.ellipse(glint, (radius * 0.22, radius * 0.22), 0, np.full(3, 250.0))
        canvas.paste(ball.pixels, canvas.mask(curve(lids, 5, closed=True)))
        upper = curve(lids[:4], 4, closed=False)
        canvas.line(upper, np.minimum(look.hair * 0.35, 90), pose.scale * lash_width)
        crease = look.skin * glow * 0.62
        canvas.line(curve(lids[[3, 4, 5, 0]], 4, closed=False), crease)
        fold = pose.project(solid[:4] + np.array([0, -0.055, 0]))
        canvas.line(curve(fold, 4, closed=False), crease)
        _draw_brow(canvas, sitter, eye, brow_width, brow_opacity)


def _draw_brow(canvas: Canvas, sitter: Sitter, eye: int, width: float, opacity: float) -> None:
    pose, part = sitter.pose, _BROWS[eye]
    middle = sitter.head.points[part]
    taper = np.array([0.35, 0.8, 1, 1, 0.8]) * width / 2
    lift = np.stack([np.zeros(5), taper if eye == 0 else taper[::-1], np.zeros(5)], -1)
    outline = np.vstack([pose.project(middle - lift), pose.project(middle + lift)[::-1]])
    tone = sitter.look.hair * 0.75 * sitter.light_on(part)
    canvas.fill(curve(outline, 3, closed=True), tone, opacity)


def draw_nose(canvas: Canvas, sitter: Sitter) -> None:
    """Draws nostrils and the lower edge of the nose."""
    head, pose = sitter.head, sitter.pose
    skin = sitter.look.skin * sitter.light_on(_NOSE)
    dark, edge = skin * 0.33, skin * 0.6
    for side, outer, inner in ((-1, 31, 32), (1, 35, 34)):
        wing, base = head.points[outer], head.points[inner]
        hole = pose.project(wing * 0.35 + base * 0.65 + [0, -0.02, 0.01])
        tilt = float(np.rad2deg(pose.roll)) + side * 20
        canvas.ellipse(hole[:2], (pose.scale * 0.035, pose.scale * 0.018), tilt, dark)
        if pose.is_turned_to(side) < 0.5:
            rim = wing + np.array([[0, -0.09, 0], [side * 0.03, -0.03, 0], [0, 0.01, 0]])
            canvas.line(curve(pose.project(rim), 3, closed=False), edge)
    canvas.line(curve(sitter.points[31:36], 3, closed=False), edge)


def draw_mouth(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws lips, and the dark and the teeth between them."""
    head, points, glow = sitter.head, sitter.points, sitter.light_on(_MOUTH)
    painted = np.array([rng.uniform(120, 210), rng.uniform(20, 80), rng.uniform(30, 90)])
    tone = painted if rng.random() < 0.3 else sitter.look.skin * [0.82, 0.55, 0.52]
    lips = tone * glow * rng.uniform(0.85, 1.1)
    opacity = rng.uniform(0.55, 1)
    inner = points[60:68]
    canvas.fill(curve(points[48:60], 3, closed=True), lips, opacity)
    upper = np.vstack([points[48:55], points[60:65][::-1]])
    canvas.fill(curve(upper, 2, closed=True), lips * 0.82, opacity)
    canvas.fill(curve(inner, 3, closed=True), np.array([60.0, 20, 20]) * glow, opacity)
    if head.mouth_open > 0.05 and rng.random() < 0.8:
        share = min(0.6, 0.09 / max(head.mouth_open, 0.09))
        lower = inner[[4, 5, 6, 7, 0]]
        teeth = np.vstack([inner[:5], inner[:5][::-1] * (1 - share) + lower * share])
        canvas.fill(teeth, np.array([216.0, 212, 198]) * glow, opacity)
    canvas.line(curve(inner[:5], 3, closed=False), lips * 0.4, opacity=opacity)


def draw_folds(canvas: Canvas, rng: np.random.Generator, sitter: Sitter) -> None:
    """Draws the folds from nose to mouth on half of the faces, and the lines that come with age."""
    head, pose, look = sitter.head, sitter.pose, sitter.look
    worn = max(0.0, look.age - _WRINKLED) / (1 - _WRINKLED)
    if rng.random() < 0.5 or worn:
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
            canvas.line(line, look.skin * sitter.light_on(_MOUTH) * 0.6, opacity=0.5 + 0.3 * worn)
    if worn:
        _draw_wrinkles(canvas, rng, sitter, worn)


def _draw_wrinkles(canvas: Canvas, rng: np.random.Generator, sitter: Sitter, worn: float) -> None:
    """Draws lines on the forehead, beside the eyes and under them."""
    head, pose, opacity = sitter.head, sitter.pose, 0.25 + 0.45 * worn
    tone = sitter.look.skin * sitter.light_on(_FOREHEAD) * 0.62
    across = head.points[[17, 19, 21, 22, 24, 26]]
    for k in range(int(rng.integers(1, 4))):
        lifted = across - np.array([0, 0.16 + 0.1 * k, 0.01 * k]) + rng.normal(0, 0.012, (6, 3))
        canvas.line(curve(pose.project(lifted), 3, closed=False), tone, opacity=opacity)
    for side, corner, lower in ((-1, 36, slice(39, 42)), (1, 45, slice(46, 48))):
        bag = head.points[lower].mean(0) + np.array(
            [[-0.12, 0.05, 0.0], [0.0, 0.09, 0.02], [0.12, 0.05, 0.0]]
        )
        canvas.line(curve(pose.project(bag), 3, closed=False), tone, opacity=opacity)
        if pose.is_turned_to(side) < 0.5:
            for slope in (-0.06, 0.0, 0.06):
                feet = head.points[corner] + np.array(
                    [[side * 0.05, slope / 2, -0.02], [side * 0.14, slope * 1.7, -0.08]]
                )
                canvas.line(pose.project(feet), tone, opacity=opacity)
