from dataclasses import dataclass

import numpy as np
import pytest

from lmopt.errors import UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, Dense, MaxPool2D, Mean
from lmopt.ir.types import DType
from lmopt.pipeline.base import Need, PassContext
from lmopt.quant.segment import segments_of
from lmopt_passes.quantize_mixed import QuantizeMixed
from tests.support.services import DistanceScorer, DrawnCalibrator

CONVOLUTIONS = ("stem", "uneven", "even")


def detector() -> Graph:
    """Three convolutions, the second with kernels of very different size, and a dense layer."""
    edit = Edit("small")
    rng = np.random.default_rng(0)
    x = edit.input("image", (None, 8, 8, 4))
    for name in CONVOLUTIONS:
        kernel = rng.normal(0, 0.2, (3, 3, 4, 4)).astype(np.float32)
        if name == "uneven":
            kernel[..., 0] *= 300
        if name == "even":
            kernel[:, :, 0] /= 300  # undoes it: the result depends on the small ones as much
        x = edit.add(name, Conv2D(4, use_bias=False), x, weights={"kernel": kernel})
        if name == "stem":
            x = edit.add("pool", MaxPool2D(), x)
    kernel = rng.normal(size=(4, 10)).astype(np.float32)
    mean = edit.add("mean", Mean(), x)
    edit.output(
        "landmarks", edit.add("head", Dense(10, use_bias=False), mean, weights={"kernel": kernel})
    )
    return edit.done()


@dataclass(frozen=True)
class IntegersAreSlow:
    """A target on which every integer node costs a millisecond and nothing else does."""

    digest: str = "slow integers"

    def latency_ms(self, graph: Graph) -> float:
        return float(sum(node.results[0].dtype is not DType.F32 for node in graph.nodes))


def context(graph: Graph, *more: tuple[Need, object]) -> PassContext:
    services = {Need.CALIBRATOR: DrawnCalibrator(), Need.SCORER: DistanceScorer(graph)}
    return PassContext(services={**services, **dict(more)})


def real_nodes(graph: Graph) -> set[str]:
    names = {*CONVOLUTIONS, "pool", "mean", "head"}
    return {name for name in names if graph.node(name).results[0].dtype is DType.F32}


def test_what_eight_bits_harm_stays_real_and_the_rest_does_not():
    graph = detector()
    scorer = DistanceScorer(graph)
    everywhere = QuantizeMixed(100, "uint8", float_head=False).apply(graph, context(graph)).graph
    assert real_nodes(everywhere) == set()
    limit = scorer.nme_percent(everywhere) / 4
    result = QuantizeMixed(limit, "uint8", float_head=False).apply(graph, context(graph))
    assert scorer.nme_percent(result.graph) <= limit
    # uint8 kernels have one scale: that of the large ones.
    assert "uneven" in real_nodes(result.graph)
    assert "stem" not in real_nodes(result.graph)
    assert "stay in float32: %" in result.notes[0]


def test_no_loss_at_all_is_float32():
    graph = detector()
    result = QuantizeMixed(0.0, input="float32").apply(graph, context(graph)).graph
    images = np.random.default_rng(1).random((2, 8, 8, 4)).astype(np.float32)
    got, want = (run(g, {"image": images})["landmarks"] for g in (result, graph))
    assert real_nodes(result) == {*CONVOLUTIONS, "pool", "mean", "head"}
    np.testing.assert_allclose(got, want, atol=2 / 255 * np.abs(want).max())


def test_where_integers_are_slower_nothing_is_integer():
    graph = detector()
    ctx = context(graph, (Need.COST, IntegersAreSlow()))
    result = QuantizeMixed(100).apply(graph, ctx)
    assert real_nodes(result.graph) == {*CONVOLUTIONS, "pool", "mean", "head"}
    assert ctx.reads[Need.COST] == "slow integers"
    assert result.notes[1].startswith("no part is both faster in integers")
    alone = QuantizeMixed(100).apply(graph, context(graph))
    assert alone.notes[1] == "no times are known: multiply-accumulates stand for them"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_segments_are_runs_of_nodes_that_begin_at_kernels(count: int):
    graph = detector()
    parts = segments_of(graph, count)
    order = [node.name for node in graph.nodes if node.op.kind != "input"]
    assert len(parts) == min(count, 4)
    assert [name for part in parts for name in order if name in part] == order
    for part in parts:
        assert min(part, key=order.index) in {*CONVOLUTIONS, "head"}
    if count == 3:  # the two with the least work: what is behind the pool
        assert parts[-1] == {"even", "mean", "head"} or parts[1] == {"uneven", "even"}


def test_no_segments_are_refused():
    with pytest.raises(UsageError, match="segments is 0"):
        QuantizeMixed(segments=0)
