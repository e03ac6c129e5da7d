"""Boxes as a face detector might give them: the landmarks' box with its sides moved at random."""

from __future__ import annotations

import zlib

import numpy as np

from lmopt.data.dataset import Box

SIDE_SIGMA = 0.05
"""Standard deviation of each side's place, as a part of the box.

Source: the 300-W detector's boxes of 1,604 faces of AFW, HELEN and LFPW against the boxes of their
landmarks: 0.055, 0.044, 0.052 and 0.035 for left, top, right and bottom.
"""


def jittered(box: Box, face_id: str, *, sigma: float = SIDE_SIGMA, seed: int = 0) -> Box:
    """Returns the box with every side moved; the same for the same face id and seed."""
    x0, y0, x1, y1 = box
    rng = np.random.default_rng([seed, zlib.crc32(face_id.encode())])
    # Beyond three deviations a box could turn inside out.
    left, top, right, bottom = np.clip(rng.normal(0.0, sigma, 4), -3 * sigma, 3 * sigma).tolist()
    wide, tall = x1 - x0, y1 - y0
    return (x0 + left * wide, y0 + top * tall, x1 + right * wide, y1 + bottom * tall)
