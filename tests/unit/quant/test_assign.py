"""Float graphs put on grids: who shares one, what is inserted, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv2D,
    Dense,
    Div,
    Exp,
    HardSwish,
    InvertTransform,
    LandmarkHeatmap,
    MaxPool2D,
    Mean,
    Minimum,
    Quantize,
    Relu,
    Reshape,
    Sigmoid,
    SimilarityFit,
    Softmax,
    Sum,
    Tanh,
    TransformLandmarks,
    Warp,
)
from lmopt.ir.types import DType, Quant, ValueRange
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import plan_grids, quantize_graph
from lmopt.testing import run_on_runtime
from tests.support.op_zoo import initialized

INT8 = QuantScheme(DType.I8, per_channel=True)
UINT8 = QuantScheme(DType.U8, per_channel=False)
INT16 = QuantScheme(DType.I16, per_channel=True)


def detector(seed: int = 0) -> Graph:
    """A convolution with a pool, a skip, a two-branch concat and a dense head."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    edit = Edit("tiny")
    image = edit.input("image", (None, 8, 8, 3))
    conv = edit.add(
        "conv",
        Conv2D(4, activation="relu"),
        image,
        weights={"kernel": draw(3, 3, 3, 4), "bias": draw(4)},
    )
    pool = edit.add("pool", MaxPool2D(), conv)
    skip = edit.add("skip", Conv2D(4), pool, weights={"kernel": draw(3, 3, 4, 4), "bias": draw(4)})
    total = edit.add("total", Add(), pool, skip)
    mean = edit.add("mean", Mean(), total)
    flat = edit.add("flat", Reshape((-1,)), total)
    both = edit.add("both", Concat(), mean, flat)
    head = edit.add("head", Dense(6), both, weights={"kernel": draw(68, 6), "bias": draw(6)})
    edit.output("landmarks", head)
    return edit.done()


def ranges_of(
    graph: Graph, images: np.ndarray, scheme: QuantScheme = INT8
) -> dict[Value, ValueRange]:
    values = run(graph, {"image": images}, all_values=True)
    found = {}
    for owner in plan_grids(graph, scheme).owners:
        array = values[owner.node]
        found[owner] = ValueRange(min(0.0, float(array.min())), max(0.0, float(array.max())))
    found[Value("image")] = ValueRange(0.0, 1.0)
    return found


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).random((6, 8, 8, 3)).astype(np.float32)


def test_pools_share_their_operands_grid_and_concat_claims_lonely_operands():
    plan = plan_grids(detector(), INT8)
    assert plan.owner[Value("pool")] == Value("conv")
    assert plan.owner[Value("mean")] == Value("both")
    # `flat` leads back to `total`, which `mean` reads as well: it keeps its own grid.
    assert plan.owner[Value("flat")] == Value("total")
    assert plan.separated == {("both", 1)}


@pytest.mark.parametrize(
    ("scheme", "limit"),
    [(INT8, 0.02), (UINT8, 0.03), (INT16, 0.01)],
    ids=["int8", "uint8", "int16"],
)
def test_the_integer_graph_computes_nearly_the_same(scheme, limit, images):
    graph = detector()
    quantized = quantize_graph(graph, ranges_of(graph, images), scheme)
    want = run(graph, {"image": images})["landmarks"]
    got = run(quantized, {"image": images})["landmarks"]
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= limit * (want.max() - want.min())
    assert np.abs(got - want).max() > 0


def test_a_separated_operand_gets_a_requantization_onto_the_concats_grid(images):
    graph = detector()
    quantized = quantize_graph(graph, ranges_of(graph, images), INT8)
    both = quantized.node("both")
    between = quantized.node(both.inputs[1].node)
    assert between.op.kind == "quantize"
    assert between.results[0].quant == both.results[0].quant


