"""What a model finds in the same faces shown in many ways: each picture read once, one runner."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import (
    Affine,
    Crop,
    after,
    cut,
    face_box,
    frame_of,
    invert,
    picture_threads,
    transform,
)
from lmopt.data.dataset import Box, Dataset, Face
from lmopt.data.degrade import Picture, blurred, downscaled, occluded
from lmopt.data.jitter import jittered
from lmopt.data.picture import read_picture
from lmopt.detector.contract import Contract, CropRule
from lmopt.scoring.loaded import LoadedModel
from lmopt.scoring.protocols import to_picture

FACES_AT_ONCE = 16
"""Faces whose pictures are in memory at a time: a large photograph takes 40 MB."""
JITTERED = "jittered"
"""The box source that imitates a face detector."""

Progress = Callable[[int, int], None]
"""Told the number of shown faces so far, and in all."""


@dataclass(frozen=True)
class View:
    """A way to show faces.

    Attributes:
        box: `landmarks`, `given` or `jittered`.
        degradation: A key of `DEGRADATIONS`, or empty for the picture as it is.
        amount: How much of it: a factor, or a fraction of the face.
        seed: Of what is random.
    """

    box: str
    degradation: str = ""
    amount: float = 1.0
    seed: int = 0

    def fits(self, face: Face) -> bool:
        """Returns whether the face can be shown so: whether its box is known."""
        return self.box != "given" or face.box is not None

    def crop_rule(self, rule: CropRule) -> str:
        """Returns a crop rule from this view's boxes, in words."""
        return f"{self.box}{str(rule).removeprefix(rule.box)}"


@dataclass(frozen=True, eq=False)
class Found:
    """What a model found in the faces of a dataset, in their order.

    Attributes:
        shown: Whether the face could be shown; elsewhere the other arrays hold NaN.
        unit: Found landmarks in unit coordinates of the crop.
        truth_unit: True landmarks, likewise.
        picture: Found landmarks in picture pixels.
        side_px: Longer side of the crop in pixels of the picture that was shown.

    Shapes:
        shown, side_px: [faces]; the others [faces, landmarks, 2].
    """

    shown: NDArray[np.bool_]
    unit: NDArray[np.float64]
    truth_unit: NDArray[np.float64]
    picture: NDArray[np.float64]
    side_px: NDArray[np.float64]


def find_in_views(
    models: Sequence[LoadedModel],
    dataset: Dataset,
    views: Sequence[Sequence[View]],
    progress: Progress,
) -> list[dict[View, Found]]:
    """Returns what each model finds in each of its views of the faces.

    Args:
        models: Loaded models.
        dataset: The faces.
        views: Of each model.
        progress: Told how many faces have been shown.

    Raises:
        InputError: A picture cannot be read, or a box has no area.
        BackendError: The runtime fails on a file.
    """
    faces, shape = dataset.faces, (len(dataset), dataset.scheme.count, 2)
    found = [{view: _nothing(shape) for view in wanted} for wanted in views]
    with picture_threads() as pool:
        for start in range(0, len(faces), FACES_AT_ONCE):
            places = range(start, min(start + FACES_AT_ONCE, len(faces)))
            pictures = list(pool.map(read_picture, (faces[k] for k in places)))
            for model, answers in zip(models, found, strict=True):
                for view, answer in answers.items():
                    kept = [k for k in places if view.fits(faces[k])]
                    if kept:
                        shown = pool.map(
                            partial(show, view=view, contract=model.contract),
                            (pictures[k - start] for k in kept),
                            (faces[k] for k in kept),
                        )
                        _enter(answer, kept, list(shown), model)
            progress(places.stop, len(faces))
    return found


def show(picture: Picture, face: Face, view: View, contract: Contract) -> tuple[Crop, float]:
    """Returns the face as a view shows it, and the crop's longer side in the pixels shown.

    The crop maps to the pixels of the picture as it was given, whatever its size is now.
    """
    rule = replace(contract.crop, box="landmarks" if view.box == "landmarks" else "given")
    outline = face_box(face, replace(rule, box="landmarks"))
    if view.box == JITTERED:
        face = replace(face, box=jittered(outline, face.id, seed=view.seed))
    changed = picture
    if view.degradation:
        rng = np.random.default_rng([view.seed, zlib.crc32(face.id.encode())])
        changed = DEGRADATIONS[view.degradation](picture, outline, view.amount, rng)
    rescale = _rescale(picture, changed)
    crop = cut(changed, moved(face, rescale), replace(contract, crop=rule))
    frame = frame_of(face_box(face, rule), rule)
    side = max(frame.width * rescale[0, 0], frame.height * rescale[1, 1])
    return replace(crop, to_picture=after(invert(rescale), crop.to_picture)), float(side)


def _rescale(picture: Picture, changed: Picture) -> Affine:
    """Returns the map from the pixels of a picture to those of the same one at another size."""
    y, x = np.array(changed.shape[:2]) / picture.shape[:2]
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2]])


def moved(face: Face, affine: Affine) -> Face:
    """Returns the face as it lies in a picture whose pixels an affine map without rotation gave."""
    box = face.box
    if box is not None:
        x0, y0, x1, y1 = transform(affine, np.reshape(box, (2, 2))).reshape(-1).tolist()
        box = (x0, y0, x1, y1)
    return replace(face, landmarks=transform(affine, face.landmarks), box=box)


def _enter(
    found: Found, places: list[int], shown: list[tuple[Crop, float]], model: LoadedModel
) -> None:
    unit = model.find(np.stack([crop.pixels for crop, _ in shown]))
    found.shown[places] = True
    found.unit[places] = unit
    found.truth_unit[places] = np.stack([crop.landmarks for crop, _ in shown])
    affines = np.stack([crop.to_picture for crop, _ in shown])
    found.picture[places] = to_picture(unit, affines)
    found.side_px[places] = [side for _, side in shown]


def _nothing(shape: tuple[int, int, int]) -> Found:
    return Found(
        np.zeros(shape[0], bool),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape, np.nan),
        np.full(shape[0], np.nan),
    )


def _smaller(picture: Picture, _: Box, factor: float, __: np.random.Generator) -> Picture:
    return downscaled(picture, factor)


def _softer(picture: Picture, _: Box, factor: float, __: np.random.Generator) -> Picture:
    return blurred(picture, factor)


DEGRADATIONS: Mapping[str, Callable[[Picture, Box, float, np.random.Generator], Picture]] = {
    "resolution": _smaller,
    "blur": _softer,
    "occlusion": occluded,
}
"""What may be done to a picture: it, the face's landmark box, how much, and a generator."""
