"""fuse-block: one dense convolution gives what the pair gave, or comes nearest to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    BatchNorm,
    Conv2D,
    DepthwiseConv2D,
    Mean,
    Op,
    Pad,
    PRelu,
    Relu,
)
from lmopt.pipeline.base import Need, PassContext
from lmopt_passes.fuse_block import FuseBlock
from lmopt_passes.separable import composed, fitted, fused, separable_pairs
from tests.support.services import DistanceScorer, DrawnCalibrator

SIZE = 7


class Net:
    """A graph under construction whose weights are drawn."""

    def __init__(self, channels: int = 3) -> None:
        self.edit = Edit("net")
        self.rng = np.random.default_rng(0)
        self.value = self.edit.input("image", (None, SIZE, SIZE, channels))

    def add(self, name: str, op: Op, **given: np.ndarray) -> Net:
        shapes = op.params([self.edit.node(self.value.node).results[0]])
        drawn = {k: self.rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        self.value = self.edit.add(name, op, self.value, weights={**drawn, **given})
        return self

    def done(self) -> Graph:
        self.edit.output("map", self.value)
        return self.edit.done()


def answers(graph: Graph) -> np.ndarray:
    image = np.random.default_rng(1).uniform(size=(3, *graph.inputs[0].results[0].shape[1:]))
    return run(graph, {"image": image.astype(np.float32)})["map"]


def fully_fused(graph: Graph) -> Graph:
    (pair,) = separable_pairs(graph)
    (kernel,) = fitted(graph, [pair], DrawnCalibrator(), faces=4)
    return fused(graph, {pair: kernel}, "fuse-block")


def context(graph: Graph, **services: object) -> PassContext:
    given = {Need.CALIBRATOR: DrawnCalibrator(), Need.SCORER: DistanceScorer(graph)}
    return PassContext(services={**given, **{Need(k): v for k, v in services.items()}})


@pytest.mark.parametrize(
    "deep",
    [
        DepthwiseConv2D(),
        DepthwiseConv2D((3, 5), (2, 2), padding="valid", activation="relu6"),
        DepthwiseConv2D((3, 3), dilation=(2, 2), multiplier=2, activation="relu"),
    ],
    ids=["same", "valid", "dilated"],
)
def test_a_linear_pair_is_the_same_at_the_borders_too_where_the_expansion_has_no_bias(
    deep: DepthwiseConv2D,
) -> None:
    graph = Net().add("expand", Conv2D(4, (1, 1), use_bias=False)).add("deep", deep).done()
    made = fully_fused(graph)
    assert [node.op.kind for node in made.nodes] == ["input", "conv2d"]
    assert made.nodes[1].results == graph.node("deep").results
    np.testing.assert_allclose(answers(made), answers(graph), atol=2e-5)


def test_a_bias_of_the_expansion_counts_beyond_the_border_too() -> None:
    graph = Net().add("expand", Conv2D(4, (1, 1))).add("deep", DepthwiseConv2D()).done()
    error = answers(fully_fused(graph)) - answers(graph)
    np.testing.assert_allclose(error[:, 1:-1, 1:-1], 0, atol=2e-5)
    kernel = graph.node("deep").weight("kernel").real()[..., 0]
    unseen = kernel[0].sum(axis=0) * graph.node("expand").weight("bias").real()
    np.testing.assert_allclose(error[:, 0, 1:-1], np.broadcast_to(unseen, (3, 5, 4)), atol=2e-5)
    inside = Net().add("expand", Conv2D(4, (1, 1))).add("deep", DepthwiseConv2D(padding="valid"))
    whole = inside.done()
    np.testing.assert_allclose(answers(fully_fused(whole)), answers(whole), atol=2e-5)


def test_without_expansion_the_pointwise_convolution_behind_is_fused_exactly() -> None:
    net = Net().add("deep", DepthwiseConv2D(stride=(2, 2), multiplier=2))
    graph = net.add("project", Conv2D(5, (1, 1), activation="relu")).done()
    made = fully_fused(graph)
    assert [node.op.kind for node in made.nodes] == ["input", "conv2d"]
    np.testing.assert_allclose(answers(made), answers(graph), atol=2e-5)


def test_padding_between_moves_before_the_dense_convolution() -> None:
    net = Net().add("expand", Conv2D(4, (1, 1), use_bias=False)).add("pad", Pad(1, 0, 0, 1))
    graph = net.add("deep", DepthwiseConv2D(stride=(2, 2), padding="valid")).done()
    made = fully_fused(graph)
    assert [node.op.kind for node in made.nodes] == ["input", "pad", "conv2d"]
    np.testing.assert_allclose(answers(made), answers(graph), atol=2e-5)


@pytest.mark.parametrize("fuses", [True, False], ids=["fused", "apart"])
def test_a_relu_that_always_or_never_passes_is_found_from_faces(fuses: bool) -> None:
    bias = np.array([50, -50, 50, -50], np.float32)
    net = Net().add("expand", Conv2D(4, (1, 1), activation="relu" if fuses else "none"), bias=bias)
    if not fuses:
        net.add("relu", Relu())
    graph = net.add("deep", DepthwiseConv2D(padding="valid", activation="relu")).done()
    (pair,) = separable_pairs(graph)
    assert not pair.is_linear and pair.dense.activation == "relu"
    (found,) = fitted(graph, [pair], DrawnCalibrator(), faces=4)
    passing = np.array([1, 0, 1, 0])
    wanted = composed(pair)
    np.testing.assert_allclose(found.kernel, wanted.kernel * passing, atol=0.03)
    deep = graph.node("deep")
    sums = deep.weight("kernel").real()[..., 0].sum(axis=(0, 1))
    exact = deep.weight("bias").real() + passing * sums * bias
    np.testing.assert_allclose(found.bias, exact, atol=0.1)
    assert found.explained == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("between", [Relu(), PRelu()], ids=["relu", "prelu"])
def test_the_fit_keeps_the_mean_and_errs_by_what_it_does_not_explain(between: Op) -> None:
    """The seven-by-seven map is looked at whole, so that moments and answers are of one sample."""
    net = Net().add("expand", Conv2D(8, (1, 1))).add("act", between)
    graph = net.add("deep", DepthwiseConv2D()).done()
    (pair,) = separable_pairs(graph)
    (found,) = fitted(graph, [pair], DrawnCalibrator(), faces=4)
    image = np.random.default_rng(0).uniform(size=(4, SIZE, SIZE, 3)).astype(np.float32)
    wanted = run(graph, {"image": image})["map"]

    def error(kernel) -> np.ndarray:
        made = run(fused(graph, {pair: kernel}, "fuse-block"), {"image": image})["map"]
        return made - wanted

    np.testing.assert_allclose(error(found).mean(axis=(0, 1, 2)), 0, atol=1e-5)
    missed = (error(found) ** 2).sum() / ((wanted - wanted.mean(axis=(0, 1, 2))) ** 2).sum()
    assert found.explained == pytest.approx(1 - missed, abs=1e-5)
    assert 0.5 < found.explained < 1
    assert (error(found) ** 2).sum() < 0.5 * (error(composed(pair)) ** 2).sum()


def test_a_constant_operand_is_fitted_by_its_mean() -> None:
    zero = np.zeros((1, 1, 3, 3), np.float32)
    net = Net().add("blind", Conv2D(3, (1, 1)), kernel=zero)
    net.add("expand", Conv2D(4, (1, 1), activation="relu"))
    graph = net.add("deep", DepthwiseConv2D(padding="valid")).done()
    np.testing.assert_allclose(answers(fully_fused(graph)), answers(graph), atol=1e-5)


def pairs_of(graph: Graph) -> list[tuple[str, ...]]:
    return [pair.names for pair in separable_pairs(graph)]


def test_what_is_a_pair() -> None:
    block = (
        Net(4).add("expand", Conv2D(4, (1, 1))).add("act", PRelu()).add("deep", DepthwiseConv2D())
    )
    block.add("project", Conv2D(4, (1, 1)))  # goes with no one: the depthwise one is taken
    block.add("more", DepthwiseConv2D())
    assert pairs_of(block.done()) == [("expand", "act", "deep"), ("project", "more")]
    for first, last in (
        (Conv2D(4, (1, 1), (2, 2)), DepthwiseConv2D()),
        (Conv2D(4, (1, 1), groups=2), DepthwiseConv2D()),
        (Conv2D(4), DepthwiseConv2D()),
        (DepthwiseConv2D(), Conv2D(4)),
        (Conv2D(4, (1, 1)), Conv2D(4, (1, 1))),
    ):
        assert pairs_of(Net(4).add("first", first).add("last", last).done()) == []
    for between in (BatchNorm(), Mean(keepdims=True)):
        net = Net(4).add("expand", Conv2D(4, (1, 1))).add("between", between)
        assert pairs_of(net.add("deep", DepthwiseConv2D((1, 1))).done()) == []


def test_values_that_others_read_are_not_fused_away() -> None:
    net = Net(4).add("expand", Conv2D(4, (1, 1)))
    expanded = net.value
    net.add("deep", DepthwiseConv2D())
    net.value = net.edit.add("sum", Add(), expanded, net.value)
    assert pairs_of(net.done()) == []
    shown = Net(4).add("expand", Conv2D(4, (1, 1)))
    shown.edit.output("features", shown.value)
    assert pairs_of(shown.add("deep", DepthwiseConv2D()).done()) == []


def chain() -> Graph:
    """Two linear blocks of which the second changes little when fused, and is wider."""
    net = Net().add("expand1", Conv2D(4, (1, 1), activation="relu")).add("deep1", DepthwiseConv2D())
    net.add("narrow", Conv2D(2, (2, 2)))
    net.add("expand2", Conv2D(16, (1, 1), use_bias=False)).add("deep2", DepthwiseConv2D())
    return net.done()


@dataclass(frozen=True)
class PerKernel:
    """Milliseconds by kind of convolution, times output channels."""

    depthwise: float
    dense: float
    digest: str = "per kernel"

    def latency_ms(self, graph: Graph) -> float:
        price = {"depthwise_conv2d": self.depthwise, "conv2d": self.dense}
        return sum(
            price.get(node.op.kind, 0) * (node.results[0].shape[-1] or 0) for node in graph.nodes
        )


class PerMac:
    """A millisecond for a thousand multiply-accumulates: dense convolutions never pay."""

    digest = "per mac"

    def latency_ms(self, graph: Graph) -> float:
        return graph.macs / 1e3


def test_without_times_the_block_with_least_harm_and_work_goes() -> None:
    graph = chain()
    made = FuseBlock().apply(graph, context(graph))
    assert "deep2_fused" in made.graph and "deep1" in made.graph
    assert made.graph.node("deep2_fused").loc.passes == ("fuse-block",)
    assert made.notes[0].startswith("%expand2 and %deep2 are one dense 3x3 convolution to 16")
    assert "multiplied out" in made.notes[0]
    assert "MACs" in made.notes[1] and "no times are known" in made.notes[2]
    both = FuseBlock(count=5).apply(graph, context(graph))
    assert {"deep1_fused", "deep2_fused"} <= {node.name for node in both.graph.nodes}
    assert "fitted to" in both.notes[1]


def test_with_times_only_what_gets_faster_goes_and_both_times_are_told() -> None:
    graph = chain()
    with pytest.raises(
        PassError, match=r"nothing that pays in float32: %deep1 would take 2\.94 ms"
    ):
        FuseBlock(storage="float32").apply(graph, context(graph, cost=PerMac()))
    made = FuseBlock(count=2, storage="float32").apply(
        graph, context(graph, cost=PerKernel(1.0, 0.5))
    )
    assert made.notes[-1] == "estimated in float32: 31 ms -> 11 ms"


def test_times_are_those_of_the_storage_to_come() -> None:
    class Integers(PerKernel):
        def latency_ms(self, graph: Graph) -> float:
            assert graph.nodes[0].results[0].quant is not None
            return super().latency_ms(graph)

    graph = chain()
    made = FuseBlock().apply(graph, context(graph, cost=Integers(1.0, 0.0)))
    assert made.notes[-1] == "estimated in int8: 20 ms -> 4 ms"
    assert made.graph.nodes[0].results[0].quant is None


def test_overlapping_pairs_are_not_both_fused() -> None:
    net = Net().add("deep1", DepthwiseConv2D()).add("expand", Conv2D(4, (1, 1)))
    graph = net.add("deep2", DepthwiseConv2D()).done()
    assert pairs_of(graph) == [("deep1", "expand"), ("expand", "deep2")]
    made = FuseBlock(count=2).apply(graph, context(graph)).graph
    assert [node.op.kind for node in made.nodes].count("depthwise_conv2d") == 1


def test_refusals_say_what_is_missing() -> None:
    with pytest.raises(UsageError, match="count is 0, wanted at least 1"):
        FuseBlock(count=0)
    plain = Net().add("conv", Conv2D(4)).done()
    with pytest.raises(PassError, match="found nothing to fuse") as caught:
        FuseBlock().apply(plain, context(plain))
    assert not caught.value.hint
    unfolded = Net(4).add("expand", Conv2D(4, (1, 1))).add("norm", BatchNorm())
    graph = unfolded.add("deep", DepthwiseConv2D()).done()
    with pytest.raises(PassError, match="found nothing to fuse") as caught:
        FuseBlock().apply(graph, context(graph))
    assert caught.value.hint == "put fold-batchnorm before it"