def test_byte_input_and_output_carry_the_same_values_as_storage(images):
    graph = detector()
    ranges = ranges_of(graph, images)
    pixels = np.rint(images * 255).astype(np.uint8)
    quantized = quantize_graph(graph, ranges, INT8, input_type="uint8", output_type="uint8")
    source = quantized.inputs[0].results[0]
    assert source.dtype is DType.U8 and source.quant == Quant.per_tensor(1 / 255, 0)
    result = quantized.type(dict(quantized.outputs)["landmarks"])
    assert result.dtype is DType.U8 and result.quant is not None
    answer = result.quant.dequantize(run(quantized, {"image": pixels})["landmarks"])
    same = quantize_graph(graph, ranges, INT8)
    want = run(same, {"image": pixels.astype(np.float32) / 255})["landmarks"]
    assert np.array_equal(answer, want)


def test_sigmoid_gets_the_grid_the_runtime_prescribes():
    edit = Edit("s")
    image = edit.input("image", (None, 4))
    edit.output("y", edit.add("y", Sigmoid(), image))
    graph = edit.done()
    result = quantize_graph(graph, {Value("image"): ValueRange(-4, 4)}, INT8, output_type="int8")
    assert result.node("y").results[0].quant == Quant.per_tensor(1 / 256, -128)


def test_what_has_no_sixteen_bits_stays_real_and_other_ends_get_grids_of_their_own():
    edit = Edit("s")
    image = edit.input("image", (None, 4))
    edit.output("y", edit.add("y", HardSwish(), edit.add("relu", Relu(), image)))
    ranges = {Value(name): ValueRange(-1, 3) for name in ("image", "relu", "y")}
    result = quantize_graph(edit.done(), ranges, INT16, input_type="uint8", output_type="uint8")
    image_type, relu, y = (result.node(n).results[0] for n in ("image", "relu", "y"))
    assert image_type.quant == Quant.per_tensor(4 / 255, 64) and image_type.dtype is DType.U8
    assert relu.quant == Quant.per_tensor(3 / 32767, 0) and relu.dtype is DType.I16
    assert y.dtype is DType.F32
    assert result.type(result.outputs[0][1]).quant == Quant.per_tensor(4 / 255, 64)


@pytest.mark.parametrize(("op", "high"), [(Sigmoid(), 8.0), (Tanh(), 8.0), (Tanh(), 16.0)])
def test_scales_that_sixteen_bit_functions_take_for_powers_of_two_are_widened(op, high):
    """At them the runtime's default kernels are other, coarser ones; see ROUNDING.md."""
    edit = Edit("s")
    image = edit.input("image", (None, 4))
    edit.output("y", edit.add("y", op, edit.add("relu", Relu(), image)))
    ranges = {Value(name): ValueRange(0, high * 32767 / 32768) for name in ("image", "relu")}
    result = quantize_graph(edit.done(), ranges, INT16)
    assert result.node("y").results[0].quant == Quant.per_tensor(1 / 32768, 0)
    scale = result.node("relu").results[0].quant.scale[0]
    assert high / 32768 < scale < 1.003 * high / 32768
    pixels = {"image": np.linspace(-high, high, 4000, dtype=np.float32).reshape(-1, 4)}
    want = run_on_runtime(result, pixels, "default")["y"]
    np.testing.assert_array_equal(run(result, pixels)["y"], want)


