import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.types import DType, Weight
from lmopt.pipeline.base import PassContext
from lmopt_passes.scale_width import ScaleWidth, aligned


def test_half_of_every_layer_is_kept() -> None:
    graph = zoo.initialize(zoo.load("pfld-0.25@none").graph, 0)
    result = ScaleWidth(0.5).apply(graph, PassContext())
    widths = [n.op.filters for n in result.graph.nodes if n.op.kind == "conv2d"]
    assert widths == [n.op.filters // 2 for n in graph.nodes if n.op.kind == "conv2d"]
    assert result.graph.parameters == 91_952
    assert result.graph.node("landmarks").results == graph.node("landmarks").results
    assert result.notes == (
        "704 of 1408 channels kept; MACs 52.4 M -> 15.7 M, parameters 320,608 -> 91,952",
    )


def test_the_strongest_channels_are_inherited_in_order() -> None:
    graph = zoo.initialize(zoo.load("basic@none").graph, 0)
    kernel = graph.node("conv1").weight("kernel").real().copy()
    strong = [3, 8, 21, 30]
    kernel[..., strong] *= 100
    edit = Edit.of(graph)
    edit.set_weights("conv1", kernel=kernel)
    small = ScaleWidth(0.125).apply(edit.done(), PassContext()).graph
    np.testing.assert_array_equal(small.node("conv1").weight("kernel").real(), kernel[..., strong])


def test_untrained_graphs_keep_their_first_channels() -> None:
    small = ScaleWidth(0.25).apply(zoo.load("one-pool@none").graph, PassContext()).graph
    assert small.node("dense1").weight("kernel").type.shape == (46 * 46 * 16, 250)


def test_factor_one_changes_nothing() -> None:
    graph = zoo.load("basic@none").graph
    result = ScaleWidth(1.0).apply(graph, PassContext())
    assert not result.changed
    assert result.graph is graph


@pytest.mark.parametrize(
    ("count", "align", "size", "kept"),
    [(3, 1, 16, 3), (3, 8, 16, 8), (9, 8, 16, 16), (0, 1, 16, 1), (3, 8, 6, 6)],
)
def test_alignment_rounds_up_within_the_layer(count: int, align: int, size: int, kept: int) -> None:
    assert aligned(count, align, size) == kept


@pytest.mark.parametrize("factor", [0.0, 1.5, -1.0, float("nan")])
def test_a_factor_out_of_range_is_a_usage_error(factor: float) -> None:
    with pytest.raises(UsageError, match="factor is"):
        ScaleWidth(factor)


def test_half_precision_is_refused_with_the_order_to_use() -> None:
    graph = zoo.initialize(zoo.load("basic@none").graph, 0)
    edit = Edit.of(graph)
    half = Weight.of(graph.node("conv2").weight("kernel").real().astype(DType.F16.numpy))
    edit.set_weights("conv2", kernel=half)
    with pytest.raises(PassError, match=r"%conv2: scale-width works on float32 graphs") as caught:
        ScaleWidth().apply(edit.done(), PassContext())
    assert "put scale-width before" in str(caught.value)
