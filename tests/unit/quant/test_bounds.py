"""Bounds worked out by hand, what they say about a real detector's structure, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import GraphError
from lmopt.ir import DType, Edit, Graph, Quant, TensorType, ValueRange
from lmopt.ir import ops as o
from lmopt.ir.interp import run
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import quantize_graph
from lmopt.quant.bounds import InputRange, error_bounds, landmark_pixels
from lmopt.quant.interval import Interval
from lmopt.quant.transfer import Moments
from tests.support import op_zoo


def dense(bias: float = 0.0, activation: o.Activation = "none") -> Graph:
    """y = 0.5 a - 0.25 b + bias."""
    edit = Edit("dense")
    x = edit.input("x", (None, 2))
    weights = {
        "kernel": np.array([[0.5], [-0.25]], np.float32),
        "bias": np.array([bias], np.float32),
    }
    edit.output("y", edit.add("y", o.Dense(1, activation=activation), x, weights=weights))
    return edit.done()


def on_grids(graph: Graph, high: float = 2.0, real: frozenset[str] = frozenset()) -> Graph:
    ranges = {node.value: ValueRange(-1.0, high) for node in graph.nodes}
    scheme = QuantScheme(DType.I8, per_channel=True, real=real)
    return quantize_graph(graph, ranges, scheme)


def test_the_bound_of_one_layer_is_the_sum_of_its_roundings():
    graph = dense()
    quantized = on_grids(graph)
    bound = error_bounds(graph, quantized, {"x": InputRange(-1, 1)}).outputs["y"]
    step = 3.0 / 255
    kernel = quantized.node("y").weight("kernel").real()
    weights = np.abs(kernel - graph.node("y").weight("kernel").real()).sum()
    # half a step of each operand through the stored weights, the weights' own error, half a step
    by_hand = step / 2 * np.abs(kernel).sum() + weights + step / 2
    assert bound.largest == pytest.approx(by_hand, rel=1e-3)
    assert str(bound.twin) == "%y" and bound.reason == ""


def test_the_expected_error_is_that_of_independent_roundings():
    graph = dense()
    quantized = on_grids(graph)
    found = error_bounds(graph, quantized, {"x": InputRange(-1, 1)}).outputs["y"]
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (20_000, 2)).astype(np.float32)
    error = run(quantized, {"x": x})["y"] - run(graph, {"x": x})["y"]
    assert found.rms == pytest.approx(float(np.sqrt(np.mean(error**2))), rel=0.05)


def test_statistics_of_the_float_values_sharpen_the_expected_error():
    graph = dense(activation="relu")
    quantized = on_grids(graph)
    asleep = Moments(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1)))
    loose = error_bounds(graph, quantized).outputs["y"]
    tight = error_bounds(graph, quantized, statistics={"y": asleep}).outputs["y"]
    assert loose.rms > 0 and tight.rms == 0
    assert tight.largest == loose.largest


def test_clipping_counts_unless_values_stay_within_the_grids():
    graph = dense()
    quantized = on_grids(graph, high=0.25)
    ranges = {"x": InputRange(-1, 1)}
    hard = error_bounds(graph, quantized, ranges).outputs["y"]
    usual = error_bounds(graph, quantized, ranges, within_grids=True).outputs["y"]
    # the float answer reaches 0.75, and inputs above 0.25 are cut off: the stored one cannot
    assert hard.largest > 0.5 and usual.largest < 0.02
    error = run(quantized, {"x": np.array([[1, -1]], np.float32)})["y"] - 0.75
    assert abs(float(error[0, 0])) > 0.3


def test_an_answer_written_as_a_mean_and_a_rest_is_compared_with_the_whole():
    graph = dense(bias=5.0)
    edit = graph.edit()
    edit.set_weights("y", bias=np.zeros(1, np.float32))
    mean = edit.add("y_mean", o.Constant((1,)), weights={"value": np.full(1, 5.0, np.float32)})
    edit.output("y", edit.add("y_placed", o.Add(), edit.node("y").value, mean))
    parted = on_grids(edit.done(), real=frozenset({"y_placed"}))
    bounds = error_bounds(graph, parted, {"x": InputRange(-1, 1)})
    assert bounds.values[parted.node("y").value].error.center == pytest.approx(-5, abs=0.05)
    assert bounds.outputs["y"].largest < 0.03
    assert bounds.outputs["y"].rms < 0.01


def test_a_node_under_another_name_is_found_by_its_place():
    graph = dense()
    quantized = on_grids(graph)
    renamed = Edit(quantized.name)
    for node in quantized.nodes:
        if node.name == "y":
            value = renamed.add(
                "other", node.op, *node.inputs, weights=node.weights, type=node.results[0]
            )
        elif node.inputs and node.inputs[0].node == "y":
            renamed.output("y", renamed.add("out", node.op, value, type=node.results[0]))
        else:
            renamed.put(node)
    want, got = error_bounds(graph, quantized), error_bounds(graph, renamed.done())
    assert got.outputs["y"].largest == want.outputs["y"].largest


def test_the_default_kernels_may_be_a_step_further_off():
    graph = dense()
    quantized = on_grids(graph)
    plain = error_bounds(graph, quantized).outputs["y"]
    default = error_bounds(graph, quantized, kernels="default").outputs["y"]
    # one more for the layer; its operand's QUANTIZE gives another 0.75 of a step
    assert default.largest - plain.largest == pytest.approx(3.0 / 255 * 1.75, rel=0.02)


def test_an_op_without_a_bound_is_named():
    edit = Edit("fit")
    points = edit.add("points", o.Dense(4), edit.input("x", (None, 2)), weights={
        "kernel": np.eye(2, 4, dtype=np.float32), "bias": np.zeros(4, np.float32)
    })  # fmt: skip
    shape = np.array([0, 0, 1, 1], np.float32)
    reference = edit.add("shape", o.Constant((4,)), weights={"value": shape})
    edit.output("fit", edit.add("fit", o.SimilarityFit(), points, reference))
    graph = edit.done()
    bound = error_bounds(graph, on_grids(graph)).outputs["fit"]
    assert bound.largest == np.inf and bound.rms is None
    assert bound.reason.startswith("similarity_fit divides")


def test_a_factor_of_a_thousand_is_cut_off_and_counted():
    shape = (None, 4)
    coarse = TensorType(DType.I8, shape, Quant.per_tensor(1.0, 0))
    fine = TensorType(DType.I8, shape, Quant.per_tensor(1e-3, 0))
    edit = Edit("wide")
    x = edit.add("x_stored", o.Quantize(), edit.input("x", shape), type=coarse)
    edit.output("y", edit.add("y", o.Relu(), x, type=fine))
    quantized = edit.done()
    edit = Edit("wide")
    edit.output("y", edit.add("y", o.Relu(), edit.input("x", shape)))
    bound = error_bounds(edit.done(), quantized, {"x": InputRange(-1, 127)}).outputs["y"]
    assert bound.largest == pytest.approx(127 - 0.127, rel=1e-3)


def test_a_float_input_of_unknown_range_is_an_error():
    graph = dense()
    with pytest.raises(GraphError, match="%x: the range of a float32 input is not known"):
        error_bounds(graph, graph)
    same = error_bounds(graph, graph, {"x": InputRange(-1, 1)}).outputs["y"]
    assert same.largest < 1e-5 and same.rms == 0


def test_graphs_of_different_outputs_are_an_error():
    edit = dense().edit()
    edit.output("z", edit.node("y").value)
    with pytest.raises(GraphError, match="no output 'z', it has"):
        error_bounds(dense(), on_grids(edit.done()))


def test_errors_of_landmarks_in_pixels():
    contract = zoo.load("pfld-0.25@none").require_contract()
    error = np.zeros(136)
    error[:2] = 0.03, 0.04
    pixels = landmark_pixels(error, contract)
    assert pixels[0] == pytest.approx(0.05 * 112) and not pixels[1:].any()


@pytest.mark.parametrize("storage", [DType.I8, DType.U8])
def test_every_value_of_every_op_has_a_bound_or_a_reason(storage: DType):
    """Conversions, float32 islands, warps and shared grids in one graph."""
    graph = op_zoo.zoo(integer=True, composed=True)
    bounds = error_bounds(graph, op_zoo.on_grids(graph, storage, edge=True))
    for bound in bounds.values.values():
        assert bool(bound.reason) != bool(np.isfinite(bound.largest))
    unbounded = {name for name, bound in bounds.outputs.items() if bound.reason}
    # a fit divides, and so does what takes its transform for exact numbers
    assert unbounded == {
        "similarity_fit", "similarity_fit_constant", "transform_landmarks", "invert_transform",
    }  # fmt: skip


def test_intervals_multiply_and_divide_through_every_sign():
    rng = np.random.default_rng(1)
    ends = np.sort(rng.uniform(-2, 2, (2, 2, 500)), axis=1)
    a, b = (Interval(*pair) for pair in ends)
    for _ in range(20):
        x, y = (side.low + rng.random(500) * (side.high - side.low) for side in (a, b))
        for made, value in ((a * b, x * y), (a / b, x / y), (a - b, x - y)):
            assert (made.low <= value + 1e-12).all() and (value - 1e-12 <= made.high).all()
