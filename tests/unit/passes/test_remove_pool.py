"""remove-pool: what the larger graph still computes, what is fitted, what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.errors import GraphError, PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    HeatmapDecode,
    MaxPool2D,
    Pad,
    Relu,
    Reshape,
)
from lmopt.ir.unstride import remove_stride
from lmopt.ir.verify import verify
from lmopt.pipeline.base import PassContext, PassResult
from lmopt.runtime.parity import prove
from lmopt.testing.float_graphs import graphs
from lmopt_passes.insert_pool import InsertPool
from lmopt_passes.remove_pool import RemovePool


def apply(graph: Graph, node: str = "auto", **options: bool) -> PassResult:
    return RemovePool(node, **options).apply(graph, PassContext())


def pictures(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    shape = (2, *graph.inputs[0].results[0].shape[1:])
    return {"image": np.random.default_rng(seed).uniform(size=shape).astype(np.float32)}


def distance(graph: Graph, other: Graph) -> float:
    """Returns how far answers lie from another graph's, relative to their size."""
    image = pictures(graph)
    wanted, found = run(graph, image)["landmarks"], run(other, image)["landmarks"]
    return float(np.abs(found - wanted).mean() / np.abs(wanted).mean())


def test_basic_becomes_two_pool_becomes_one_pool() -> None:
    options = {"dilate": False, "keep_window": False}
    two = apply(zoo.load("basic@none").graph, "pool1", **options).graph
    assert two.parameters == zoo.load("two-pool@none").graph.parameters
    assert two.macs == zoo.load("two-pool@none").graph.macs
    one = apply(two, "pool2", **options).graph
    assert one.parameters == zoo.load("one-pool@none").graph.parameters


def test_what_starts_nearer_to_the_old_function() -> None:
    graph = zoo.initialize(small("pool"), 0)
    moved = {
        (dilate, keep): distance(graph, apply(graph, "stride", **options).graph)
        for dilate in (True, False)
        for keep in (True, False)
        for options in ({"dilate": dilate, "keep_window": keep},)
    }
    assert moved[True, True] < 1e-5 < 0.1 < min(moved[False, True], moved[True, False])
    padded = apply(graph, "stride").graph
    assert padded.node("down_pad").op == Pad(bottom=3, right=3)
    assert padded.node("down").op.padding == "valid"


def small(kind: str) -> Graph:
    """A pool or stride, a residual, a later stride and a head that reads the whole map."""
    edit = Edit("small")
    image = edit.input("image", (None, 24, 24, 3))
    x = edit.add("stem", Conv2D(6, activation="relu"), image)
    strided = MaxPool2D() if kind == "pool" else DepthwiseConv2D(stride=(2, 2))
    x = edit.add("stride", strided, x)
    deep = edit.add("deep", DepthwiseConv2D(activation="relu"), x)
    x = edit.add("sum", Add(), x, edit.add("project", Conv2D(6, (1, 1)), deep))
    x = edit.add("down", Conv2D(8, stride=(2, 2), activation="relu"), x)
    x = edit.add("whole", Conv2D(5, (6, 6), padding="valid", use_bias=False), x)
    edit.output("landmarks", edit.add("landmarks", Dense(4), edit.add("flat", Reshape(), x)))
    return edit.done()


def test_a_stride_before_a_residual_leaves_the_function_as_it_was() -> None:
    graph = zoo.initialize(small("stride"), 0)
    result = apply(graph, "stride")
    assert result.graph.node("deep").op.dilation == (2, 2)
    assert result.graph.node("down").op == Conv2D(
        8, stride=(2, 2), dilation=(2, 2), activation="relu"
    )
    assert result.graph.node("project").op == graph.node("project").op
    assert result.graph.node("whole").results[0].shape == (None, 1, 1, 5)
    assert "kernel of %whole 6x6x8x5 -> 12x12x8x5" in result.notes
    assert distance(graph, result.graph) < 1e-5
    assert distance(graph, apply(graph, "stride", dilate=False).graph) > 0.1


def test_an_old_pixel_in_the_middle_of_two_is_read_from_both() -> None:
    edit = Edit("net")
    x = edit.add("pool", AvgPool2D((2, 1), (2, 1)), edit.input("image", (None, 4, 1, 1)))
    kernel = np.float32([[2], [6]])
    x = edit.add("flat", Reshape(), x)
    edit.output("y", edit.add("y", Dense(1, use_bias=False), x, weights={"kernel": kernel}))
    rows = apply(edit.done(), "pool", keep_window=False).graph.node("y").weight("kernel").real()
    assert rows[:, 0].tolist() == [1, 1, 3, 3]


def test_auto_takes_the_stride_nearest_to_double_the_macs() -> None:
    result = apply(zoo.load("pfld-0.25@none").graph)
    assert result.notes[0].startswith("the stride of %block1_depthwise removed (28x28 -> 56x56)")


