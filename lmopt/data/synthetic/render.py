"""One rendered face: picture, exact landmarks, labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic import features
from lmopt.data.synthetic.camera import photograph
from lmopt.data.synthetic.head import draw_head
from lmopt.data.synthetic.pose import draw_pose, landmarks
from lmopt.data.synthetic.scene import draw_background, draw_behind
from lmopt.data.synthetic.skin import draw_look, draw_mesh

GENERATOR_VERSION = 1
"""Counts changes of what a seed renders to."""

SIZE = 160
_FAR_TURN = 0.35  # radians of yaw from which the nose may hide the far eye


@dataclass(frozen=True, eq=False)
class RenderedFace:
    """A rendered face.

    Attributes:
        picture: RGB.
        landmarks: The 68 points of iBUG's scheme, centre of the top-left pixel = (0, 0).
        box: Box of the landmarks with the jitter of a face detector: x0, y0, x1, y1.
        labels: Yaw, pitch and roll in degrees; glasses, occlusion and expression, 0 to 1.

    Shapes:
        picture: uint8[size, size, 3]; landmarks: float64[68, 2].
    """

    picture: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
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
    features.draw_eyes(canvas, rng, head, pose, look, points)
    if abs(pose.yaw) > _FAR_TURN:
        mesh.draw(canvas, mesh.on_nose, max(0.7, pose.scale * 0.02))
    features.draw_nose(canvas, head, pose, look, points)
    features.draw_mouth(canvas, rng, head, look, points)
    features.draw_folds(canvas, rng, head, pose, look)
    glasses, occluded = rng.random() < 0.16, rng.random() < 0.12
    if glasses:
        features.draw_glasses(canvas, rng, pose)
    if occluded:
        features.draw_occluders(canvas, rng, pose, look, points)
    low, high = points.min(0), points.max(0)
    corners = np.concatenate([low, high]) + rng.normal(0, 0.04, 4) * (high - low).max()
    x0, y0, x1, y1 = (float(v) for v in corners)
    return RenderedFace(
        photograph(rng, canvas.pixels),
        points,
        (x0, y0, x1, y1),
        {
            "yaw": float(np.rad2deg(pose.yaw)),
            "pitch": float(np.rad2deg(pose.pitch)),
            "roll": float(np.rad2deg(pose.roll)),
            "glasses": float(glasses),
            "occlusion": float(occluded),
            "expression": min(1.0, head.expression),
        },
    )
