"""Everything about one face that what is drawn on it has to know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.data.synthetic.head import Head
from lmopt.data.synthetic.paint import Array
from lmopt.data.synthetic.pose import Pose
from lmopt.data.synthetic.skin import Look

_JAW = 17
# What hides a landmark is so close to it, seen from the camera, and so far before it (head units).
_AROUND, _NEARER = 0.05, 0.14


@dataclass(frozen=True)
class Sitter:
    """One face in its pose and light.

    Attributes:
        head: Its shape.
        pose: Where it is.
        look: Its colours.
        points: The 68 landmarks in pixels, [68, 2].
        strength: Light on each point of the head's surface, [ROWS, COLUMNS].
    """

    head: Head
    pose: Pose
    look: Look
    points: Array
    strength: Array

    def light_on(self, part: slice) -> Array:
        """Returns the light on the surface around some landmarks, RGB factors."""
        apart = self.head.vertices - self.head.points[part].mean(0)
        strength = self.strength.flat[int((apart * apart).sum(-1).argmin())]
        return min(1.25, max(0.15, float(strength))) * self.look.light.color

    def hidden_by_the_head(self) -> NDArray[np.bool_]:
        """Returns which landmarks lie behind a part of the head, such as the nose, bool[68].

        Landmarks of the jaw never do: they lie on the contour.
        """
        hidden = np.zeros(len(self.points), bool)
        marks = self.pose.turned(self.head.points[_JAW:]).astype(np.float32)
        surface = self.pose.turned(self.head.vertices.reshape(-1, 3)).astype(np.float32)
        surface = surface[surface[:, 2] > marks[:, 2].min() + _NEARER]
        x, y, nearer = (surface[:, axis] - marks[:, None, axis] for axis in range(3))
        hidden[_JAW:] = ((x * x + y * y < _AROUND**2) & (nearer > _NEARER)).any(1)
        return hidden
