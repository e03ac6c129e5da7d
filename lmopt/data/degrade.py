"""Worse pictures on purpose: smaller, blurred, occluded, noisy. Pure functions of RGB bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Box

Picture = NDArray[np.uint8]

_CIRCLE, _RECTANGLE = 0, 1  # and 2: an ellipse
_NEARLY = 0.95  # of the wanted fraction: where adding ever smaller shapes ends


def downscaled(picture: Picture, factor: float) -> Picture:
    """Returns the picture at 1/factor of its size, area-filtered.

    Shapes:
        uint8[height, width, 3]; returns [height / factor, width / factor, 3], at least one pixel.
    """
    import cv2

    height, width = picture.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    if small == (width, height):
        return picture
    return np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8)


def blurred(picture: Picture, factor: float) -> Picture:
    """Returns the picture down-scaled by `factor` and up-scaled again to its own size (cubic)."""
    import cv2

    small = downscaled(picture, factor)
    if small is picture:
        return picture
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def occluded(picture: Picture, box: Box, fraction: float, rng: np.random.Generator) -> Picture:
    """Returns the picture with circles, rectangles and ellipses over `fraction` of the box.

    Place, size and colour of the shapes are random; they are added until at least 95 % of the
    fraction is covered, none of them larger than what is missing, so that it is hardly exceeded.
    Of a box that reaches beyond the picture, the part inside counts.
    """
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    hidden = np.zeros((height, width), bool)
    inside = hidden[_span(y0, y1, height), _span(x0, x1, width)]  # a view
    shown, wanted = picture.copy(), fraction * inside.size
    while (missing := wanted - np.count_nonzero(inside)) > (1 - _NEARLY) * wanted:
        shape = _drawn_shape((height, width), box, missing * rng.uniform(0.25, 1.0), rng)
        shown[shape] = rng.integers(0, 256, 3)
        hidden |= shape
    return shown


def noisy(crops: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Returns crops with Gaussian noise of `sigma` of the range 0..1, rounded to bytes again.

    Shapes:
        uint8, any.
    """
    noise = rng.standard_normal(crops.shape, np.float32)
    return np.asarray(np.clip(np.rint(crops + 255.0 * sigma * noise), 0, 255), np.uint8)


def _span(low: float, high: float, size: int) -> slice:
    return slice(min(max(0, round(low)), size), min(max(0, round(high) + 1), size))


def _drawn_shape(
    size: tuple[int, int], box: Box, area: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draws a filled circle, ellipse or rectangle of an area, anywhere in the box."""
    import cv2

    x0, y0, x1, y1 = box
    center = (rng.uniform(x0, x1), rng.uniform(y0, y1))
    kind, angle = rng.integers(3), rng.uniform(0.0, 180.0)
    aspect = 1.0 if kind == _CIRCLE else math.exp(rng.uniform(-0.7, 0.7))
    round_off = 1.0 if kind == _RECTANGLE else math.pi / 4
    sides = math.sqrt(area / round_off * aspect), math.sqrt(area / round_off / aspect)
    wide, tall = (max(0.0, side - 1.0) for side in sides)  # OpenCV fills the outline's pixels too
    canvas = np.zeros(size, np.uint8)
    rotated = (center, (wide, tall), angle)
    if kind == _RECTANGLE:
        cv2.fillConvexPoly(canvas, np.rint(cv2.boxPoints(rotated)).astype(np.int32), 1)
    else:
        cv2.ellipse(canvas, rotated, 1, -1)
    return canvas.astype(bool)
