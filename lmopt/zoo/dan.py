"""DAN: a cascade whose every stage sees the face moved onto the mean shape, as IR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import (
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv2D,
    Dense,
    InvertTransform,
    LandmarkHeatmap,
    MaxPool2D,
    Relu,
    Reshape,
    ResizeNearest,
    SimilarityFit,
    TransformLandmarks,
    Warp,
)
from lmopt.zoo.mean_shape import MEAN_SHAPE

SIZE = 112
LANDMARKS = 68
EPSILON = 1e-3
FILTERS = (64, 128, 256, 512)
HIDDEN = 256
SHAPE = "mean_shape"
"""The constant node that holds the mean shape, in the order x0,y0,x1,y1,..."""


def landmarks_of(stage: int) -> str:
    """Returns the name of the node that gives the landmarks of a stage, counted from 1."""
    return f"stage{stage}_landmarks"


def build(
    name: str,
    stages: int,
    size: int = SIZE,
    *,
    mean_shape: ArrayLike = MEAN_SHAPE,
    folded: bool = False,
) -> Graph:
    """Returns an uninitialised DAN; only the mean shape has values.

    The nodes of stage k are called `stagek_...`; those of stage 1 are the same for any number of
    stages, so that weights of a shorter cascade fit a longer one. Folding leaves the batch norm on
    the joined maps at the beginning of a later stage.

    Args:
        name: Of the graph.
        stages: Length of the cascade.
        size: Input height and width, a multiple of 16.
        mean_shape: Landmarks [68, 2] that the cascade starts from and moves faces onto.
        folded: Whether batch norms are already folded into the kernels and ReLU fused.

    Source: Kowalski et al., "Deep Alignment Network", 2017 (arXiv:1706.01789), table 1; batch norm
        comes before ReLU, and the last layers have no dropout.
    """
    return _Builder(name, size, folded).build(stages, np.asarray(mean_shape, np.float32))


class _Builder:
    def __init__(self, name: str, size: int, folded: bool) -> None:
        self.edit = Edit(name)
        self.size = size
        self.folded = folded

    def build(self, stages: int, mean_shape: NDArray[np.float32]) -> Graph:
        image = self.edit.input("image", (None, self.size, self.size, 1))
        shape = self.edit.add(
            SHAPE, Constant((2 * LANDMARKS,)), weights={"value": mean_shape.reshape(-1)}
        )
        features, offset = self._body("stage1", image)
        landmarks = self.edit.add(landmarks_of(1), Add(), offset, shape)
        for stage in range(2, stages + 1):
            landmarks, features = self._later(stage, image, shape, landmarks, features)
        self.edit.output("landmarks", landmarks)
        return self.edit.done()

    def _later(
        self, stage: int, image: Value, shape: Value, landmarks: Value, features: Value
    ) -> tuple[Value, Value]:
        """Returns landmarks and features of a stage after the first."""
        name, sides = f"stage{stage}", (self.size, self.size)
        move = self.edit.add(f"{name}_transform", SimilarityFit(), landmarks, shape)
        back = self.edit.add(f"{name}_inverse", InvertTransform(), move)
        moved = self.edit.add(f"{name}_moved", TransformLandmarks(), landmarks, move)
        half = self.size // 2
        seen = self._relu(f"{name}_seen", Dense(half * half), features)
        seen = self.edit.add(f"{name}_seen_map", Reshape((half, half, 1)), seen)
        maps = self.edit.add(
            f"{name}_maps",
            Concat(),
            self.edit.add(f"{name}_image", Warp(), image, back),
            self.edit.add(f"{name}_heatmap", LandmarkHeatmap(sides), moved),
            self.edit.add(f"{name}_seen_resize", ResizeNearest(sides), seen),
        )
        maps = self.edit.add(f"{name}_maps_bn", BatchNorm(EPSILON), maps)
        features, offset = self._body(name, maps)
        better = self.edit.add(f"{name}_moved_landmarks", Add(), offset, moved)
        return self.edit.add(landmarks_of(stage), TransformLandmarks(), better, back), features

    def _body(self, name: str, x: Value) -> tuple[Value, Value]:
        """Returns the features of the last hidden layer and what the landmarks are off by."""
        for level, filters in enumerate(FILTERS, 1):
            for index in (1, 2):
                x = self._normalized(f"{name}_conv{level}_{index}", Conv2D(filters), x)
            x = self.edit.add(f"{name}_pool{level}", MaxPool2D(), x)
        x = self.edit.add(f"{name}_flat", Reshape(), x)
        x = self._normalized(f"{name}_hidden", Dense(HIDDEN), x)
        return x, self.edit.add(f"{name}_offset", Dense(2 * LANDMARKS), x)

    def _normalized(self, name: str, op: Conv2D | Dense, x: Value) -> Value:
        if self.folded:
            return self._relu(name, op, x)
        x = self.edit.add(name, op, x)
        x = self.edit.add(f"{name}_bn", BatchNorm(EPSILON), x)
        return self.edit.add(f"{name}_relu", Relu(), x)

    def _relu(self, name: str, op: Conv2D | Dense, x: Value) -> Value:
        if self.folded:
            return self.edit.add(name, replace(op, activation="relu"), x)
        return self.edit.add(f"{name}_relu", Relu(), self.edit.add(name, op, x))
