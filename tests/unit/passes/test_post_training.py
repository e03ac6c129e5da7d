from dataclasses import replace

import numpy as np
import pytest

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    Constant,
    Conv2D,
    Dense,
    Mean,
    Relu,
    SimilarityFit,
    Sqrt,
    TransformLandmarks,
)
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.segment import stages_of
from lmopt.target.profile import EndType
from lmopt_passes.post_training import PostTraining
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.quantize_int16 import QuantizeInt16
from lmopt_passes.scheme import INT8, INT16, UINT8
from tests.support.services import DrawnCalibrator

FACES = np.random.default_rng(0).uniform(size=(4, 6, 6, 3)).astype(np.float32)
"""What the calibrator draws."""
BOTH = pytest.mark.parametrize("scheme", [INT8, UINT8], ids=["int8", "uint8"])


def detector(*, activated: bool = False, use_bias: bool = False) -> Graph:
    """Answers lie in a small range around means that are far apart."""
    edit = Edit("small")
    rng = np.random.default_rng(3)
    x = edit.input("image", (None, 6, 6, 3))
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
    x = edit.add(
        "conv", Conv2D(8, use_bias=False, activation="relu"), x, weights={"kernel": kernel}
    )
    weights = {"kernel": rng.normal(size=(8, 10)).astype(np.float32)}
    if use_bias:
        weights["bias"] = rng.normal(size=10).astype(np.float32)
    answer = edit.add(
        "head", Dense(10, use_bias=use_bias), edit.add("mean", Mean(), x), weights=weights
    )
    if activated:
        answer = edit.add("relu", Relu(), answer)
    edit.output("landmarks", answer)
    return edit.done()


def prepared(graph: Graph, scheme: QuantScheme, output: EndType = "float32") -> PostTraining:
    options = QuantizeInt8("min-max", 4, "float32", output, equalize=False)
    return PostTraining.of(graph, scheme, DrawnCalibrator(), options)


def answers(graph: Graph) -> np.ndarray:
    found = run(graph, {"image": FACES})["landmarks"]
    grid = graph.type(dict(graph.outputs)["landmarks"]).quant
    return found if grid is None else grid.dequantize(found)


@BOTH
@pytest.mark.parametrize("use_bias", [False, True])
def test_answers_around_their_mean_are_the_same_in_float(scheme: QuantScheme, use_bias: bool):
    graph = detector(use_bias=use_bias)
    np.testing.assert_allclose(
        answers(prepared(graph, scheme).graph), answers(graph), atol=1e-5, rtol=1e-5
    )


@BOTH
def test_steps_divide_the_range_around_the_mean(scheme: QuantScheme):
    graph = detector()
    wanted = answers(graph)
    centred = prepared(graph, scheme).quantized().type(Value("head")).quant
    whole = prepared(graph, scheme, "uint8").quantized().type(Value("head")).quant
    assert centred is not None and whole is not None
    spread = wanted - wanted.mean(0)
    assert centred.scale[0] == pytest.approx((spread.max() - spread.min()) / 255, rel=0.02)
    assert centred.scale[0] < 0.5 * whole.scale[0]


@BOTH
@pytest.mark.parametrize("output", ["float32", "uint8"])
def test_corrected_answers_have_the_float_means(scheme: QuantScheme, output: EndType):
    graph = detector()
    made = prepared(graph, scheme, output)
    wanted = answers(graph).mean(0)
    off = [np.abs(answers(g).mean(0) - wanted).max() for g in (made.quantized(), made.corrected())]
    step = made.quantized().type(Value("head")).quant
    assert step is not None
    # A bias among integers is rounded; where the mean is added in float32 nothing is.
    limit = 1e-4 if output == "float32" else step.scale[0]
    assert off[1] <= limit < max(off[0], 2 * limit)


@BOTH
def test_landmarks_computed_in_float_behind_integers_have_the_float_means(scheme: QuantScheme):
    edit = Edit.of(detector())
    points = np.random.default_rng(5).uniform(size=10).astype(np.float32)
    shape = edit.add("shape", Constant((10,)), weights={"value": points})
    moved = edit.add("moved", Add(), edit.node("head").value, shape)
    fit = edit.add("fit", SimilarityFit(), moved, shape)
    edit.output("landmarks", edit.add("back", TransformLandmarks(), moved, fit))
    graph = edit.done()
    made = prepared(graph, scheme)
    wanted = answers(graph).mean(0)
    off = [np.abs(answers(g).mean(0) - wanted).max() for g in (made.quantized(), made.corrected())]
    assert off[1] <= 1e-4 < off[0]


@BOTH
def test_a_head_kept_real_is_corrected_by_its_bias(scheme: QuantScheme):
    graph = detector()
    made = prepared(graph, replace(scheme, real=frozenset({"head"})))
    names = {node.name for node in made.corrected().nodes}
    assert not {name for name in names if name.endswith("_placed")}
    got, wanted = answers(made.corrected()).mean(0), answers(graph).mean(0)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_what_is_behind_an_activation_is_left_alone():
    graph = detector(activated=True)
    made = prepared(graph, INT8)
    assert made.graph.digest() == graph.digest() and made.means == {}
    assert answers(made.corrected()) == pytest.approx(answers(made.quantized()))


