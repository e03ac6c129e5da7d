"""From a picture to a detector's input, and from its answer back to the picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Box, Dataset, Face
from lmopt.data.jitter import jittered
from lmopt.data.picture import read_picture
from lmopt.detector.contract import Contract, CropRule
from lmopt.errors import InputError

Affine = NDArray[np.float64]  # [2, 3]: maps (x, y) to affine @ (x, y, 1)

# A picture is first shrunk with area filtering until its crop is this much larger than the
# input: the bilinear warp that follows is then sharp and has nothing left to alias.
OVERSAMPLING = 1.25


@dataclass(frozen=True, eq=False)
class Crop:
    """A face as a detector sees it.

    Attributes:
        pixels: Bytes in the contract's colour order.
        landmarks: In unit coordinates: 0..1 from edge to edge of the crop.
        to_picture: Affine map from unit coordinates to picture pixels.

    Shapes:
        pixels: uint8[height, width, channels]; landmarks: float64[n, 2]; to_picture: [2, 3].
    """

    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    to_picture: Affine


@dataclass(frozen=True, eq=False)
class Crops:
    """The crops of many faces, stacked; the attributes of `Crop` with a leading face axis."""

    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    to_picture: NDArray[np.float64]
    faces: tuple[Face, ...]

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Frame:
    """The upright rectangle that is cut: centre and sides in picture pixels."""

    x: float
    y: float
    width: float
    height: float

    def to_picture(self) -> Affine:
        """Returns the affine map from unit coordinates of the frame to picture pixels."""
        left, top = self.x - self.width / 2, self.y - self.height / 2
        return np.array([[self.width, 0.0, left], [0.0, self.height, top]])


def face_box(face: Face, rule: CropRule) -> Box:
    """Returns the box the rule starts from: that of the landmarks, jittered or not, or the given.

    Raises:
        InputError: The face has no given box, or the box has no area.
    """
    box = face.box if rule.box == "given" else landmark_box(face)
    if box is None:
        raise InputError(
            "the contract crops by the given box, but this face has none",
            where=face.where,
            hint="leave such faces out, or use a contract with crop box 'landmarks'",
        )
    if not (box[2] > box[0] and box[3] > box[1]):
        raise InputError(
            f"the face's box {box} has no area, wanted x0 < x1 and y0 < y1",
            where=face.where,
            hint="correct or remove this annotation",
        )
    return jittered(box, face.id) if rule.box == "jittered" else box


def landmark_box(face: Face) -> Box:
    """Returns the bounding box of the landmarks."""
    (x0, y0), (x1, y1) = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def frame_of(box: Box, rule: CropRule) -> Frame:
    """Returns what the rule cuts for a box."""
    x0, y0, x1, y1 = box
    width, height = (x1 - x0) * rule.margin, (y1 - y0) * rule.margin
    if rule.square:
        width = height = max(width, height)
    return Frame((x0 + x1) / 2, (y0 + y1) / 2, width, height)


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A picture, small and in the contract's colours, ready to be warped into crops.

    Attributes:
        pixels: Bytes, black outside.
        from_picture: Affine map from pixels of the picture to pixels here (no rotation).
    """

    pixels: NDArray[np.uint8]
    from_picture: Affine


def shrink(picture: NDArray[np.uint8], frame: Frame, contract: Contract) -> Shrunk:
    """Returns the picture at the scale at which `frame` is at most 1.25 times the input.

    Shapes:
        picture: uint8[height, width, 3] in RGB.
    """
    import cv2

    height, width = picture.shape[:2]
    small = (
        _shrunk_side(width, OVERSAMPLING * contract.width / frame.width),
        _shrunk_side(height, OVERSAMPLING * contract.height / frame.height),
    )
    pixels = picture
    if small != (width, height):
        pixels = np.asarray(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), np.uint8)
    x, y = small[0] / width, small[1] / height
    from_picture = np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])
    return Shrunk(_colored(pixels, contract), from_picture)


def _shrunk_side(side: int, factor: float) -> int:
    return max(1, round(side * min(1.0, factor)))


