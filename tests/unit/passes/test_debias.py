"""Answers are shifted to lie where the annotations do, on average, wherever they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Dense, Relu, Reshape
from lmopt.zoo import initialize
from lmopt_passes.debias import Debias
from tests.support.services import CONTRACT, DrawnCalibrator, answers_of, full_context


def detector(kind: str) -> Graph:
    edit = Edit("net")
    x = edit.add("head", Dense(10), edit.input("image", (None, 6)))
    if kind == "read elsewhere":
        edit.output("other", edit.add("more", Relu(), x))
    elif kind == "by point":
        x = edit.add("answer", Reshape((5, 2)), x)
    elif kind == "clipped":
        x = edit.add("answer", Relu(), x)
    edit.output("landmarks", x)
    return initialize(edit.done(), 3)


@pytest.mark.parametrize("kind", ["plain", "read elsewhere", "by point", "clipped"])
@pytest.mark.parametrize(("order", "unit"), [("xyxy", "pixel"), ("xxyy", "centered")])
def test_the_mean_answer_becomes_the_mean_annotation(kind: str, order: str, unit: str) -> None:
    contract = replace(CONTRACT, order=order, unit=unit)
    graph = detector(kind)
    made = Debias().apply(graph, replace(full_context(), contract=contract))
    drawn = DrawnCalibrator().means(made.graph, [dict(made.graph.outputs)["landmarks"]], faces=4)
    (mean,) = drawn.values()
    wanted = DrawnCalibrator().mean_landmarks(faces=4)
    np.testing.assert_allclose(contract.decode(mean[None])[0], wanted, atol=1e-6)
    if kind == "read elsewhere":
        np.testing.assert_array_equal(answers_of(made.graph), answers_of(graph))
    if kind == "plain":
        assert len(made.graph.nodes) == len(graph.nodes)
    assert made.notes[0].startswith("landmarks moved by ")


def test_what_the_contract_does_not_fit_is_refused() -> None:
    context = replace(full_context(), contract=replace(CONTRACT, output="points"))
    with pytest.raises(PassError, match="no output 'points'"):
        Debias().apply(detector("plain"), context)