@pytest.mark.parametrize("size", [2, 3])
def test_an_inserted_pool_goes_again(size: int) -> None:
    graph = zoo.initialize(small("stride"), 3)
    pooled = InsertPool("stem", size).apply(graph, PassContext()).graph
    assert distance(graph, pooled) > 0.1
    assert distance(pooled, apply(pooled, "stem_pool").graph) < 1e-5
    back = apply(pooled, "stem_pool", dilate=False, keep_window=False).graph
    assert [node.name for node in back.nodes] == [node.name for node in graph.nodes]
    assert back.macs == graph.macs and back.parameters == graph.parameters
    # Rows of the kernel were summed and are parted again: as many as before, of the same sum.
    sums = [each.node("whole").weight("kernel").real().sum(axis=(0, 1)) for each in (graph, back)]
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-4, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_dilated_convolutions_compute_the_same_on_the_old_pixels(data: st.DataObject) -> None:
    """Any stride, then any convolutions: the old map is the new one at every `scale`-th pixel."""
    draw = data.draw
    edit = Edit("net")
    side = draw(st.integers(20, 26))
    x = edit.input("image", (None, side, side + 3, 2))
    scale = draw(st.integers(2, 3))
    # One padding for all: what a valid stride leaves over is no zero to a later padding.
    rule = draw(st.sampled_from(["same", "valid"]))
    padding = st.just(rule)
    kinds = ["conv", "depthwise", "relu"] + ["pad"] * (rule == "same")
    first = draw(st.sampled_from(["conv", "depthwise", "max", "avg"]))
    window = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pool = {"max": MaxPool2D, "avg": AvgPool2D}
    if first in pool:
        op = pool[first](window, (scale, scale), draw(padding))
    elif first == "conv":
        op = Conv2D(3, window, (scale, scale), padding=draw(padding))
    else:
        op = DepthwiseConv2D(window, (scale, scale), padding=draw(padding))
    x = edit.add("stride", op, x)
    for index in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(kinds)):
            case "conv":
                kernel, rate = draw(st.sampled_from([((1, 1), 1), ((3, 1), 2), ((3, 3), 1)]))
                op = Conv2D(3, kernel, dilation=(rate, 1), padding=draw(padding))
            case "depthwise":
                op = DepthwiseConv2D(stride=(draw(st.integers(1, 2)),) * 2, padding=draw(padding))
            case "pad":
                op = Pad(draw(st.integers(0, 2)), 1, 0, 1)
            case _:
                op = Relu()
        try:
            x = edit.add(f"layer{index}", op, x)
        except GraphError:  # nothing is left of the map
            break
    edit.output("landmarks", edit.add("head", Dense(3), edit.add("flat", Reshape(), x)))
    _require_found_again(zoo.initialize(edit.done(), 1), x.node, scale)


def test_valid_windows_go_on_reading_where_the_old_pixels_lie() -> None:
    """Columns of the old map are the odd ones of the new, between which a stride would start."""
    edit = Edit("net")
    x = edit.input("image", (None, 20, 23, 2))
    x = edit.add("stride", MaxPool2D((1, 3), (2, 2), "valid"), x)
    x = edit.add("windows", DepthwiseConv2D(stride=(2, 2), padding="valid"), x)
    edit.output("landmarks", edit.add("head", Dense(3), edit.add("flat", Reshape(), x)))
    _require_found_again(zoo.initialize(edit.done(), 1), "windows", 2)


def _require_found_again(graph: Graph, name: str, scale: int) -> None:
    """Requires that the old map is the new one at every `scale`-th pixel, and the same answer."""
    high, wide = graph.node(name).results[0].shape[1:3]
    larger, _ = remove_stride(graph, "stride", "test", dilate=True)
    values = [run(each, pictures(graph), all_values=True) for each in (graph, larger)]
    old, new = values[0][name], values[1][name]
    found = [
        (row, column)
        for row in range(scale)
        for column in range(scale)
        if (piece := new[:, row::scale, column::scale][:, :high, :wide]).shape == old.shape
        and np.allclose(piece, old, rtol=1e-4, atol=1e-5)
    ]
    assert found, (old.shape, new.shape)
    np.testing.assert_allclose(values[1]["head"], values[0]["head"], rtol=1e-3, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(graph=graphs(max_nodes=12), dilate=st.booleans(), keep=st.booleans())
def test_any_graph_grows_or_says_why_not(graph: Graph, dilate: bool, keep: bool) -> None:
    try:
        result = apply(graph, dilate=dilate, keep_window=keep)
    except PassError as error:
        assert error.what
        return
    verify(result.graph)
    kept = [result.graph.type(value) for _, value in result.graph.outputs]
    assert kept == [graph.type(value) for _, value in graph.outputs]
    assert result.changed and result.notes


def test_wrong_nodes() -> None:
    graph = zoo.load("pfld-0.25@none").graph
    with pytest.raises(PassError, match="no node 'stm'") as caught:
        apply(graph, "stm")
    assert caught.value.hint == "did you mean 'stem'?"
    with pytest.raises(
        PassError, match="a pool or a convolution with a stride, got dense"
    ) as error:
        apply(graph, "landmarks")
    assert error.value.hint == "those are stem, block1_depthwise, block6_depthwise, s2"


def test_what_cannot_grow_is_refused() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 8, 8, 3))
    a = edit.add("a", Conv2D(4, stride=(2, 2)), image)
    b = edit.add("b", Conv2D(4, stride=(2, 2)), image)
    edit.output("landmarks", edit.add("decode", HeatmapDecode(), edit.add("sum", Add(), a, b)))
    with pytest.raises(PassError, match=r"%sum: remove-pool of %a does not fit: its operands"):
        apply(edit.done(), "a")
    with pytest.raises(PassError, match="no pool and no stride that can go"):
        apply(edit.done())
    edit = Edit("net")
    edit.output("map", edit.add("a", MaxPool2D(), edit.input("image", (None, 8, 8, 3))))
    with pytest.raises(PassError, match=r"%a: .*its map is an output"):
        apply(edit.done(), "a")


def test_the_file_computes_what_the_graph_says() -> None:
    graph = apply(zoo.initialize(small("stride"), 0), "stride").graph
    assert prove(graph, emit(graph), pictures(graph), "small").unchecked == ()