def _colored(pixels: NDArray[np.uint8], contract: Contract) -> NDArray[np.uint8]:
    import cv2

    if contract.color == "rgb":
        return pixels
    code = cv2.COLOR_RGB2BGR if contract.color == "bgr" else cv2.COLOR_RGB2GRAY
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def warp(shrunk: Shrunk, to_picture: Affine, contract: Contract) -> NDArray[np.uint8]:
    """Returns the crop whose unit coordinates `to_picture` maps to picture pixels.

    Shapes:
        uint8[height, width, channels].
    """
    import cv2

    width, height = contract.width, contract.height
    to_unit = np.array([[1 / width, 0.0, 0.5 / width], [0.0, 1 / height, 0.5 / height]])
    source = after(shrunk.from_picture, after(to_picture, to_unit))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(shrunk.pixels, source, (width, height), flags=flags)
    return np.asarray(pixels, np.uint8).reshape(height, width, contract.channels)


def after(second: Affine, first: Affine) -> Affine:
    """Returns the affine map that applies `first`, then `second`."""
    both = second[:, :2] @ first
    both[:, 2] += second[:, 2]
    return both


def transform(affine: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns mapped points.

    Shapes:
        points: [..., 2].
    """
    return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float64)


def invert(affine: Affine) -> Affine:
    """Returns the inverse map."""
    (a, b, x), (c, d, y) = affine.tolist()
    area = a * d - b * c
    rows = [[d / area, -b / area, (b * y - d * x) / area]]
    rows += [[-c / area, a / area, (c * x - a * y) / area]]
    return np.array(rows, np.float64)


def cut(picture: NDArray[np.uint8], face: Face, contract: Contract) -> Crop:
    """Returns the face cut from its picture by the contract's crop rule.

    Shrinking is area-filtered; what lies outside the picture is black.

    Shapes:
        picture: uint8[height, width, 3] in RGB.

    Raises:
        InputError: The face has no box the rule can start from.
    """
    frame = frame_of(face_box(face, contract.crop), contract.crop)
    to_picture = frame.to_picture()
    pixels = warp(shrink(picture, frame, contract), to_picture, contract)
    return Crop(pixels, transform(invert(to_picture), face.landmarks), to_picture)


def mean_shape(faces: Sequence[Face], rule: CropRule) -> NDArray[np.float64]:
    """Returns the mean landmarks of faces as the rule crops them, in unit coordinates.

    Shapes:
        float64[landmarks, 2].

    Raises:
        InputError: A face has no box the rule can start from.
    """
    frames = (frame_of(face_box(face, rule), rule).to_picture() for face in faces)
    shapes = [transform(invert(f), face.landmarks) for f, face in zip(frames, faces, strict=True)]
    return np.asarray(np.mean(shapes, axis=0), np.float64)


def cut_all(dataset: Dataset, contract: Contract, *, threads: int | None = None) -> Crops:
    """Returns the crops of all faces, in their order, cut by `threads` threads (default: cores).

    Raises:
        InputError: A picture cannot be read, or a face has no box the rule can start from.
    """
    count = len(dataset)
    shape = (count, contract.height, contract.width, contract.channels)
    pixels = np.empty(shape, np.uint8)
    landmarks = np.empty((count, dataset.scheme.count, 2))
    to_picture = np.empty((count, 2, 3))

    def place(index: int) -> None:
        face = dataset.faces[index]
        crop = cut(read_picture(face), face, contract)
        pixels[index], landmarks[index], to_picture[index] = (
            crop.pixels,
            crop.landmarks,
            crop.to_picture,
        )

    with picture_threads(threads) as pool:
        for _ in pool.map(place, range(count)):
            pass
    return Crops(pixels, landmarks, to_picture, dataset.faces)


def picture_threads(threads: int | None = None) -> ThreadPoolExecutor:
    """Returns a pool for picture work, whose threads keep OpenCV from starting more of them."""
    return ThreadPoolExecutor(threads or os.cpu_count() or 1, "pictures", _single_threaded)


def _single_threaded() -> None:
    import cv2

    cv2.setNumThreads(1)
