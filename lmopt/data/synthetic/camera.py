"""What a camera does to a picture: uneven light, exposure, colour, blur and noise."""

from __future__ import annotations

from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

_NORMAL = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)], np.float32)
"""Even quantiles of the normal distribution; drawing one takes a random byte."""


def photograph(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a picture as a random camera would have taken it."""
    size = len(pixels)
    picture = pixels.astype(np.float32)
    if rng.random() < 0.6:
        uneven = rng.uniform(0.7, 1.25, (3, 3)).astype(np.float32)
        picture *= cv2.resize(uneven, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    tone = 255 * (np.arange(256) / 255) ** rng.uniform(0.75, 1.35)
    tone = (tone - 128) * rng.uniform(0.7, 1.2) + 128 + rng.normal(0, 9)
    balance = np.clip(rng.normal(1, 0.06, 3), 0.8, 1.2)
    table = np.clip(tone[:, None] * balance, 0, 255).astype(np.uint8)[None]
    taken = cv2.LUT(np.clip(picture, 0, 255).astype(np.uint8), table)
    if rng.random() < 0.12:
        taken = cv2.cvtColor(cv2.cvtColor(taken, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.7:
        taken = cv2.GaussianBlur(taken, (0, 0), rng.uniform(0.4, 1.1))
    grain = (_NORMAL * np.float32(rng.uniform(0, 5)))[
        rng.integers(256, size=taken.shape, dtype=np.uint8)
    ]
    return np.asarray(np.clip(taken + grain, 0, 255), np.uint8)
