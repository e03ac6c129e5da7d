"""Removing channels that are always zero changes no output."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmopt import zoo
from lmopt.errors import PassError
from lmopt.ir.channels import ChannelMap, map_channels, slice_channels
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    HardSwish,
    LeakyRelu,
    Maximum,
    MaxPool2D,
    Mean,
    MirrorPad,
    Mul,
    Pad,
    PRelu,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Slice,
    Square,
    Sub,
    Tanh,
    Transpose,
)
from lmopt.ir.verify import verify
from lmopt.pipeline.base import Need, PassContext
from lmopt.testing.float_graphs import graphs
from lmopt_passes.insert_pool import InsertPool
from lmopt_passes.prune import Prune
from lmopt_passes.scale_width import ScaleWidth
from tests.support.services import DrawnCalibrator

ZERO_KEEPING = (Relu(), Relu6(), LeakyRelu(0.1), PRelu(), Tanh(), HardSwish())


class Net:
    """A random net of everything that ties channels together."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.edit = Edit("net")

    def build(self, depth: int) -> Graph:
        x = self.edit.input("image", (None, 6, 6, 2))
        x = self.conv(x, int(self.rng.integers(2, 7)))
        for _ in range(depth):
            x = self.layer(x)
        tail = self.add(Reshape(), x) if self.rng.random() < 0.5 else self.add(Mean(), x)
        parts = [tail, self.add(Mean(), self.conv(x, 3)), self.add(Mean(), x)]
        features = self.add(Concat(), *parts)
        hidden = self.add(Dense(5, activation="relu"), features)
        self.edit.output("landmarks", self.add(Dense(4), hidden))
        if self.rng.random() < 0.2:
            self.edit.output("map", x)
        return self.fill(self.edit.done())

    def add(self, op, *inputs: Value) -> Value:
        return self.edit.add(self.edit.fresh(op.kind), op, *inputs)

    def channels(self, x: Value) -> int:
        return self.edit.node(x.node).results[0].shape[-1]

    def conv(self, x: Value, filters: int) -> Value:
        x = self.add(Conv2D(filters, use_bias=bool(self.rng.random() < 0.5)), x)
        if self.rng.random() < 0.5:
            x = self.add(BatchNorm(), x)
        return self.add(ZERO_KEEPING[self.rng.integers(len(ZERO_KEEPING))], x)

    def layer(self, x: Value) -> Value:
        width = self.channels(x)
        match int(self.rng.integers(13)):
            case 0:
                return self.conv(x, int(self.rng.integers(1, 7)))
            case 1:
                multiplier = int(self.rng.integers(1, 3))
                return self.add(DepthwiseConv2D(multiplier=multiplier), x)
            case 2:
                return self.add(Add(), x, self.conv(x, width))
            case 3:
                return self.add(Sub(), self.conv(x, width), x)
            case 4:
                return self.add(Concat(), x, self.conv(x, 3), x)
            case 5:
                gate = self.add(Dense(width), self.add(Mean(), x))
                gate = self.add(Reshape((1, 1, width)), self.add(Sigmoid(), gate))
                return self.add(Mul(), x, gate)
            case 6:
                pool = MaxPool2D if self.rng.random() < 0.5 else AvgPool2D
                return self.add(pool((2, 2), (1, 1), padding="same"), x)
            case 7:
                return self.add(Pad(1, 0, 0, 1), x)
            case 8:
                stride = (1, int(self.rng.integers(1, 3)))
                up = Conv2DTranspose(int(self.rng.integers(1, 7)), stride=stride)
                return self.add(Relu(), self.add(up, x))
            case 9:
                return self.add(Slice((1, 0, 0), (-1, -1, -1), (1, 1, 1)), self.add(Pad(1), x))
            case 10:
                return self.add(Transpose((0, 2, 1, 3)), self.add(MirrorPad(1, 0, 0, 1), x))
            case 11:
                return self.add(Maximum(), self.add(Square(), x), self.conv(x, width))
            case _:
                return self.add(Add(), x, x)

    def fill(self, graph: Graph) -> Graph:
        edit = Edit.of(graph)
        for node in graph.nodes:
            drawn = {
                k: self.rng.uniform(0.5, 1.5, w.type.shape).astype(np.float32)
                * (1 if k == "variance" else self.rng.choice([-1, 1], w.type.shape))
                for k, w in node.weights.items()
            }
            if drawn:
                edit.set_weights(node.name, **{k: np.float32(v) for k, v in drawn.items()})
        return edit.done()


