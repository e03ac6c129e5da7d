import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import GraphError
from lmopt.ir.channels import CHANNEL_AXES, TRANSFER, channel_groups, map_channels, slice_channels
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.importance import channel_importance
from lmopt.ir.ops import (
    OPS,
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Mean,
    Mul,
    Relu,
    Reshape,
)


def test_every_op_is_known_to_the_channel_analysis() -> None:
    assert set(TRANSFER) == set(OPS)


def test_every_weight_has_its_channel_axes() -> None:
    graph = zoo.load("pfld-1.0@none").graph
    for node in graph.nodes:
        assert set(node.weights) <= set(CHANNEL_AXES.get(node.op.kind, {}))


def test_residual_stream_of_pfld_is_one_group() -> None:
    groups = {group.id: group for group in channel_groups(zoo.load("pfld-0.25@none").graph)}
    stream = groups["block6_project"]
    assert stream.sources == tuple(f"block{k}_project" for k in range(6, 13))
    assert (stream.size, stream.removable) == (32, True)
    assert groups["block7_expand"].sources == ("block7_expand",)
    assert not groups["landmarks"].removable


def _net() -> Graph:
    edit = Edit("net")
    image = edit.input("image", (None, 4, 4, 3))
    a = edit.add("a", Conv2D(4), image)
    b = edit.add("b", Conv2D(2, (1, 1)), image)
    joined = edit.add("joined", Concat(), a, b)
    deep = edit.add("deep", DepthwiseConv2D(multiplier=2), joined)
    norm = edit.add("norm", BatchNorm(), deep)
    flat = edit.add("flat", Reshape((4 * 4 * 12,)), norm)
    edit.output("out", edit.add("out", Dense(5), flat))
    return zoo.initialize(edit.done(), 0)


def test_slices_reach_through_concat_multiplier_and_flatten() -> None:
    graph = _net()
    small = slice_channels(graph, {"a": [0, 3], "b": [1]})
    shapes = {f"{n.name}/{k}": w.type.shape for n in small.nodes for k, w in n.weights.items()}
    assert shapes["a/kernel"] == (3, 3, 3, 2)
    assert shapes["b/kernel"] == (1, 1, 3, 1)
    assert shapes["deep/kernel"] == (3, 3, 3, 2)
    assert shapes["norm/gamma"] == (6,)
    assert shapes["out/kernel"] == (4 * 4 * 6, 5)
    rows = graph.node("out").weight("kernel").real().reshape(4, 4, 12, 5)
    kept = rows[:, :, [0, 1, 6, 7, 10, 11]]
    np.testing.assert_array_equal(small.node("out").weight("kernel").real(), kept.reshape(-1, 5))
    np.testing.assert_array_equal(
        small.node("deep").weight("kernel").real(),
        graph.node("deep").weight("kernel").real()[:, :, [0, 3, 5]],
    )


def test_untouched_weights_are_shared() -> None:
    graph = _net()
    small = slice_channels(graph, {"a": [0]})
    assert small.node("b").weight("kernel") is graph.node("b").weight("kernel")


def test_uninitialised_graphs_are_sliced_by_shape() -> None:
    graph = zoo.load("one-pool@none").graph
    small = slice_channels(graph, {"conv3": range(16)})
    assert small.node("dense1").weight("kernel").type.shape == (46 * 46 * 16, 1000)
    assert not small.is_initialized


def test_constants_and_gates_are_tied_to_what_they_scale() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 4, 4, 3))
    a = edit.add("a", Conv2D(4), image)
    scaled = edit.add("scaled", Mul(), a, edit.add("factor", Constant((4,))))
    gate = edit.add("gate", Reshape((1, 1, 4)), edit.add("g", Dense(4), edit.add("m", Mean(), a)))
    gated = edit.add("gated", Mul(), scaled, gate)
    edit.output("out", edit.add("out", Dense(2), edit.add("mean", Mean(), gated)))
    graph = edit.done()
    assert [(g.id, g.sources, g.removable) for g in channel_groups(graph)] == [
        ("a", ("a", "g"), True),
        ("out", ("out",), False),
    ]
    small = slice_channels(graph, {"a": [1, 2]})
    assert small.node("factor").op == Constant((2,))
    assert small.node("gate").op == Reshape((1, 1, 2))


def test_pinned_channels_stay() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 4, 4, 4))
    on_input = edit.add("on_input", Add(), edit.add("a", Conv2D(4), image), image)
    grouped = edit.add("grouped", Conv2D(4, groups=2), edit.add("b", Conv2D(4), on_input))
    mixed = edit.add("mixed", Reshape((8, 8)), edit.add("c", Conv2D(4), grouped))
    edit.output("out", edit.add("relu", Relu(), mixed))
    graph = edit.done()
    assert {g.id: g.removable for g in channel_groups(graph)} == dict.fromkeys(
        ("a", "b", "grouped", "c"), False
    )
    with pytest.raises(GraphError, match="group 'b' cannot be removed"):
        slice_channels(graph, {"b": [0]})


def test_bad_positions_and_groups_are_refused() -> None:
    with pytest.raises(GraphError, match="channels 0 to 3"):
        slice_channels(_net(), {"a": []})
    with pytest.raises(GraphError, match="no channel group 'x'"):
        slice_channels(_net(), {"x": [0]})


def test_importance_is_blind_to_a_factor_moved_between_kernels() -> None:
    graph = zoo.initialize(zoo.load("pfld-0.25@none").graph, 1)
    edit = Edit.of(graph)
    factors = np.linspace(0.1, 4.0, 128).astype(np.float32)
    expand, project = graph.node("block7_expand"), graph.node("block7_project")
    edit.set_weights("block7_expand", kernel=expand.weight("kernel").real() * factors)
    edit.set_weights(
        "block7_project", kernel=project.weight("kernel").real() / factors[:, np.newaxis]
    )
    moved = edit.done()
    channels = map_channels(graph)
    group = channels.group("block7_expand")
    before = channel_importance(graph, channels, group)
    after = channel_importance(moved, channels, group)
    np.testing.assert_allclose(after / after.mean(), before / before.mean(), rtol=1e-4)
    assert before.std() > 0.1


def test_batch_norm_gain_counts() -> None:
    graph = zoo.initialize(zoo.load("pfld-0.25@none").graph, 1)
    gamma = np.ones(64, np.float32)
    gamma[5] = 0.0
    edit = Edit.of(graph)
    edit.set_weights("stem_bn", gamma=gamma)
    silenced = edit.done()
    channels = map_channels(silenced)
    importance = channel_importance(silenced, channels, channels.group("stem"))
    assert importance[5] == 0
    assert (np.delete(importance, 5) > 0).all()
