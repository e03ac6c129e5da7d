"""Scales of channels that make their ranges alike."""

import numpy as np
import pytest

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import Add, Concat, Conv2D, Dense, DepthwiseConv2D, Mean, PRelu
from lmopt.ir.scaling import map_scales, rescale
from lmopt.quant.equalize import even_scales
from lmopt_passes.equalize import Equalize
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.quantize_uint8 import QuantizeUint8
from tests.support.services import full_context

FACES = np.random.default_rng(0).uniform(size=(4, 6, 6, 3)).astype(np.float32)


def uneven(seed: int = 0, spread: float = 1.5) -> Graph:
    """Kernels, a depthwise one and a sum among them, whose channels differ by orders."""
    edit, rng = Edit("uneven"), np.random.default_rng(seed)
    edit.input("image", (None, 6, 6, 3))

    def add(name, op, *names):
        shapes = op.params([edit.node(n).results[0] for n in names])
        weights = {}
        for key, shape in shapes.items():
            drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) if key == "kernel" else 4)
            channels = np.exp(spread * rng.normal(size=shape[-1] if key != "kernel" else 1))
            weights[key] = (drawn * channels if key == "alpha" else drawn).astype(np.float32)
        edit.add(name, op, *map(Value, names), weights=weights)

    add("first", Conv2D(8, activation="relu"), "image")
    add("deep", DepthwiseConv2D(), "first")
    add("bend", PRelu(), "deep")
    add("project", Conv2D(8, (1, 1)), "bend")
    add("total", Add(), "project", "first")
    add("side", Conv2D(4, activation="relu"), "total")
    add("both", Concat(), "total", "side")
    add("mean", Mean(), "both")
    add("landmarks", Dense(6), "mean")
    edit.output("landmarks", Value("landmarks"))
    graph = edit.done()
    units = map_scales(graph)
    drawn = np.exp(spread * rng.normal(size=len(units.free)))
    return rescale(graph, units, np.where(units.free, drawn, 1.0))


def equalized(graph: Graph, per_channel: bool = False) -> Graph:
    units = map_scales(graph)
    return rescale(graph, units, even_scales(graph, units, per_channel=per_channel))


def test_two_kernels_in_a_row_get_the_scales_of_the_paper():
    edit = Edit("pair")
    image = edit.input("image", (None, 2))
    first = np.array([[1.0, -0.02, 3.0], [0.5, 0.01, -8.0]], np.float32)
    second = np.array([[0.3, 0.1], [9.0, -2.0], [0.0, 0.5]], np.float32)
    hidden = edit.add("a", Dense(3, False, "relu"), image, weights={"kernel": first})
    edit.output("b", edit.add("b", Dense(2, False), hidden, weights={"kernel": second}))
    after = equalized(edit.done())
    made = np.abs(after.node("a").weight("kernel").real()).max(0)
    read = np.abs(after.node("b").weight("kernel").real()).max(1)
    np.testing.assert_allclose(made / made[0], read / read[0], rtol=0.01)  # r1 = r2, up to a unit
    precision = np.sqrt(np.abs(first).max(0) * np.abs(second).max(1))
    np.testing.assert_allclose(made / made[0], precision / precision[0], rtol=0.01)


def test_across_a_depthwise_kernel_all_three_have_even_channels():
    graph = uneven()
    before, after = graph, equalized(graph)

    def unevenness(graph: Graph) -> float:
        kernel = {n: np.abs(graph.node(n).weight("kernel").real()) for n in ("first", "project")}
        deep = np.abs(graph.node("deep").weight("kernel").real()).max((0, 1, 3))
        ranges = [kernel["first"].max((0, 1, 2)), deep, kernel["project"].max((0, 1, 3))]
        return float(np.mean([np.log(r).std() for r in ranges]))

    assert unevenness(after) < 0.4 * unevenness(before)


@pytest.mark.parametrize(
    ("kernels", "item"),
    [
        ("per-tensor", QuantizeUint8("min-max", equalize=False)),
        ("per-channel", QuantizeInt8("min-max", equalize=False)),
    ],
)
def test_what_eight_bits_cost_falls(kernels, item):
    def error(graph: Graph) -> float:
        stored = item.apply(graph, full_context()).graph
        pixels = np.rint(FACES * 255).astype(np.uint8)
        grid = stored.inputs[0].results[0].quant
        assert grid is not None
        got = run(stored, {"image": pixels})["landmarks"]
        want = run(graph, {"image": grid.dequantize(pixels)})["landmarks"]
        return float(np.abs(got - want).mean() / want.std())

    graphs = [uneven(seed) for seed in range(3)]
    ratios = [
        error(Equalize(kernels=kernels).apply(graph, full_context()).graph) / error(graph)
        for graph in graphs
    ]
    assert np.exp(np.mean(np.log(ratios))) < 0.7, ratios


def test_scales_settle_so_that_a_second_time_moves_nothing():
    once = equalized(uneven())
    again = even_scales(once, map_scales(once), per_channel=False)
    np.testing.assert_allclose(again, 1.0, atol=0.01)


def test_a_silent_channel_does_not_run_away():
    graph = uneven()
    edit = graph.edit()
    kernel = graph.node("project").weight("kernel").real().copy()
    kernel[..., 3] = 0.0
    edit.set_weights("project", kernel=kernel)
    units = map_scales(edit.done())
    scales = even_scales(edit.done(), units, per_channel=False)
    assert np.isfinite(scales).all() and scales.max() / scales.min() < 1e4