def silence(graph: Graph, channels: ChannelMap, dead: NDArray[np.bool_]) -> Graph:
    """Returns the graph with every value of the dead channels equal to 0."""
    edit = Edit.of(graph)
    for node in graph.nodes:
        mask = dead[channels.of[node.value]]
        keys = {"bias", "beta", "mean"} | (
            {"kernel"} if node.op.kind in ("conv2d", "conv2d_transpose", "dense") else set()
        )
        changed = {k: node.weights[k].real().copy() for k in keys & node.weights.keys()}
        for array in changed.values():
            array[..., mask] = 0
        if changed:
            edit.set_weights(node.name, **changed)
    return edit.done()


def drop(channels: ChannelMap, keep: Mapping[str, list[int]]) -> NDArray[np.bool_]:
    dead = np.zeros(channels.count, bool)
    for id, kept in keep.items():
        numbers = np.array(channels.group(id).channels)
        dead[np.delete(numbers, kept)] = True
    return dead


def image(graph: Graph, seed: int) -> dict[str, NDArray[np.float32]]:
    shape = (2, *graph.inputs[0].results[0].shape[1:])
    return {"image": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def assert_same(left: Graph, right: Graph, seed: int) -> None:
    before, after = run(left, image(left, seed)), run(right, image(right, seed))
    for name, array in before.items():
        assert after[name].shape == array.shape
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-4 * np.abs(array).max())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(0, 6))
def test_slicing_away_silent_channels_is_exact(seed: int, depth: int) -> None:
    graph = Net(seed).build(depth)
    channels = map_channels(graph)
    rng = np.random.default_rng(seed)
    keep: dict[str, list[int]] = {}
    for group in channels.groups:
        if group.removable:
            count = int(rng.integers(1, group.size + 1))
            keep[group.id] = sorted(rng.choice(group.size, count, replace=False).tolist())
    silent = silence(graph, channels, drop(channels, keep))
    sliced = slice_channels(silent, keep, channels)
    assert_same(silent, sliced, seed)
    for id, kept in keep.items():
        made = sliced.node(channels.group(id).sources[0]).results[0].shape[-1]
        if all(
            len(set(g.sources) & set(channels.group(id).sources)) == 0
            for g in channels.groups
            if g.id != id
        ):
            assert made == len(kept)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(0, 6), factor=st.floats(0.1, 1.0))
def test_scaled_nets_verify_and_keep_their_outputs(seed: int, depth: int, factor: float) -> None:
    graph = Net(seed).build(depth)
    result = ScaleWidth(factor).apply(graph, PassContext()).graph
    assert result.macs <= graph.macs
    assert [result.type(v) for _, v in result.outputs] == [graph.type(v) for _, v in graph.outputs]


@pytest.mark.parametrize("folded", [False, True])
def test_pruning_takes_the_silent_channels_first(folded: bool) -> None:
    graph = zoo.initialize(zoo.DETECTORS["pfld-0.25"].build(), 5)
    if folded:
        build = zoo.DETECTORS["pfld-0.25"].folded
        assert build is not None
        graph = zoo.initialize(build(), 5)
    channels = map_channels(graph)
    keep = {
        g.id: list(range(1, g.size, 2))
        for g in channels.groups
        if g.removable and g.id not in ("block13_project", "s2", "s3")
    }
    silent = silence(graph, channels, drop(channels, keep))
    only_silent = slice_channels(silent, keep, channels)
    amount = 1 - only_silent.macs / graph.macs
    pruned = Prune(amount - 0.01, align=1).apply(silent, PassContext()).graph
    assert only_silent.macs <= pruned.macs <= (1 - amount + 0.01) * graph.macs
    assert_same(silent, pruned, 1)


@settings(max_examples=60, deadline=None)
@given(graph=graphs(max_nodes=12), data=st.data())
def test_structural_passes_keep_outputs_or_say_why_not(graph: Graph, data: st.DataObject) -> None:
    after = data.draw(st.sampled_from([node.name for node in graph.nodes]))
    prune = Prune(0.2, min_channels=1, align=1)
    faces = PassContext(services={Need.CALIBRATOR: DrawnCalibrator()})
    works = [(item, PassContext()) for item in (ScaleWidth(0.5), InsertPool(), InsertPool(after))]
    for item, context in (*works, (prune, PassContext()), (prune, faces)):
        try:
            result = item.apply(graph, context)
        except PassError as error:
            assert error.what
            continue
        assert result.notes
        verify(result.graph)
        kept = [result.graph.type(v) for _, v in result.graph.outputs]
        assert kept == [graph.type(v) for _, v in graph.outputs]
        assert result.graph.macs <= graph.macs
