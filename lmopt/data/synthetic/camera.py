"""What a camera does to a picture: uneven light, colour, blur, noise and compression."""

from __future__ import annotations

from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

_NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)], np.float32)
"""Even quantiles of the normal distribution; drawing one takes a random byte."""

_EXPOSED = 110.0  # brightness that a camera aims at


def photograph(
    rng: np.random.Generator, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], bool]:
    """Returns a picture as a random camera would have taken it, and whether it is blurred."""
    size = len(pixels)
    middle = slice(size // 4, -size // 4, 4)
    table = _tones(rng, float(pixels[middle, middle].mean()))
    if rng.random() < 0.6:
        uneven = rng.uniform(0.7, 1.25, (3, 3)).astype(np.float32)
        light = cv2.resize(uneven, (size, size), interpolation=cv2.INTER_CUBIC)
        shaded = cv2.multiply(pixels, cv2.merge([light] * 3), dtype=cv2.CV_8U)
        pixels = np.asarray(shaded, np.uint8)
    taken = cv2.LUT(pixels, table)
    if rng.random() < 0.12:
        taken = cv2.cvtColor(cv2.cvtColor(taken, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    kind = rng.random()
    if kind < 0.6:
        taken = cv2.GaussianBlur(taken, (0, 0), rng.uniform(0.4, 1.1))
    elif kind < 0.7:
        taken = _shaken(rng, np.asarray(taken, np.uint8))
    elif kind < 0.85:
        small = round(size / rng.uniform(1.3, 3.5))
        taken = cv2.resize(taken, (small, small), interpolation=cv2.INTER_AREA)
        taken = cv2.resize(taken, (size, size), interpolation=cv2.INTER_CUBIC)
    grain = (_NORMAL * np.float32(rng.uniform(0, 5) * (3 if rng.random() < 0.1 else 1)))[
        rng.integers(256, size=taken.shape, dtype=np.uint8)
    ]
    noisy = cv2.add(taken, grain, dtype=cv2.CV_8U)
    if rng.random() < 0.35:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 80))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", noisy, quality)[1], cv2.IMREAD_COLOR)
        assert decoded is not None
        noisy = decoded
    return np.asarray(noisy, np.uint8), 0.6 <= kind < 0.85


def _tones(rng: np.random.Generator, brightness: float) -> NDArray[np.uint8]:
    """Returns what exposure, contrast and white balance make of each byte, [1, 256, 3].

    Args:
        rng: Draws them.
        brightness: Of the middle of the picture, which the exposure makes up for in part.
    """
    gain = (_EXPOSED / max(brightness, 20.0)) ** rng.uniform(0.0, 0.9)
    tone = 255 * np.minimum(np.arange(256) * (gain / 255), 1) ** rng.uniform(0.75, 1.35)
    tone = (tone - 128) * rng.uniform(0.7, 1.2) + 128 + rng.normal(0, 9)
    balance = np.clip(rng.normal(1, 0.06, 3), 0.8, 1.2)
    return np.asarray(np.clip(tone[:, None] * balance, 0, 255), np.uint8)[None]


def _shaken(rng: np.random.Generator, taken: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a picture blurred along a straight movement."""
    side = 2 * int(rng.integers(1, 5)) + 1
    path = np.zeros((side, side), np.float32)
    angle, middle = rng.uniform(0, np.pi), side // 2
    step = np.array([np.cos(angle), np.sin(angle)]) * middle
    ends = np.rint([middle - step, middle + step]).astype(int).tolist()
    cv2.line(path, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(taken, -1, path / path.sum()), np.uint8)
