"""Boxes as OpenCV's face detectors find them, with a model file that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import landmark_box
from lmopt.data.dataset import Box, Dataset, Face
from lmopt.data.picture import read_picture
from lmopt.errors import InputError

Detect = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From a picture (BGR) to boxes, [n, 4] as x, y, width, height."""

LONGEST_SIDE = 1024
"""Pictures are shrunk to it first: detectors are made for faces of ten to some 300 pixels."""
_SCORE = 0.6
_OVERLAP = 0.2
"""Intersection over union from which a found box is taken for that of an annotated face."""


def with_detected_boxes(
    dataset: Dataset, model: Path, *, on_progress: Callable[[int], None] | None = None
) -> Dataset:
    """Returns the faces with the boxes a face detector finds in place of the given ones.

    Of the boxes in a picture, a face gets the one that overlaps most with that of its landmarks;
    a face that is not found has no box.

    Args:
        dataset: The faces.
        model: A YuNet network (.onnx, `cv2.FaceDetectorYN`) or, where OpenCV has them (before 5),
            a cascade (.xml, `cv2.CascadeClassifier`).
        on_progress: Called with the number of faces seen.

    Raises:
        InputError: The model or a picture cannot be used, or no face is found at all.
    """
    import cv2

    detect = _load(model)
    faces = []
    for face in dataset.faces:
        try:
            boxes = _boxes(read_picture(face), detect)
        except cv2.error as error:
            raise _unusable(model, error) from error
        faces.append(replace(face, box=_own(face, boxes)))
        if on_progress is not None:
            on_progress(len(faces))
    if all(face.box is None for face in faces):
        raise InputError(
            f"the detector finds none of the {len(faces)} faces of {dataset.name}",
            where=str(model),
            hint="give another model file, or crop by box 'landmarks'",
        )
    name = f"{dataset.name} (boxes of {model.name})"
    return Dataset.of(name, faces, dataset.scheme, dataset.skipped)


def _load(model: Path) -> Detect:
    import cv2

    if not model.is_file():
        raise InputError("no such file", where=str(model), hint="name a detector's .onnx or .xml")
    try:
        if model.suffix.lower() == ".onnx":
            return _network(cv2.FaceDetectorYN.create(str(model), "", (0, 0), _SCORE))
        if model.suffix.lower() == ".xml":
            return _cascade(model)
    except cv2.error as error:
        raise _unusable(model, error) from error
    raise InputError(
        f"a file ending in '{model.suffix}' is no face detector that OpenCV reads",
        where=str(model),
        hint="give a YuNet network (.onnx) or a cascade (.xml)",
    )


def _network(network: Any) -> Detect:
    def detect(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        network.setInputSize(picture.shape[1::-1])
        _, found = network.detect(picture)
        return np.empty((0, 4)) if found is None else np.asarray(found[:, :4], np.float64)

    return detect


def _cascade(model: Path) -> Detect:
    import cv2

    if not hasattr(cv2, "CascadeClassifier"):
        raise InputError(
            f"OpenCV {cv2.__version__} has no cascades",
            where=str(model),
            hint="give a YuNet network (.onnx), or install opencv-python-headless<5",
        )
    cascade = cv2.CascadeClassifier(str(model))
    if cascade.empty():
        raise InputError("no cascade", where=str(model), hint="give one of OpenCV's haarcascades")

    def detect(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return np.asarray(cascade.detectMultiScale(gray, 1.1, 4), np.float64).reshape(-1, 4)

    return detect


def _boxes(picture: NDArray[np.uint8], detect: Detect) -> NDArray[np.float64]:
    """Returns what is found in an RGB picture, [n, 4] as x0, y0, x1, y1 in its own pixels."""
    import cv2

    height, width = picture.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    found = detect(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), np.uint8))
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    # From edges of pixels to the picture's coordinates, whose 0 is the centre of the first.
    return np.asarray(corners * np.tile([width / size[0], height / size[1]], 2) - 0.5, np.float64)


def _own(face: Face, boxes: NDArray[np.float64]) -> Box | None:
    """Returns the box that is most probably the face's."""
    if not len(boxes):
        return None
    own = np.array(landmark_box(face))
    low, high = np.maximum(boxes[:, :2], own[:2]), np.minimum(boxes[:, 2:], own[2:])
    shared = np.maximum(high - low, 0.0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (own[2:] - own[:2]).prod()
    overlap = shared / (areas - shared)
    best = int(overlap.argmax())
    if overlap[best] < _OVERLAP:
        return None
    x0, y0, x1, y1 = boxes[best].tolist()
    return x0, y0, x1, y1


def _unusable(model: Path, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    return InputError(
        f"OpenCV cannot use it as a face detector: {lines[0] if lines else 'no reason given'}",
        where=str(model),
        hint="give a YuNet network (.onnx), such as face_detection_yunet_2023mar.onnx",
    )
