"""The detector contract: what a detector eats and what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.scheme import LandmarkScheme
from lmopt.errors import InputError

Color = Literal["rgb", "bgr", "gray"]
BoxSource = Literal["landmarks", "jittered", "given"]
CoordinateOrder = Literal["xyxy", "xxyy"]
CoordinateUnit = Literal["unit", "pixel", "centered"]


@dataclass(frozen=True)
class CropRule:
    """How a face is cut from its picture.

    Attributes:
        box: Bounding box of the landmarks, the same placed as badly as a face detector does, or
            the box that came with the data.
        margin: Factor on the box sides.
        square: Whether the longer side is used for both.
    """

    box: BoxSource = "landmarks"
    margin: float = 1.25
    square: bool = True

    def __str__(self) -> str:
        return f"{self.box} box x{self.margin:g}{', square' if self.square else ''}"


@dataclass(frozen=True)
class Contract:
    """Everything needed to feed a detector a face and to read its answer.

    Attributes:
        height, width: Input size in pixels.
        color: Channel order; `gray` is one channel (ITU-R 601 luma).
        mean, std: Network input = (pixel - mean) / std per channel, pixel in 0..255.
        crop: The crop rule.
        output: Name of the output that holds the coordinates.
        order: x0,y0,x1,y1,... or all x before all y.
        unit: `unit`: 0..1 from edge to edge of the crop; `pixel`: input pixels, centre of the
            top-left pixel = 0; `centered`: -1..1 from edge to edge.
        scheme: The landmarks' meaning.
    """

    height: int
    width: int
    color: Color
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: CropRule
    output: str
    order: CoordinateOrder
    unit: CoordinateUnit
    scheme: LandmarkScheme

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(
                f"contract: input size {self.height}x{self.width}; wanted at least 1x1"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise InputError(
                    f"contract: {len(values)} value(s) of {name} for {self.channels} channel(s)"
                )
        if any(value <= 0 for value in self.std):
            raise InputError("contract: std must be above 0")

    @property
    def channels(self) -> int:
        """Returns the number of input channels."""
        return 1 if self.color == "gray" else 3

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns network input for crops of bytes.

        Shapes:
            pixels: [..., height, width, channels], already in the contract's colour order.
        """
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        return np.asarray((pixels.astype(np.float32) - mean) / std, np.float32)

    def decode(self, output: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns landmarks in `unit` coordinates of the crop (0..1 from edge to edge).

        Shapes:
            output: [faces, 2 * landmarks]; returns [faces, landmarks, 2] as (x, y).
        """
        flat = np.asarray(output, np.float64).reshape(len(output), -1)
        if flat.shape[1] != 2 * self.scheme.count:
            raise InputError(
                f"output '{self.output}' has {flat.shape[1]} numbers per face, wanted "
                f"{2 * self.scheme.count} for the {self.scheme.count} landmarks of "
                f"'{self.scheme.name}'",
                hint="give the contract that belongs to this model",
            )
        shape = (len(flat), self.scheme.count, 2)
        points = (
            flat.reshape(shape)
            if self.order == "xyxy"
            else flat.reshape(len(flat), 2, self.scheme.count).transpose(0, 2, 1)
        )
        size = np.array([self.width, self.height], np.float64)
        if self.unit == "pixel":
            return (points + 0.5) / size
        return (points + 1.0) / 2.0 if self.unit == "centered" else points

    def encode(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Returns network outputs for landmarks in `unit` coordinates; the inverse of `decode`."""
        values = np.asarray(points, np.float64)
        size = np.array([self.width, self.height], np.float64)
        if self.unit == "pixel":
            values = values * size - 0.5
        elif self.unit == "centered":
            values = values * 2.0 - 1.0
        if self.order == "xxyy":
            values = values.transpose(0, 2, 1)
        return values.reshape(len(values), -1).astype(np.float32)
