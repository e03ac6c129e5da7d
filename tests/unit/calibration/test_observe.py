"""Calibration sees faces upright, or as training shows them."""

from pathlib import Path

import pytest

from lmopt.calibration.observe import FaceCalibrator
from lmopt.data import load_dataset
from lmopt.data.augment import TrainingFaces
from lmopt.data.crop import cut_all
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Mean, Relu
from lmopt.ir.types import DType
from tests.support.annotated import row, write_folder

RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", scheme_for(5))
)


@pytest.mark.parametrize("augmented", [False, True])
def test_the_range_is_that_of_the_faces_it_says(tmp_path: Path, augmented: bool) -> None:
    folder = write_folder(tmp_path / "faces", [row(f"{k}.png", role="train") for k in range(3)])
    faces = load_dataset([folder])
    edit = Edit("mean")
    mean = edit.add("mean", Mean(), edit.input("image", (None, 16, 16, 3)))
    edit.output("points", edit.add("relu", Relu(), mean))
    found = FaceCalibrator(faces, CONTRACT).ranges(
        edit.done(), [mean], "min-max", faces=3, storage=DType.I8, augmented=augmented
    )[mean]
    plain = cut_all(faces, CONTRACT).pixels
    turned, _ = TrainingFaces(faces, CONTRACT).batch(3, seed=0, index=0)
    means = CONTRACT.normalize(turned if augmented else plain).mean(axis=(1, 2))
    assert (found.low, found.high) == pytest.approx((means.min(), means.max()), abs=1e-5)
    assert abs(plain.mean() - turned.mean()) > 1.0
