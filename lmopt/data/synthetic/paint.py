"""Drawing with sub-pixel polygons: a canvas of bytes, and curves through points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = Sequence[float] | Array
Draw = Callable[[NDArray[np.uint8], Array], None]

SHIFT = 4
ONE = 1 << SHIFT


def fixed(points: Array) -> NDArray[np.int32]:
    """Returns x and y of points in OpenCV's fixed-point numbers."""
    return np.rint(points[..., :2] * ONE).astype(np.int32)


def curve(points: Array, steps: int, *, closed: bool) -> Array:
    """Returns a Catmull-Rom curve through points, `steps` points per segment."""
    neighbours = points[_neighbours(len(points), closed)]
    flat: Array = (_basis(steps) @ neighbours).reshape(-1, points.shape[1])
    return flat if closed else np.vstack([flat, points[-1:]])


@cache
def _neighbours(count: int, closed: bool) -> NDArray[np.intp]:
    """Returns the four points that shape each segment, [segments, 4]."""
    around = np.arange(count if closed else count - 1)[:, None] + np.arange(-1, 3)
    return around % count if closed else np.clip(around, 0, count - 1)


@cache
def _basis(steps: int) -> Array:
    """Returns the weights of the four points along a segment, [steps, 4]."""
    t = np.arange(steps) / steps
    powers = np.stack([np.ones(steps), t, t**2, t**3], axis=1)
    spline = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    return np.asarray(powers @ spline / 2, np.float64)


def rgb(color: Color) -> list[float]:
    """Returns a colour as OpenCV wants it; it clips to bytes itself."""
    return color.tolist() if isinstance(color, np.ndarray) else list(color)


@dataclass
class Canvas:
    """A picture being drawn. All points are in pixels, centre of the top-left pixel = (0, 0).

    Shapes:
        pixels: uint8[size, size, 3], RGB.
    """

    pixels: NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Returns the side in pixels."""
        return len(self.pixels)

    def fill(self, points: Array, color: Color, opacity: float = 1.0) -> None:
        """Fills a polygon."""
        tone = rgb(color)

        def draw(pixels: NDArray[np.uint8], at: Array) -> None:
            cv2.fillPoly(pixels, [fixed(at)], tone, cv2.LINE_AA, SHIFT)

        self._blend(draw, points, opacity, 2)

    def line(
        self,
        points: Array,
        color: Color,
        width: float = 1.0,
        *,
        closed: bool = False,
        opacity: float = 1.0,
    ) -> None:
        """Draws a line through points."""
        thick, tone = max(1, round(width)), rgb(color)

        def draw(pixels: NDArray[np.uint8], at: Array) -> None:
            cv2.polylines(pixels, [fixed(at)], closed, tone, thick, cv2.LINE_AA, SHIFT)

        self._blend(draw, points, opacity, thick + 2)

    def _blend(self, draw: Draw, points: Array, opacity: float, margin: int) -> None:
        """Draws on a copy of the window around points and blends it back."""
        if opacity >= 1.0:
            draw(self.pixels, points)
            return
        x, y, width, height = cv2.boundingRect(points[:, :2].astype(np.float32))
        left, top = max(0, x - margin), max(0, y - margin)
        right, bottom = max(0, x + width + margin), max(0, y + height + margin)
        window = self.pixels[top:bottom, left:right]
        if not window.size:  # all of it is outside of the picture
            return
        below, drawn = np.ascontiguousarray(window), window.copy()
        draw(drawn, points[:, :2] - [left, top])
        window[:] = cv2.addWeighted(drawn, opacity, below, 1 - opacity, 0)

    def ellipse(
        self, center: Array, axes: tuple[float, float], degrees: float, color: Color
    ) -> None:
        """Fills an ellipse with the given half axes."""
        at = (int(center[0] * ONE), int(center[1] * ONE))
        half = (max(1, int(axes[0] * ONE)), max(1, int(axes[1] * ONE)))
        cv2.ellipse(self.pixels, at, half, degrees, 0, 360, rgb(color), -1, cv2.LINE_AA, SHIFT)

    def mask(self, points: Array) -> NDArray[np.uint8]:
        """Returns how much of each pixel a polygon covers, 0..255."""
        covered = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(covered, [fixed(points)], 255, cv2.LINE_AA, SHIFT)
        return covered

    def paste(self, other: NDArray[np.uint8], covered: NDArray[np.uint8]) -> None:
        """Takes over `other` where a mask covers."""
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        if not len(rows):
            return
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        weight = covered[window][..., None].astype(np.uint16)
        mixed = other[window] * weight + self.pixels[window] * (255 - weight)
        self.pixels[window] = (mixed // 255).astype(np.uint8)
