"""Overlays draw the truth where it is and the prediction where the file puts it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.data import load_dataset
from lmopt.detector.contract import Color, Contract, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.report.overlay import FOUND, SIDE, TRUTH, overlays, worst_faces
from tests.support.annotated import row, write_folder
from tests.support.constant_detector import constant_detector

POINTS = np.array([[10, 10], [50, 10], [30, 30], [10, 50], [50, 50]], np.float64)


def near(picture: bytes, color: tuple[int, int, int], x: float, y: float) -> bool:
    """Whether there is a dot of `color` (RGB) at unit coordinates."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    row, column = round(y * pixels.shape[0] - 0.5), round(x * SIDE - 0.5)
    return bool(np.abs(pixels[row, column].astype(int) - color).max() < 70)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_dots_are_where_truth_and_prediction_are(color: Color, tmp_path: Path) -> None:
    count = 1 if color == "gray" else 3
    contract = Contract(
        *(32, 32, color, (0.0,) * count, (255.0,) * count),
        *(CropRule("landmarks", 1.25, True), "points", "xyxy", "unit", scheme_for(5)),
    )
    found = np.array([[0.3, 0.2], [0.7, 0.2], [0.5, 0.7], [0.2, 0.6], [0.8, 0.6]])
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(contract, found)))
    folder = write_folder(tmp_path / "faces", [row("a.png", POINTS, role="test")])
    faces = load_dataset([folder], scheme=replace(scheme_for(5), eye_corners=(0, 1)))
    strip = overlays({"it": model}, replace(contract, scheme=faces.scheme), faces)[0]
    assert strip.title == "it"
    assert strip.captions[0].startswith(f"{faces.faces[0].id}: ")
    (picture,) = strip.pictures
    for x, y in (POINTS - 30) / 50 + 0.5:
        assert near(picture, TRUTH, x, y)
    for x, y in found:
        assert near(picture, FOUND, x, y)
        assert not near(picture, TRUTH, x, y)


def test_the_worst_faces_are_those_with_the_largest_error(tmp_path: Path) -> None:
    contract = Contract(
        *(32, 32, "rgb", (0.0,) * 3, (255.0,) * 3),
        *(CropRule("landmarks", 1.25, True), "points", "xyxy", "unit", scheme_for(5)),
    )
    model = tmp_path / "m.tflite"
    truth = (POINTS - 30) / 50 + 0.5
    model.write_bytes(emit(constant_detector(contract, truth)))
    # Every face has the same box; the middle point strays from where the file finds it.
    shapes = [POINTS + np.array([0, 0, stray, 0, 0])[:, None] for stray in (0, 9, 3, 6)]
    rows = [row(f"{k}.png", shape, role="test") for k, shape in enumerate(shapes)]
    faces = load_dataset(
        [write_folder(tmp_path / "faces", rows)], scheme=replace(scheme_for(5), eye_corners=(0, 1))
    )
    scored = replace(contract, scheme=faces.scheme)
    worst = worst_faces(faces, model, scored, 2)
    assert [face.image.stem for face in worst.faces] == ["1", "3"]
    captions = overlays({"it": model}, scored, worst)[0].captions
    # (9, 9) px of one point in five over the 40 px between the eye corners
    assert captions[0].endswith(f"1.png: {100 * np.hypot(9, 9) / 5 / 40:.1f} %")
