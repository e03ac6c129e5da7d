"""Contracts are guessed from what the model answers, and the right one is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.detector.contract import Contract, CoordinateOrder, CoordinateUnit, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.errors import InputError
from lmopt.flow.guessing import RGB_MEAN, RGB_STD, guess_contract
from tests.support.annotated import row, write_folder, write_picture
from tests.support.constant_detector import constant_detector

POINTS = np.array([[16, 18], [48, 16], [30, 30], [20, 48], [44, 46]], np.float64)
COLOUR = (190, 90, 20)


def faces(folder: Path) -> Path:
    rows = [row(f"{k}.png", POINTS, split="train") for k in range(12)]
    write_folder(folder, rows)
    for entry in rows:
        picture = np.full((64, 64, 3), COLOUR, np.uint8)
        write_picture(folder / "images" / entry["file"], picture)
    return folder


def unit_points(margin: float) -> np.ndarray:
    low, high = POINTS.min(axis=0), POINTS.max(axis=0)
    return (POINTS - (low + high) / 2) / ((high - low).max() * margin) + 0.5


@pytest.mark.parametrize(
    ("color", "mean", "std", "margin", "order", "unit"),
    [
        ("rgb", (0.0,) * 3, (255.0,) * 3, 1.25, "xyxy", "unit"),
        ("bgr", (127.5,) * 3, (127.5,) * 3, 1.0, "xxyy", "pixel"),
        ("rgb", RGB_MEAN, RGB_STD, 1.5, "xyxy", "centered"),
        ("bgr", (0.0,) * 3, (1.0,) * 3, 1.1, "xxyy", "unit"),
    ],
)
def test_the_true_contract_comes_first(
    color: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    margin: float,
    order: CoordinateOrder,
    unit: CoordinateUnit,
    tmp_path: Path,
) -> None:
    crop = CropRule("landmarks", margin, True)
    contract = Contract(
        *(24, 24, color, mean, std, crop, "points", order, unit, scheme_for(5))  # type: ignore[arg-type]
    )
    seen = COLOUR if color == "rgb" else COLOUR[::-1]
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(contract, unit_points(margin), seen)))
    guesses = guess_contract(model, faces(tmp_path / "faces"))
    assert guesses[0].contract == contract
    assert guesses[0].nme_percent < 0.01
    assert guesses[1].nme_percent > 1.0
    assert len(guesses) == 2 * 5 * 4 * 6
    assert [g.nme_percent for g in guesses] == sorted(g.nme_percent for g in guesses)


def test_a_model_with_another_number_of_landmarks_is_refused(tmp_path: Path) -> None:
    crop = CropRule("landmarks", 1.25, True)
    contract = Contract(
        *(24, 24, "rgb", (0.0,) * 3, (255.0,) * 3, crop, "points", "xyxy", "unit", scheme_for(4))
    )
    model = tmp_path / "m.tflite"
    model.write_bytes(emit(constant_detector(contract, unit_points(1.25)[:4])))
    with pytest.raises(InputError, match="no output gives 10 numbers for the 5 landmarks"):
        guess_contract(model, faces(tmp_path / "faces"))
