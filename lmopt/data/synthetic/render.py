"""One rendered face: picture, exact landmarks, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic import features, occluders
from lmopt.data.synthetic.camera import photograph
from lmopt.data.synthetic.head import draw_head
from lmopt.data.synthetic.paint import Canvas
from lmopt.data.synthetic.pose import draw_pose, landmarks
from lmopt.data.synthetic.scene import draw_background, draw_behind
from lmopt.data.synthetic.sitter import Sitter
from lmopt.data.synthetic.skin import draw_look, draw_mesh

GENERATOR_VERSION = 2
"""Counts changes of what a seed renders to."""

SIZE = 160
LABELS = (
    *("yaw", "pitch", "roll", "glasses", "occlusion", "expression", "pose", "lighting", "blur"),
    *("dark-skin", "light-skin", "old", "young"),
)
"""What every rendered face is labelled with."""
_FAR_TURN = 0.35  # radians of yaw from which the nose may hide the far eye
_POSED = np.deg2rad([30, 20, 25])  # yaw, pitch, roll from which a face is one of "pose"
_OCCLUDED = 6  # hidden landmarks from which a face is one of "occlusion"


@dataclass(frozen=True, eq=False)
class RenderedFace:
    """A rendered face.

    Attributes:
        picture: RGB.
        landmarks: The 68 points of iBUG's scheme, centre of the top-left pixel = (0, 0).
        visible: Whether nothing is in front of a landmark, neither the head nor other things.
        box: Box of the landmarks with the jitter of a face detector: x0, y0, x1, y1.
        labels: Yaw, pitch and roll in degrees, and categories as 1 or 0.

    Shapes:
        picture: uint8[size, size, 3]; landmarks: float64[68, 2]; visible: bool[68].
    """

    picture: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    visible: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    labels: Mapping[str, float]


def render_face(seed: int, split: int, index: int, *, size: int = SIZE) -> RenderedFace:
    """Returns face `index` of a split; it depends on these three numbers alone."""
    rng = np.random.default_rng([GENERATOR_VERSION, seed, split, index])
    head = draw_head(rng)
    pose = draw_pose(rng, head, size)
    points = landmarks(head, pose)
    look = draw_look(rng)
    canvas = draw_background(rng, size)
    draw_behind(canvas, rng, pose, look)
    mesh = draw_mesh(rng, head, pose, look)
    mesh.draw(canvas, None, max(0.8, pose.scale * 0.028))
    sitter = Sitter(head, pose, look, points, mesh.strength)
    features.draw_eyes(canvas, rng, sitter)
    if abs(pose.yaw) > _FAR_TURN:
        mesh.draw(canvas, mesh.on_nose, max(0.7, pose.scale * 0.02))
    features.draw_nose(canvas, sitter)
    features.draw_mouth(canvas, rng, sitter)
    features.draw_folds(canvas, rng, sitter)
    glasses = rng.random() < 0.16
    hidden = _draw_before(canvas, rng, sitter, glasses) | sitter.hidden_by_the_head()
    low, high = points.min(0), points.max(0)
    corners = np.concatenate([low, high]) + rng.normal(0, 0.04, 4) * (high - low).max()
    x0, y0, x1, y1 = (float(v) for v in corners)
    picture, is_blurred = photograph(rng, canvas.pixels)
    turns = np.array([pose.yaw, pose.pitch, pose.roll])
    values = (
        *np.rad2deg(turns),
        glasses,
        hidden.sum() >= _OCCLUDED,
        head.expression >= 1,
        (abs(turns) > _POSED).any(),
        look.light.is_hard,
        is_blurred,
        look.tone >= 3.5,
        look.tone <= 1.5,
        look.age >= 0.75,
        look.age <= 0.25,
    )
    labels = {name: float(value) for name, value in zip(LABELS, values, strict=True)}
    return RenderedFace(picture, points, ~hidden, (x0, y0, x1, y1), labels)


def _draw_before(
    canvas: Canvas, rng: np.random.Generator, sitter: Sitter, glasses: bool
) -> NDArray[np.bool_]:
    """Draws what is in front of the face; returns which landmarks it covers, bool[68]."""
    bare = canvas.pixels.copy()
    if glasses and occluders.draw_glasses(canvas, rng, sitter):
        bare = canvas.pixels.copy()
    if not sitter.look.bald and rng.random() < 0.18:
        occluders.draw_fringe(canvas, rng, sitter)
    if rng.random() < 0.06:
        occluders.draw_hat(canvas, rng, sitter)
    if rng.random() < 0.1:
        occluders.draw_hand(canvas, rng, sitter)
    if rng.random() < 0.12:
        for _ in range(rng.integers(1, 3)):
            occluders.draw_thing(canvas, rng, sitter)
    column, row = np.clip(np.rint(sitter.points), 0, canvas.size - 1).astype(int).T
    return np.asarray((canvas.pixels[row, column] != bare[row, column]).any(-1))