def test_parts_differ_in_storage_and_a_conversion_stands_between_two():
    edit = Edit("mixed")
    image = edit.input("image", (None, 6))
    offset = edit.add("offset", Constant((6,)), weights={"value": np.linspace(-1, 1, 6, dtype="f")})
    left = edit.add("left", Add(), image, offset)
    right = edit.add("right", Sigmoid(), edit.add("moved", Add(), left, offset))
    edit.output("y", edit.add("both", Concat(1), left, right))
    graph = edit.done()
    ranges = {Value(n): ValueRange(-4, 4) for n in ("image", "left", "moved", "both")}
    wide = replace(UINT8, wide=frozenset({"moved", "right"}))
    made = quantize_graph(graph, ranges, wide, input_type="uint8", output_type="uint8")
    kinds = {node.name: str(node.results[0].dtype) for node in made.nodes}
    assert kinds == {
        **{"image": "u8", "offset": "u8", "left": "u8", "both": "u8"},
        **{"moved": "i16", "right": "i16", "left_i16": "i16", "offset_i16": "i16"},
        **{"both_operand0": "u8", "right_i8": "i8", "both_operand1": "u8"},
    }
    assert made.node("offset_i16").op == made.node("offset").op  # not converted: a finer copy
    # both of its readers have 16 bits, and so has the input from the start
    all_wide = replace(INT8, wide=frozenset({"left", "moved", "right", "both"}))
    finer = quantize_graph(graph, ranges, all_wide)
    assert finer.node("image_stored").results[0].dtype is DType.I16
    x = np.random.default_rng(0).integers(0, 256, (9, 6)).astype(np.uint8)
    want = run_on_runtime(made, {"image": x})["y"]
    np.testing.assert_array_equal(run(made, {"image": x})["y"], want)


@pytest.mark.parametrize(("features", "wanted"), [(500, DType.I32), (600, DType.I64)])
def test_a_bias_has_32_bits_where_no_sum_of_16_bit_values_overflows(features, wanted):
    edit = Edit("sums")
    image = edit.input("image", (None, features))
    weights = {"kernel": np.full((features, 1), 0.5, np.float32), "bias": np.ones(1, np.float32)}
    edit.output("y", edit.add("y", Dense(1), image, weights=weights))
    ranges = {Value("image"): ValueRange(-1, 1), Value("y"): ValueRange(-300, 300)}
    result = quantize_graph(edit.done(), ranges, INT16)
    assert result.node("y").weight("bias").type.dtype is wanted
    answers = run(result, {"image": np.full((1, features), -1, np.float32)})["y"]
    assert answers[0, 0] == pytest.approx(1 - features / 2, abs=600 / 32767)


def test_batch_norm_and_a_second_quantization_are_refused_by_name(images):
    edit = Edit("b")
    image = edit.input("image", (None, 4))
    edit.output("y", edit.add("norm", BatchNorm(), edit.add("dense", Dense(4), image)))
    with pytest.raises(PassError, match=r"%norm.*batch normalization[\s\S]*fold-batchnorm"):
        quantize_graph(edit.done(), {}, INT8)
    graph = detector()
    once = quantize_graph(graph, ranges_of(graph, images), INT8)
    with pytest.raises(PassError, match="not float32"):
        quantize_graph(once, {}, INT8)


def test_a_tiny_kernel_with_a_large_bias_keeps_the_bias():
    edit = Edit("d")
    image = edit.input("image", (None, 2))
    weights = {
        "kernel": np.full((2, 1), 1e-12, np.float32),
        "bias": np.array([0.75], np.float32),
    }
    edit.output("y", edit.add("y", Dense(1), image, weights=weights))
    graph = edit.done()
    ranges = {Value("image"): ValueRange(0, 1), Value("y"): ValueRange(0, 1)}
    answer = run(quantize_graph(graph, ranges, INT8), {"image": np.ones((1, 2), np.float32)})
    assert answer["y"][0, 0] == pytest.approx(0.75, abs=1 / 255)


