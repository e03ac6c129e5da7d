"""Faces with landmarks drawn on them: the true ones and those a file finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import invert, transform
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.scoring.metrics import nme_percent
from lmopt.scoring.protocols import ScoringProtocol

SIDE = 224
TRUTH, FOUND = (60, 200, 90), (255, 70, 60)
"""Colours in RGB."""


@dataclass(frozen=True)
class Strip:
    """Pictures of one model's answers, as JPEG files in memory.

    Attributes:
        title: The model.
        pictures: One per face.
        captions: Face and its NME, per picture.
    """

    title: str
    pictures: tuple[bytes, ...]
    captions: tuple[str, ...]


def some_faces(faces: Dataset, count: int) -> Dataset:
    """Returns `count` faces spread evenly over a dataset (all when it has fewer)."""
    places = np.linspace(0, len(faces) - 1, min(count, len(faces))).round().astype(int)
    chosen = {faces.faces[place].id for place in places}
    return faces.keep(lambda face: face.id in chosen)


def worst_faces(faces: Dataset, model: Path, contract: Contract, count: int) -> Dataset:
    """Returns the `count` faces on which a file has the largest NME.

    Raises:
        InputError: A picture cannot be read, or the file does not fit the contract.
        BackendError: The runtime fails on the file.
    """
    score = ScoringProtocol(contract, faces).score(model)
    worst = np.argsort(score.per_face)[::-1][:count]
    chosen = {faces.faces[place].id for place in worst}
    return faces.keep(lambda face: face.id in chosen)


def overlays(models: dict[str, Path], contract: Contract, faces: Dataset) -> tuple[Strip, ...]:
    """Returns a strip of faces for every model: truth green, prediction red.

    Args:
        models: Files by title.
        contract: What they eat and give.
        faces: The faces to draw, few.

    Raises:
        InputError: A picture cannot be read, or a file does not fit the contract.
        BackendError: The runtime fails on a file.
    """
    protocol = ScoringProtocol(contract, faces)
    crops = protocol.crops
    strips = []
    for title, model in models.items():
        found = protocol.predict(model)
        errors = nme_percent(found, protocol.truth, contract.scheme, protocol.normaliser)
        pictures = tuple(
            face_jpeg(
                crops.pixels[k],
                (
                    (crops.landmarks[k], TRUTH),
                    (transform(invert(crops.to_picture[k]), found[k]), FOUND),
                ),
                contract,
            )
            for k in range(len(crops))
        )
        named = zip(faces.faces, errors, strict=True)
        captions = tuple(f"{face.id}: {error:.1f} %" for face, error in named)
        strips.append(Strip(title, pictures, captions))
    return tuple(strips)


def face_jpeg(
    pixels: NDArray[np.uint8],
    layers: Sequence[tuple[NDArray[np.float64], tuple[int, int, int]]],
    contract: Contract,
    side: int = SIDE,
) -> bytes:
    """Returns a crop with landmarks drawn on it, as a JPEG file.

    Args:
        pixels: The crop.
        layers: Landmarks in unit coordinates and their colour in RGB, the last on top.
        contract: How the crop's bytes are to be read.
        side: Width of the picture in pixels.
    """
    import cv2

    rgb = pixels
    if contract.color == "gray":
        rgb = np.repeat(pixels, 3, axis=2)
    elif contract.color == "bgr":
        rgb = pixels[..., ::-1]
    height = round(side * contract.height / contract.width)
    canvas = np.ascontiguousarray(
        cv2.resize(np.ascontiguousarray(rgb), (side, height), interpolation=cv2.INTER_CUBIC)
    )
    for points, color in layers:
        for x, y in points:
            place = (round(float(x) * side * 16 - 8), round(float(y) * height * 16 - 8))
            cv2.circle(canvas, place, 28, color, -1, cv2.LINE_AA, shift=4)
    ok, stored = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert ok
    return stored.tobytes()
