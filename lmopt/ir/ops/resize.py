"""Ops that bring maps to another size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError
from lmopt.ir.op import Op, image_dims
from lmopt.ir.types import TensorType


@dataclass(frozen=True)
class _Resize(Op):
    keeps_grid: ClassVar[bool] = True
    size: tuple[int, int]
    align_corners: bool = False
    half_pixel_centers: bool = True

    def infer(self, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self.check_arity(inputs)
        channels = image_dims(self, inputs[0])[2]
        if min(self.size) < 1:
            raise GraphError(f"{self.kind} to {self.size[0]}x{self.size[1]}, wanted at least 1x1")
        if self.align_corners and self.half_pixel_centers:
            raise GraphError(f"{self.kind} aligns corners or half-pixel centers, not both")
        return (inputs[0].with_shape((inputs[0].shape[0], *self.size, channels)),)


@dataclass(frozen=True)
class ResizeBilinear(_Resize):
    """A map at another size by bilinear interpolation, its border repeated outwards.

    Attributes:
        size: Height and width of the result.
        align_corners: Whether the corner pixels' centres keep their places.
        half_pixel_centers: Whether the corner pixels' outer edges do (the rule of most libraries).
    """

    kind: ClassVar[str] = "resize_bilinear"


@dataclass(frozen=True)
class ResizeNearest(_Resize):
    """A map at another size, every pixel taken from the nearest one; attributes as bilinear."""

    kind: ClassVar[str] = "resize_nearest"
