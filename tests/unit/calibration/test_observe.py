"""Calibration sees faces upright, or as training shows them."""

from pathlib import Path

import numpy as np
import pytest

from lmopt.calibration.observe import FaceCalibrator
from lmopt.data import load_dataset
from lmopt.data.augment import TrainingFaces
from lmopt.data.crop import cut_all
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D, Mean, Relu
from lmopt.ir.types import DType
from lmopt.zoo import initialize
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


def test_values_are_those_of_every_face(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [row(f"{k}.png", role="train") for k in range(3)])
    faces = load_dataset([folder])
    edit = Edit("mean")
    image = edit.input("image", (None, 16, 16, 3))
    mean = edit.add("mean", Mean(), image)
    edit.output("points", edit.add("relu", Relu(), mean))
    found = FaceCalibrator(faces, CONTRACT).values(edit.done(), [mean, image], faces=3)
    seen = CONTRACT.normalize(cut_all(faces, CONTRACT).pixels)
    np.testing.assert_array_equal(found[image], seen)
    np.testing.assert_allclose(found[mean], seen.mean(axis=(1, 2)), rtol=1e-5)


def test_more_faces_make_rounding_err_less_on_others(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "faces", [row(f"{k}.png", role="train") for k in range(60)])
    edit = Edit("kernels")
    image = edit.input("image", (None, 16, 16, 3))
    edit.output("y", edit.add("conv", Conv2D(8, activation="relu"), image))
    graph = initialize(edit.done(), 1)
    calibrator = FaceCalibrator(load_dataset([folder]), CONTRACT)
    values = [node.value for node in graph.nodes]
    curve = calibrator.excess_errors(graph, values, "mse", storage=DType.I8)
    assert list(curve) == [12, 25, 30]
    assert curve[12] > curve[30] > -0.01
    single = write_folder(tmp_path / "one", [row("0.png", role="train")])
    alone = FaceCalibrator(load_dataset([single]), CONTRACT)
    with pytest.raises(PassError, match="1 training face; wanted at least 2"):
        alone.excess_errors(graph, values, "mse", storage=DType.I8)