def test_float_only_ops_stand_between_conversions():
    edit = Edit("islands")
    image = edit.input("image", (None, 6, 6, 3))
    conv = edit.add("conv", Conv2D(4), image)
    grown = edit.add("grown", Exp(), conv)
    total = edit.add("total", Sum((3,), keepdims=True), grown)
    share = edit.add("share", Div(), grown, total)
    edit.output("maps", edit.add("maps", Conv2D(2, (1, 1)), share))
    edit.output("heat", edit.add("heat", Softmax(), conv))
    graph = initialized(edit.done())
    plan = plan_grids(graph, INT8)
    assert {Value("grown"), Value("total")}.isdisjoint(plan.owner)
    assert {Value("share"), Value("heat")} <= set(plan.owner)
    images = np.random.default_rng(4).random((3, 6, 6, 3)).astype(np.float32)
    quantized = quantize_graph(graph, ranges_of(graph, images), INT8)
    kinds = [node.op.kind for node in quantized.nodes]
    assert kinds.count("dequantize") == 2  # one for both readers of `conv`, one at the end
    floats = {n.name for n in quantized.nodes if n.op.float_only}
    assert floats == {"grown", "total", "share", "heat"}
    assert all(quantized.node(name).results[0].dtype is DType.F32 for name in floats)
    want, got = run(graph, {"image": images}), run(quantized, {"image": images})
    for name, limit in (("maps", 0.03), ("heat", 0.03)):
        spread = np.ptp(want[name])
        assert 0 < np.abs(got[name] - want[name]).max() <= limit * spread
    whole = quantize_graph(graph, ranges_of(graph, images), INT8, output_type="int8")
    heat = whole.type(dict(whole.outputs)["heat"])
    assert heat.quant is not None
    stored = run(whole, {"image": images})["heat"]
    assert np.abs(heat.quant.dequantize(stored) - got["heat"]).max() <= heat.quant.scale[0]


def test_the_smaller_of_two_is_found_on_the_results_grid():
    edit = Edit("cut")
    image = edit.input("image", (None, 4))
    six = edit.add("six", Constant((1,)), weights={"value": np.array([2.0], np.float32)})
    edit.output("cut", edit.add("cut", Minimum(), image, six))
    ranges = {Value("image"): ValueRange(-1, 9), Value("cut"): ValueRange(-1, 2)}
    quantized = quantize_graph(edit.done(), ranges, INT8)
    got = run(quantized, {"image": np.array([[-1, 0.5, 2, 9]], np.float32)})["cut"]
    np.testing.assert_allclose(got, [[-1, 0.5, 2, 2]], atol=10 / 255)


