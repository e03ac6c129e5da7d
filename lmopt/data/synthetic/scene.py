"""What is behind the face: background, hair, body and ears."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic.paint import Array, Canvas, curve
from lmopt.data.synthetic.pose import Pose
from lmopt.data.synthetic.skin import Look

_EAR = np.array(
    [
        [0.80, -0.05, -0.12],
        [0.90, 0.0, -0.2],
        [0.88, 0.2, -0.22],
        [0.80, 0.36, -0.15],
        [0.74, 0.15, -0.05],
    ]
)
_SHOULDERS = np.array(
    [[-0.35, 0.0], [0, 0.12], [0.35, 0.0], [1.9, 0.6], [2.0, 4.0], [-2.0, 4.0], [-1.9, 0.6]]
)


def draw_background(rng: np.random.Generator, size: int) -> Canvas:
    """Returns a canvas with a gradient, blobs, texture, stripes or plain colour, and shapes."""
    pixels = np.clip(_plain(rng, size), 0, 255).astype(np.uint8)
    canvas = Canvas(np.ascontiguousarray(pixels))
    for _ in range(rng.integers(0, 7)):
        canvas.fill(rng.uniform(0, size, (rng.integers(3, 6), 2)), rng.uniform(0, 255, 3))
    if rng.random() < 0.6:
        blurred = cv2.GaussianBlur(canvas.pixels, (0, 0), rng.uniform(0.8, 4))
        canvas.pixels = np.asarray(blurred, np.uint8)
    return canvas


def _plain(rng: np.random.Generator, size: int) -> NDArray[np.floating[Any]]:
    kind = rng.integers(5)
    first, second = rng.uniform(0, 255, (2, 3))
    if kind == 0:
        ramp = np.linspace(0, 1, size)[:, None] * np.ones((1, size))
        part = (ramp if rng.random() < 0.5 else ramp.T)[..., None]
        return np.asarray(first * (1 - part) + second * part)
    if kind == 1:
        coarse = rng.uniform(0, 255, (rng.integers(2, 9), rng.integers(2, 9), 3))
        return np.asarray(
            cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        )
    if kind == 2:
        grain = rng.uniform(0, 255, (size // 2, size // 2, 3)).astype(np.float32)
        texture = cv2.resize(cv2.GaussianBlur(grain, (0, 0), rng.uniform(1, 4)), (size, size))
        return np.asarray((texture - texture.mean()) * rng.uniform(1, 4) + first)
    if kind == 3:
        across = np.arange(size) * rng.uniform(0.05, 0.8)
        wave = np.sin(across + np.arange(size)[:, None] * rng.uniform(-0.8, 0.8))[..., None] > 0
        return np.asarray(np.where(wave, first, first * 0.7 + second * 0.3))
    return np.full((size, size, 3), first, np.float32)


def draw_behind(canvas: Canvas, rng: np.random.Generator, pose: Pose, look: Look) -> None:
    """Draws hair, neck, shoulders and the visible ears."""
    if not look.bald:
        _draw_hair(canvas, rng, pose, look)
    throat = pose.project(np.array([0, 0.75, -0.35]))[:2]
    half = np.array([pose.scale * 0.42, 0])
    base = throat + np.array([rng.normal(0, 0.1), 1]) * pose.scale * 1.3
    neck = np.stack([throat - half, throat + half, base + half * 1.05, base - half * 1.05])
    canvas.fill(neck, look.light.lit(look.skin, 0.15) * 0.85)
    collar = throat + np.array([0, pose.scale * rng.uniform(0.62, 0.9)])
    canvas.fill(curve(collar + _SHOULDERS * pose.scale, 4, closed=True), rng.uniform(0, 255, 3))
    for side in (-1, 1):
        if pose.is_turned_to(side) < 0.35:
            ear = pose.project(_EAR * [side, 1, 1])
            tone = look.light.lit(look.skin, 0.25) * [1, 0.93, 0.9]
            canvas.fill(curve(ear, 6, closed=True), tone)


def _draw_hair(canvas: Canvas, rng: np.random.Generator, pose: Pose, look: Look) -> None:
    cloth = rng.uniform(0, 255, 3) if rng.random() < 0.05 else None  # a scarf over the hair
    tone = look.light.lit(look.hair if cloth is None else cloth, 0.3)
    volume = rng.uniform(0.86, 1.08)
    center = pose.project(np.array([0, -0.25, -0.35]))[:2]
    down = pose.rotation[:2, 1]
    tilt = float(np.rad2deg(np.arctan2(down[1], down[0]))) - 90
    axes = (pose.scale * 0.86 * volume, pose.scale * volume)
    canvas.ellipse(center, axes, tilt, tone)
    if cloth is not None or rng.random() < 0.35:
        fall: Array = np.array(
            [[-0.85, -0.3, -0.3], [0.85, -0.3, -0.3], [1.0, 1.3, -0.4], [-1.0, 1.3, -0.4]]
        )
        canvas.fill(pose.project(fall * [volume, 1, 1]), tone)
