"""What a target's runtime refuses is an error with node and rule before a file is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.errors import BackendError
from lmopt.ir import DType, Edit, Graph, Quant, TensorType, Weight, ops
from lmopt.pipeline.manager import Pipeline
from lmopt.target.catalog import load_target
from lmopt.target.legality import form_of, require_legal
from lmopt.target.profile import FORMS, Limit, Target
from lmopt.target.vocabulary import LIMITS
from tests.support.services import full_context
from tests.support.training_graphs import detector

APU = load_target("velvet-apu")
FLOAT = detector()


def made(text: str) -> Graph:
    return Pipeline.parse(text).run(FLOAT, full_context()).graph


def limited(key: str, *, number: float = 0.0, storages: tuple[str, ...] = ()) -> Target:
    """The APU with one limit and no other."""
    return replace(APU, limits={key: Limit(number, storages, "sourced", "the manual")})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["velvet-apu", "velvet-cpu", "velvet-gpu", "desktop-cuda", "host"])
def test_a_form_is_refused_exactly_where_its_rule_says_so(name: str, form: str) -> None:
    ending = {"float16": "to-float16", "int8": "quantize-int8{output=uint8}"}
    ending |= {"uint8": "quantize-uint8", "int16x8": "quantize-int16{output=uint8}"}
    graph = FLOAT if form == "float32" else made(ending[form])
    target = load_target(name)
    forms = {form_of(node) for node in graph.nodes} - {None}
    assert form in forms
    rule = target.rule(form)  # type: ignore[arg-type]
    if rule.legal:
        require_legal(graph, target)
        return
    with pytest.raises(BackendError) as caught:
        require_legal(graph, target)
    assert f"{form} is not legal: {rule.reason}" in caught.value.what
    assert rule.source in caught.value.what
    assert caught.value.where is not None and caught.value.where.startswith(f"{name}: %")
    assert target.preferred in str(caught.value.hint)


def kernel(storage: DType, *scales: float) -> Graph:
    """A 1x1 convolution of 3 channels on grids of step 0.5, its kernel on `scales`."""
    edit = Edit("one")
    shape = (None, 4, 4, 3)
    grid = Quant.per_tensor(0.5, 0)
    x = edit.input("image", shape)
    edit.set_type(x, TensorType(storage, shape, grid))
    axis = 3 if len(scales) > 1 else None
    stored = Quant(scales, (0,) * len(scales), axis)
    bias = Quant(tuple(0.5 * s for s in scales), (0,) * len(scales), None if axis is None else 0)
    weights = {
        "kernel": Weight.of(np.ones((1, 1, 3, 3), storage.numpy), stored),
        "bias": Weight.of(np.zeros(3, np.int32), bias),
    }
    op = ops.Conv2D(3, (1, 1))
    edit.output(
        "y", edit.add("conv", op, x, weights=weights, type=TensorType(storage, shape, grid))
    )
    return edit.done()


def ranked(rank: int) -> Graph:
    edit = Edit("ranked")
    x = edit.input("image", (None, 4, 4, 4))
    y = edit.add("split", ops.Reshape((4, 4, 2, 2) if rank == 5 else (4, 16)), x)
    edit.output("y", edit.add("act", ops.Relu(), y))
    return edit.done()


BROKEN = {
    "max_rank": (
        limited("max_rank", number=4),
        ranked(5),
        "%split: reshape has f32[?,4,4,2,2] of rank 5",
    ),
    "per_channel": (
        limited("per_channel", storages=("u8",)),
        kernel(DType.I8, 0.5, 0.5, 0.25),
        "%conv: the i8 kernel has a scale per channel",
    ),
    "border": (
        limited("border", storages=("u8", "f32")),
        kernel(DType.I8, 0.5),
        "%image: i8 at the border, legal are u8, f32",
    ),
    "max_step_ratio": (
        limited("max_step_ratio", number=1),
        kernel(DType.I8, 0.5, 1.0, 0.5),
        "%conv: input scale x kernel scale is 1 of the result's, wanted below 1",
    ),
}


@pytest.mark.parametrize("key", LIMITS)
def test_every_limit_names_node_rule_and_source(key: str) -> None:
    target, graph, what = BROKEN[key]
    with pytest.raises(BackendError) as caught:
        require_legal(graph, target)
    assert f"velvet-apu: {what}" in str(caught.value)
    assert f"({key}, sourced: the manual)" in str(caught.value)


def test_graphs_just_within_the_limits_are_legal() -> None:
    require_legal(ranked(3), limited("max_rank", number=4))
    require_legal(kernel(DType.I8, 0.5, 0.5, 0.25), limited("per_channel", storages=("i8",)))
    require_legal(kernel(DType.U8, 0.5), limited("per_channel", storages=()))
    require_legal(kernel(DType.U8, 0.5), limited("border", storages=("u8",)))
    require_legal(kernel(DType.U8, 0.99), limited("max_step_ratio", number=1))


def test_an_op_nobody_runs_is_refused_and_one_for_the_fallback_is_not() -> None:
    graph = ranked(3)
    no_relu = APU.supported_ops - {"relu"}
    require_legal(graph, replace(APU, supported_ops=no_relu))
    with pytest.raises(BackendError, match=r"velvet-apu: %act: the engine has no relu"):
        require_legal(graph, replace(APU, supported_ops=no_relu, fallback=None))
