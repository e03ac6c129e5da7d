"""Ops on coordinates: heatmaps decoded, and the connection between the stages of a cascade.

Landmarks are rows x0,y0,x1,y1,... in unit coordinates, 0..1 from edge to edge of the picture.
A transform is a matrix [[a, b, c], [d, e, f]] that takes (x, y) to (ax + by + c, dx + ey + f).
None of them has an integer form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lmopt.errors import GraphError
from lmopt.ir.op import Op, float_result, image_dims
from lmopt.ir.types import TensorType

DecodeMethod = Literal["argmax", "softargmax"]


@dataclass(frozen=True)
class HeatmapDecode(Op):
    """Landmarks from one heatmap each.

    `argmax` takes the centre of the highest pixel, moved by `step` pixels towards the higher of
    its two neighbours in each direction, except at the border. `softargmax` takes the mean of all
    pixel centres weighted by the softmax of `beta` times the heatmap. The former has no slope:
    training takes that of the latter in its place.

    Shapes:
        [batch, height, width, landmarks]; returns [batch, 2 * landmarks].

    Attributes:
        method: argmax or softargmax.
        step: argmax: pixels towards the higher neighbour.
        beta: Factor on the heatmap in softargmax.

    Source: the quarter of a pixel is from Newell et al., "Stacked Hourglass Networks", 2016,
        section 3.2; the weighted mean from Sun et al., "Integral Human Pose Regression", 2018.
    """

    kind: ClassVar[str] = "heatmap_decode"
    float_only: ClassVar[bool] = True
    method: DecodeMethod = "argmax"
    step: float = 0.25
    beta: float = 25.0

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        landmarks = image_dims(self, inputs[0])[2]
        return (float_result(inputs[0], (inputs[0].shape[0], 2 * landmarks)),)


@dataclass(frozen=True)
class SimilarityFit(Op):
    """The similarity transform that takes landmarks nearest to reference landmarks.

    Least squares over rotation, scale and shift, in closed form.

    Shapes:
        [batch, 2 * landmarks] and a reference [2 * landmarks] or [batch, 2 * landmarks];
        returns [batch, 2, 3].

    Source: Kowalski et al., "Deep Alignment Network", 2017 (arXiv:1706.01789), section 3.2.
    """

    kind: ClassVar[str] = "similarity_fit"
    arity: ClassVar[int | None] = 2
    float_only: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        landmarks, reference = inputs
        count = _landmark_count(self, landmarks)
        if count < 2 or reference.shape not in (landmarks.shape, landmarks.shape[1:]):
            raise GraphError(
                f"similarity_fit wants two or more landmarks and as many to fit them to, got "
                f"{landmarks} and {reference}"
            )
        return (float_result(landmarks, (landmarks.shape[0], 2, 3)),)


@dataclass(frozen=True)
class InvertTransform(Op):
    """The transform that undoes another.

    Shapes:
        [batch, 2, 3]; returns the same.
    """

    kind: ClassVar[str] = "invert_transform"
    float_only: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        _check_transform(self, inputs[0])
        return (float_result(inputs[0], inputs[0].shape),)


@dataclass(frozen=True)
class TransformLandmarks(Op):
    """Landmarks moved by a transform.

    Shapes:
        [batch, 2 * landmarks] and [batch, 2, 3]; returns [batch, 2 * landmarks].
    """

    kind: ClassVar[str] = "transform_landmarks"
    arity: ClassVar[int | None] = 2
    float_only: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        _landmark_count(self, inputs[0])
        _check_transform(self, inputs[1])
        return (float_result(inputs[0], inputs[0].shape),)


@dataclass(frozen=True)
class Warp(Op):
    """A map whose pixels are taken, bilinearly, from where a transform takes their centres.

    Outside the map its border goes on. To move a picture by a transform, give the inverse.

    Shapes:
        [batch, height, width, channels] and [batch, 2, 3]; returns the former.

    Source: Jaderberg et al., "Spatial Transformer Networks", 2015, equations 1 and 5.
    """

    kind: ClassVar[str] = "warp"
    arity: ClassVar[int | None] = 2
    float_only: ClassVar[bool] = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        if min(image_dims(self, inputs[0])[:2]) < 2:
            raise GraphError(f"warp wants a map of at least 2x2 pixels, got {inputs[0]}")
        _check_transform(self, inputs[1])
        return (float_result(inputs[0], inputs[0].shape),)


@dataclass(frozen=True)
class LandmarkHeatmap(Op):
    """A map of how near the nearest landmark is: 1 / (1 + distance in pixels).

    Shapes:
        [batch, 2 * landmarks]; returns [batch, *size, 1].

    Attributes:
        size: Height and width of the map.

    Source: Kowalski et al., "Deep Alignment Network", 2017 (arXiv:1706.01789), section 3.2, the
        equation of the heatmap.
    """

    kind: ClassVar[str] = "landmark_heatmap"
    float_only: ClassVar[bool] = True
    size: tuple[int, int]

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        _landmark_count(self, inputs[0])
        if min(self.size) < 1:
            raise GraphError(f"{self.kind} of {self.size[0]}x{self.size[1]}, wanted at least 1x1")
        return (float_result(inputs[0], (inputs[0].shape[0], *self.size, 1)),)


def _landmark_count(op: Op, tensor: TensorType) -> int:
    if tensor.rank != 2 or not tensor.shape[1] or tensor.shape[1] % 2:
        raise GraphError(f"{op.kind} wants landmarks [batch, 2 * count], got {tensor}")
    return tensor.shape[1] // 2


def _check_transform(op: Op, tensor: TensorType) -> None:
    if tensor.shape[1:] != (2, 3):
        raise GraphError(f"{op.kind} wants a transform [batch, 2, 3], got {tensor}")