def cascade() -> Graph:
    """Landmarks from a dense layer, made better by what a warped picture and a heatmap show."""
    rng = np.random.default_rng(3)
    reference = rng.uniform(0.2, 0.8, 6).astype(np.float32)

    def draw(*shape: int) -> np.ndarray:
        return (0.3 * rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    edit = Edit("cascade")
    image = edit.input("image", (None, 8, 8, 1))
    mean = edit.add("mean", Constant((6,)), weights={"value": reference})
    flat = edit.add("flat", Reshape(), image)
    offset = edit.add("offset", Dense(6, False), flat, weights={"kernel": draw(64, 6)})
    points = edit.add("points", Add(), offset, mean)
    move = edit.add("move", SimilarityFit(), points, mean)
    back = edit.add("back", InvertTransform(), move)
    moved = edit.add("moved", TransformLandmarks(), points, move)
    maps = edit.add(
        "maps",
        Concat(),
        edit.add("warped", Warp(), image, back),
        edit.add("heatmap", LandmarkHeatmap((8, 8)), moved),
    )
    norm = edit.add("norm", BatchNorm(), maps, weights=dict.fromkeys(STATISTICS, np.ones(2, "f4")))
    conv = edit.add("conv", Conv2D(4, use_bias=False), norm, weights={"kernel": draw(3, 3, 2, 4)})
    pooled = edit.add("pooled", Reshape(), conv)
    step = edit.add("step", Dense(6, False), pooled, weights={"kernel": draw(256, 6)})
    better = edit.add("better", Add(), step, moved)
    edit.output("landmarks", edit.add("landmarks", TransformLandmarks(), better, back))
    return edit.done()


STATISTICS = ("gamma", "beta", "mean", "variance")


@pytest.mark.parametrize("scheme", [INT8, UINT8], ids=["int8", "uint8"])
def test_coordinates_are_islands_of_float32_between_conversions(scheme: QuantScheme):
    graph = cascade()
    images = np.random.default_rng(1).uniform(0, 1, (16, 8, 8, 1)).astype(np.float32)
    ranges = ranges_of(graph, images)
    quantized = quantize_graph(graph, ranges, scheme, input_type="uint8")
    real = ("move", "back", "moved", "warped", "heatmap", "norm", "landmarks")
    assert {n.results[0].dtype for k in real for n in [quantized.node(k)]} == {DType.F32}
    stored = ("offset", "points", "maps", "conv", "step", "better")
    assert {n.results[0].dtype for k in stored for n in [quantized.node(k)]} == {scheme.storage}
    # A real copy of the constant, and both joined maps straight onto the grid of the concat.
    assert quantized.node("move").inputs == (Value("points_real"), Value("mean_real"))
    assert quantized.node("mean_real").weight("value") == graph.node("mean").weight("value")
    grid = quantized.type(Value("maps")).quant
    for value in quantized.node("maps").inputs:
        assert quantized.producer(value).op == Quantize()
        assert quantized.type(value).quant == grid
    want = run(graph, {"image": images})["landmarks"]
    bytes_ = np.round(images * 255).astype(np.uint8)
    got = run(quantized, {"image": bytes_})["landmarks"]
    assert got.dtype == np.float32
    assert np.abs(got - want).mean() < 0.01 < np.ptp(want)
    file = run_on_runtime(quantized, {"image": bytes_}, "reference")["landmarks"]
    np.testing.assert_allclose(file, got, atol=0.01)
    whole = quantize_graph(graph, ranges, scheme, output_type="uint8")
    grid = whole.type(dict(whole.outputs)["landmarks"]).quant
    assert grid is not None
    stored = grid.dequantize(run(whole, {"image": images})["landmarks"])
    assert np.abs(stored - want).mean() < 0.01 + grid.scale[0]


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.sampled_from([n.name for n in detector().nodes if n.name != "image"])),
    st.sampled_from([INT8, UINT8, INT16]),
)
def test_any_nodes_can_stay_in_float32(kept: set[str], storage: QuantScheme):
    graph = detector()
    images = np.random.default_rng(5).random((4, 8, 8, 3)).astype(np.float32)
    scheme = replace(storage, real=frozenset(kept))
    quantized = quantize_graph(graph, ranges_of(graph, images, scheme), scheme)
    for node in graph.nodes:
        real = quantized.node(node.name).results[0].dtype is DType.F32
        assert real == (node.name in kept or node.name == "image")
    want = run(graph, {"image": images})["landmarks"]
    got = run(quantized, {"image": images})["landmarks"]
    everywhere = quantize_graph(graph, ranges_of(graph, images), storage)
    worst = np.abs(run(everywhere, {"image": images})["landmarks"] - want).max()
    assert np.abs(got - want).max() <= max(1.6 * worst, 1e-5)
    file = run_on_runtime(quantized, {"image": images}, "reference")["landmarks"]
    # float32 sums in another order may fall on the next of 65,536 steps
    np.testing.assert_allclose(file, got, atol=2e-4 if storage is INT16 else 1e-5)


def test_a_head_in_float32_gives_answers_between_the_steps():
    graph = detector()
    images = np.random.default_rng(6).random((8, 8, 8, 3)).astype(np.float32)
    want = run(graph, {"image": images})["landmarks"]
    errors = []
    for real in ((), ("head",)):
        scheme = replace(INT8, real=frozenset(real))
        quantized = quantize_graph(graph, ranges_of(graph, images, scheme), scheme)
        errors.append(np.abs(run(quantized, {"image": images})["landmarks"] - want).mean())
    assert errors[1] < 0.9 * errors[0]


def test_only_what_integers_read_of_a_float_island_has_a_grid():
    owners = plan_grids(cascade(), INT8).owners
    names = {value.node for value in owners}
    assert {"moved", "mean", "landmarks"} <= names  # the last one as an output
    assert not names & {"move", "back", "warped", "heatmap"}
