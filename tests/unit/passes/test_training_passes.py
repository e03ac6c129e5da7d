"""Passes that train: every epoch is scored as a file, and a file must agree with its training."""

import re

import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.ir.graph import Value
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need
from lmopt_passes.finetune import Finetune
from lmopt_passes.post_training import PostTraining
from lmopt_passes.qat import Qat, parity_gap
from lmopt_passes.scheme import INT8
from tests.support.services import DistanceScorer, DrawnCalibrator, full_context
from tests.unit.passes.test_post_training import detector

QAT = Qat(input="float32", observer="min-max", faces=4, equalize=False)


def test_the_notes_hold_the_error_of_the_file_that_comes_back() -> None:
    result = QAT.apply(detector(), full_context())
    error = DistanceScorer().nme_percent(result.graph)
    assert result.notes[-2:] == (
        f"validation NME by epoch {error:.3f} %; kept epoch 1 of 1",
        "files and the training's forward pass lie +0.0000 points apart",
    )


def test_answers_around_their_mean_have_room_for_what_training_shows() -> None:
    graph = QAT.apply(detector(), full_context()).graph
    grid = graph.type(Value("head")).quant
    assert graph.node("head_placed").results[0].dtype is DType.F32
    upright = PostTraining.of(detector(), INT8, DrawnCalibrator(), QAT).ranges[Value("head")]
    assert grid is not None
    # This calibrator sees twice the range on augmented faces.
    assert 255 * grid.scale[0] == pytest.approx(2 * (upright.high - upright.low), rel=1e-3)
    conv = graph.type(Value("conv")).quant
    seen = DrawnCalibrator().ranges(
        detector(), [Value("conv")], "min-max", faces=4, storage=DType.I8
    )
    assert conv is not None
    assert 255 * conv.scale[0] == pytest.approx(seen[Value("conv")].high, rel=1e-3)


def test_a_training_that_computes_something_else_than_its_file_is_refused() -> None:
    context = full_context()
    context.services[Need.TRAINER].off = (0.5, 0.4)
    with pytest.raises(PassError, match="the forward pass of its training") as raised:
        QAT.apply(detector(), context)
    emitted, trained = map(float, re.findall(r"(\d+\.\d+) %", str(raised.value)))
    assert abs(emitted - trained) > 1.0


def test_an_epoch_whose_file_computes_something_else_is_left_out() -> None:
    context = full_context()
    context.services[Need.TRAINER].off = (0.5, 0.0, 0.5)
    notes = " ".join(QAT.apply(detector(), context).notes)
    found = re.search(r"by epoch left out, (\S+), left out %; kept epoch 2 of 3", notes)
    assert found and float(found[1]) > 0.0
    assert "files and the training's forward pass lie +0.0000 points apart" in notes


def test_parity_allows_for_chance_where_faces_are_few() -> None:
    chance = np.random.default_rng(0).normal(0.0, 0.06, 1000)
    chance -= chance.mean()
    assert parity_gap(5.0 + chance, np.full(1000, 5.0 - 0.009)) == pytest.approx(0.009)
    few = chance[:10] - chance[:10].mean()
    assert few.std() > 0.03
    assert parity_gap(5.0 + few, np.full(10, 5.0 - 0.03)) == pytest.approx(0.03)
    with pytest.raises(PassError, match=r"5\.000 %, .* 4\.988 %: wanted at most 0\.010 points"):
        parity_gap(5.0 + chance, np.full(1000, 5.0 - 0.012))
    with pytest.raises(PassError):
        parity_gap(np.full(10, np.nan), np.full(10, 5.0))


def test_finetune_keeps_the_last_epoch_where_it_is_told_to() -> None:
    best = Finetune().apply(detector(), full_context())
    last = Finetune(keep="last").apply(detector(), full_context())
    error = DistanceScorer().nme_percent(best.graph)
    assert best.notes[-1] == f"validation NME by epoch {error:.3f} %; kept epoch 1 of 1"
    assert last.notes[-1] == "kept the last epoch"