def test_no_number_of_faces_takes_the_least_whose_doubling_does_not_pay():
    options = QuantizeInt8("min-max", 0, "float32", "float32", equalize=False)
    made = PostTraining.of(detector(), INT8, DrawnCalibrator(), options)
    assert made.faces == 4
    assert made.notes[0].endswith("ranges from 4 training faces, storage i8")
    assert "50% with 2, 25% with 4, 21% with 8, 10% with 16 calibration faces" in made.notes[1]


def test_no_more_faces_are_named_than_there_are():
    class Few(DrawnCalibrator):
        available = 3

    made = PostTraining.of(detector(), INT8, Few(), QuantizeInt8(faces=200))
    assert made.faces == 3
    assert " from 3 training faces" in made.notes[0]


@pytest.mark.parametrize("output", ["uint8", "int8"])
def test_eight_bits_behind_sixteen_have_no_headroom(output: EndType):
    class Roomy(DrawnCalibrator):
        """Gives 16 bits four times the range, as min-max does."""

        def ranges(self, graph, values, observer, *, faces, storage, augmented=False):
            found = super().ranges(
                graph, values, observer, faces=faces, storage=storage, augmented=augmented
            )
            more = 4.0 if storage is DType.I16 else 1.0
            return {v: ValueRange(more * r.low, more * r.high) for v, r in found.items()}

    steps = {}
    for options, scheme in (
        (QuantizeInt16(output=output), INT16),
        (QuantizeInt8(output=output, equalize=False), INT8),
    ):
        made = PostTraining.of(detector(), scheme, Roomy(), options).quantized()
        steps[scheme] = made.type(made.outputs[0][1]).quant.scale[0]
    assert steps[INT16] <= 2.01 * steps[INT8]  # a symmetric grid has up to twice the steps' size


class Clipping(DrawnCalibrator):
    """Cuts off most of what the first kernel gives, so that what follows sees something else."""

    def ranges(self, graph, values, observer, *, faces, storage):
        found = super().ranges(graph, values, observer, faces=faces, storage=storage)
        cut = {v: ValueRange(0.0, 0.25 * r.high) for v, r in found.items() if v.node == "conv"}
        return {**found, **cut}


@BOTH
def test_a_later_stage_is_calibrated_behind_the_integers_of_the_one_before(scheme: QuantScheme):
    edit = Edit("cascade")
    rng = np.random.default_rng(3)
    image = edit.input("image", (None, 6, 6, 3))
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
    x = edit.add(
        "conv", Conv2D(8, use_bias=False, activation="relu"), image, weights={"kernel": kernel}
    )
    warped = edit.add("warped", Sqrt(), x)
    weights = {"kernel": rng.normal(size=(3, 3, 8, 4)).astype(np.float32)}
    y = edit.add("second", Conv2D(4, use_bias=False, activation="relu"), warped, weights=weights)
    weights = {"kernel": rng.normal(size=(4, 10)).astype(np.float32)}
    head = edit.add("head", Dense(10, use_bias=False), edit.add("mean", Mean(), y), weights=weights)
    edit.output("landmarks", head)
    graph = edit.done()
    assert [sorted(stage) for stage in stages_of(graph, scheme)] == [
        ["conv", "image"],
        ["head", "mean", "second", "warped"],
    ]
    options = QuantizeInt8("min-max", 4, "float32", "float32", equalize=False, float_head=False)
    made = PostTraining.of(graph, scheme, Clipping(), options)
    seen = run(
        made.keeping(frozenset({"second", "mean", "head"})).quantized(),
        {"image": FACES},
        all_values=True,
    )
    assert made.ranges[Value("warped")].high == pytest.approx(seen["warped"].max(), rel=1e-5)
    assert made.ranges[Value("second")].high == pytest.approx(seen["second"].max(), rel=1e-5)
    plain = run(graph, {"image": FACES}, all_values=True)
    assert seen["second"].max() < 0.85 * plain["second"].max()


@BOTH
def test_a_graph_without_islands_is_one_stage(scheme: QuantScheme):
    graph = detector()
    assert stages_of(graph, scheme) == [{"image", "conv", "mean", "head"}]
    behind = replace(scheme, real=frozenset({"mean", "head"}))
    assert stages_of(graph, behind) == [{"image", "conv"}]


@BOTH
def test_reconstructed_kernels_give_values_nearer_to_the_float_ones(scheme: QuantScheme):
    graph = detector()
    options = QuantizeInt8("min-max", 4, "float32", "float32", equalize=False)
    keep = replace(scheme, real=frozenset({"mean", "head"}))
    nearest, rounded = (
        PostTraining.of(graph, keep, DrawnCalibrator(), options, rounding=rounding).corrected()
        for rounding in ("nearest", "reconstructed")
    )
    assert nearest.node("conv").results == rounded.node("conv").results
    kernels = [made.node("conv").weight("kernel") for made in (nearest, rounded)]
    assert kernels[0].type == kernels[1].type
    grid, wanted = kernels[0].type.quant, graph.node("conv").weight("kernel").real()
    assert grid is not None
    summed = [(grid.dequantize(k.array) - wanted).sum(axis=(0, 1, 2)) for k in kernels]
    # Pictures are around 0.5 everywhere, and nothing but the kernel can take up that mean.
    assert np.square(summed[1]).mean() < 0.1 * np.square(summed[0]).mean()
