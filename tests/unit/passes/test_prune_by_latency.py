"""prune to a share of the time that is estimated for a target."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lmopt import zoo
from lmopt.cost.estimate import TargetCost
from lmopt.errors import PassError
from lmopt.ir.channels import channel_groups
from lmopt.ir.graph import Graph
from lmopt.pipeline.base import Need, PassContext
from lmopt.pipeline.manager import Pipeline
from lmopt.target.catalog import load_target
from lmopt_passes.prune import Prune


def on(target: str) -> PassContext:
    found = load_target(target)
    return PassContext(target=found, services={Need.COST: TargetCost(found)})


@pytest.fixture(scope="module")
def detector() -> Graph:
    build = zoo.DETECTORS["pfld-0.25"].folded
    assert build is not None
    return zoo.initialize(build(), 0)


def test_the_asked_share_of_the_time_goes(detector: Graph) -> None:
    ctx = on("p30-cpu")
    before = ctx.cost.latency_ms(detector)
    result = Prune(0.3, by="latency").apply(detector, ctx)
    after = ctx.cost.latency_ms(result.graph)
    assert 0.6 * before <= after <= 0.7 * before
    assert result.notes[1] == f"estimated {before:.3f} ms -> {after:.3f} ms"
    sizes = [group.size for group in channel_groups(result.graph) if group.removable]
    assert all(size % 8 == 0 for size in sizes)
    assert ctx.reads[Need.COST] == TargetCost(load_target("p30-cpu")).digest


@dataclass(frozen=True)
class LayerCost:
    """Times of a machine on which one layer alone takes time, in whole vectors of channels."""

    layer: str
    vector: int = 8
    digest: str = "one layer"

    def latency_ms(self, graph: Graph) -> float:
        channels = graph.node(self.layer).results[0].shape[-1] or 1
        return 1 + -(-channels // self.vector)


@pytest.mark.parametrize("layer", ["stem", "block9_expand"])
def test_channels_go_where_they_take_time(detector: Graph, layer: str) -> None:
    ctx = PassContext(services={Need.COST: LayerCost(layer)})
    small = Prune(0.5, by="latency").apply(detector, ctx).graph
    lost = {
        node.name: (node.results[0].shape[-1] or 1) - (small.node(node.name).results[0].shape[-1])
        for node in detector.nodes
        if node.op.kind == "conv2d"
    }
    assert LayerCost(layer).latency_ms(small) <= 0.5 * LayerCost(layer).latency_ms(detector)
    assert lost[layer] > 0
    assert {name for name, gone in lost.items() if gone} == {layer}


def test_a_share_out_of_reach_is_told_in_milliseconds(detector: Graph) -> None:
    with pytest.raises(PassError, match=r"cannot remove 99% of 9\.000 ms: .* 2\.000 ms remain"):
        ctx = PassContext(services={Need.COST: LayerCost("stem")})
        Prune(0.99, by="latency").apply(detector, ctx)


def test_only_a_latency_needs_and_follows_a_target() -> None:
    by_time = Prune(by="latency")
    assert by_time.required() == {Need.COST}
    assert by_time.follows_target()
    assert not Prune().follows_target()
    assert not Prune(method="magnitude", by="latency").follows_target()
    with pytest.raises(PassError, match="prune needs"):
        Pipeline((by_time,)).check(PassContext())


def test_macs_ask_nothing_of_the_target(detector: Graph) -> None:
    ctx = on("p30-cpu")
    Prune(0.3).apply(detector, ctx)
    assert Need.COST not in ctx.reads
