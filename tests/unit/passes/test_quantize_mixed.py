from dataclasses import dataclass, replace

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
from lmopt.target.catalog import load_target
from lmopt.target.profile import Target
from lmopt.testing import run_on_runtime
from lmopt_passes import quantize_mixed
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


@dataclass(frozen=True)
class ByBits:
    """A target on which a node takes as long as it has bits."""

    digest: str = "by bits"

    def latency_ms(self, graph: Graph) -> float:
        return float(sum(8 * node.results[0].dtype.numpy.itemsize for node in graph.nodes))


CPU = load_target("p30-cpu")
"""Runs int16x8; velvet-apu does not."""


def exact_kernels() -> Graph:
    """The same with kernels that int8 holds exactly: only activations are rounded."""
    graph = detector()
    edit = graph.edit()
    for number, name in enumerate((*CONVOLUTIONS, "head")):
        shape = graph.node(name).weight("kernel").type.shape
        steps = np.random.default_rng(number).integers(-127, 128, shape)
        steps.reshape(-1, shape[-1])[0] = 127
        edit.set_weights(name, kernel=(steps / 127).astype(np.float32))
    return edit.done()


def expected_drop(graph: Graph, reference: Graph) -> float:
    return DistanceScorer(reference).expected_drop(graph, reference)


def test_parts_have_sixteen_bits_where_eight_harm_them_and_they_are_faster_than_float():
    graph = exact_kernels()
    ctx = replace(context(graph, (Need.COST, ByBits())), target=CPU)
    everywhere = QuantizeMixed(100, float_head=False, equalize=False).apply(graph, ctx)
    limit = 0.8 * expected_drop(everywhere.graph, graph)
    made = QuantizeMixed(limit, float_head=False, equalize=False)
    result = made.apply(graph, ctx)
    assert expected_drop(result.graph, graph) <= limit
    kinds = {result.graph.node(name).results[0].dtype for name in (*CONVOLUTIONS, "head")}
    assert kinds == {DType.I8, DType.I16}
    assert "segments stay in 16 bits: %" in result.notes[1]
    images = {"image": np.random.default_rng(1).integers(0, 256, (2, 8, 8, 4)).astype(np.uint8)}
    want = run_on_runtime(result.graph, images)["landmarks"]
    np.testing.assert_array_equal(run(result.graph, images)["landmarks"], want)
    narrow = replace(made, int16="no").apply(graph, ctx)
    assert DType.I16 not in {node.results[0].dtype for node in narrow.graph.nodes}
    assert ByBits().latency_ms(narrow.graph) > ByBits().latency_ms(result.graph)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (load_target("velvet-apu"), "no segment has 16 bits on velvet-apu: not legal, NNAPI 1.2"),
        (replace(CPU, quantities={}), "no segment has 16 bits on p30-cpu: there is no rate for it"),
    ],
)
def test_where_sixteen_bits_cannot_be_had_a_note_says_so_if_asked(target: Target, told: str):
    graph = detector()
    ctx = replace(context(graph, (Need.COST, ByBits())), target=target)
    notes = [QuantizeMixed(100, int16=asked).apply(graph, ctx).notes for asked in ("yes", "auto")]
    assert notes[0][0].startswith(told)
    assert not any("16 bits" in note for note in notes[1])


def test_a_target_that_prefers_the_other_storage_is_told_of():
    graph = detector()
    ctx = replace(context(graph, (Need.COST, ByBits())), target=load_target("velvet-apu"))
    signed, unsigned = (
        QuantizeMixed(100, storage=storage).apply(graph, ctx).notes for storage in ("int8", "uint8")
    )
    assert "velvet-apu prefers the other: storage=uint8" in signed
    assert not any("prefers the other" in note for note in unsigned)


def test_without_a_target_sixteen_bits_count_half_when_asked_for():
    graph = exact_kernels()
    asked, left = (
        QuantizeMixed(3.0, float_head=False, equalize=False, int16=int16)
        .apply(graph, context(graph))
        .graph
        for int16 in ("yes", "auto")
    )
    assert DType.I16 in {node.results[0].dtype for node in asked.nodes}
    assert DType.I16 not in {node.results[0].dtype for node in left.nodes}


def test_after_its_minutes_the_rest_is_float_and_a_note_says_how_much_was_tried(monkeypatch):
    graph = detector()
    clock = iter(range(1000))
    monkeypatch.setattr(quantize_mixed.time, "monotonic", lambda: 60.0 * next(clock))
    result = QuantizeMixed(100, segments=4, minutes=3).apply(graph, context(graph))
    assert any(note.startswith("3 minutes were over with 2 of 4 choices") for note in result.notes)
    assert 0 < len(real_nodes(result.graph)) < 6
    none = QuantizeMixed(100, minutes=0).apply(graph, context(graph))
    assert real_nodes(none.graph) == {*CONVOLUTIONS, "pool", "mean", "head"}
    with pytest.raises(UsageError, match="minutes is -1"):
        QuantizeMixed(minutes=-1)


def test_every_look_is_told_of_before_it_is_taken():
    graph, told = detector(), list[tuple[str, int, int]]()
    heard = replace(context(graph), tell=lambda *event: told.append(event))
    QuantizeMixed(0.0, "uint8", segments=4, float_head=False).apply(graph, heard)
    segments = [event for event in told if event[0].startswith("looking at what each segment")]
    assert segments == [(segments[0][0], done, 4) for done in range(4)]
    mixtures = [event for event in told if event[0] == "looking at mixtures of them"]
    assert [done for _, done, _ in mixtures] == list(range(len(mixtures))) and mixtures


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
