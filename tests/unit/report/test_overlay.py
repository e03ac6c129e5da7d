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
from lmopt.report.overlay import FOUND, SIDE, TRUTH, overlays
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
    (picture,) = strip.pictures
    for x, y in (POINTS - 30) / 50 + 0.5:
        assert near(picture, TRUTH, x, y)
    for x, y in found:
        assert near(picture, FOUND, x, y)
        assert not near(picture, TRUTH, x, y)
