"""split-head, center-output and equalize keep what a graph computes, whatever its structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.errors import GraphError
from lmopt.ir import Edit, Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import (
    Add,
    Concat,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    LeakyRelu,
    MaxPool2D,
    Mean,
    Mul,
    PRelu,
    Relu,
    Relu6,
    Reshape,
)
from lmopt.ir.scaling import map_scales, rescale
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline, value_difference
from lmopt.testing.float_graphs import draw_weights, graphs
from lmopt_passes.center_output import linear_answers
from tests.support.services import full_context

JOINED = (*("concat",) * 4, *("dense",) * 3, "reshape", "conv2d", "mean", "relu", "add")
SUMS = (*("dense",) * 3, "conv2d", *("add",) * 3, "constant", "relu", "reshape")
HEAD = Pipeline.parse("split-head{convolutions=true}")
CENTER = Pipeline.parse("center-output")
EQUALIZE = Pipeline.parse("equalize{exact=true}")


class Joined:
    """A head over several scales, joined and reshaped in a drawn way."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.edit = Edit("joined")

    def add(self, op, *inputs: Value) -> Value:
        shapes = op.params([self.edit.node(v.node).results[0] for v in inputs])
        weights = draw_weights(op.kind, shapes, int(self.rng.integers(2**31)))
        return self.edit.add(self.edit.fresh(op.kind), op, *inputs, weights=weights)

    def scale(self, x: Value) -> Value:
        x = self.add(Conv2D(4, activation=self.rng.choice(["none", "relu", "relu6"])), x)
        if self.rng.random() < 0.5:
            x = self.add(DepthwiseConv2D(multiplier=int(self.rng.integers(1, 3))), x)
        bends = [Relu(), Relu6(), LeakyRelu(0.1), PRelu()]
        return self.add(bends[self.rng.integers(len(bends))], x)

    def build(self) -> Graph:
        x = self.edit.input("image", (None, 4, 4, 3))
        maps = [self.scale(x) for _ in range(int(self.rng.integers(2, 4)))]
        if self.rng.random() < 0.3:
            maps[0] = self.add(Add(), maps[0], maps[0])
        match int(self.rng.integers(3)):
            case 0:  # maps side by side, flattened as one
                features = self.add(Reshape(), self.add(Concat(), *maps))
            case 1:  # vectors of several maps, one of them joined already
                pooled = [self.add(Mean(), m) for m in maps]
                inner = self.add(Concat(), *pooled[:2])
                flat = self.add(Reshape(), self.add(MaxPool2D(), maps[-1]))
                features = self.add(Concat(), flat, inner, *pooled)
            case _:  # a convolution, and a dense layer on every pixel
                features = self.add(Conv2D(6), self.add(Concat(), *maps))
                features = self.add(Concat(3), features, *maps)
        answer = self.add(Dense(5, bool(self.rng.random() < 0.5)), features)
        if self.rng.random() < 0.3:
            answer = self.add(Mul(), answer, self.add(Dense(5), features))
        self.edit.output("landmarks", answer)
        if self.rng.random() < 0.3:
            self.edit.output("features", features)
        return self.edit.done()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_split_head_computes_the_same_and_reads_no_concat(seed: int):
    graph = Joined(seed).build()
    result = HEAD.run(graph, PassContext(), verify_each=True)
    assert result.steps[0].changed
    split = result.graph
    assert value_difference(graph, split, seed=1) <= 1e-5
    for node in split.nodes:
        if node.op.kind in ("dense", "conv2d"):
            assert split.producer(node.inputs[0]).op.kind != "concat"
    assert HEAD.run(split, PassContext()).graph == split


@settings(max_examples=25, deadline=None)
@given(graphs(max_nodes=8, kinds=JOINED, initialized=False))
def test_splitting_keeps_types_without_weights(graph: Graph):
    split = HEAD.run(graph, PassContext(), verify_each=True).graph
    assert [graph.type(v) for _, v in graph.outputs] == [split.type(v) for _, v in split.outputs]


@settings(max_examples=25, deadline=None)
@given(graphs(max_nodes=6, kinds=SUMS))
def test_centred_answers_are_the_same_and_their_kernels_give_no_mean(graph: Graph):
    centred = CENTER.run(graph, full_context(), verify_each=True).graph
    assert value_difference(graph, centred, seed=1) <= 1e-4
    rng = np.random.default_rng(0)  # what the calibrator draws
    inputs = {
        n.name: rng.uniform(size=(4, *n.results[0].shape[1:])).astype(np.float32)
        for n in graph.inputs
    }
    before = run(graph, inputs, all_values=True)
    after = run(centred, inputs, all_values=True)
    for answer in linear_answers(graph).values():
        for kernel in answer.kernels:
            found, size = after[kernel.name], np.abs(before[kernel.name]).max()
            mean = found.reshape(-1, found.shape[-1]).mean(0)
            np.testing.assert_allclose(mean, 0, atol=1e-4 * max(size, 1))


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=10), st.integers(0, 2**32 - 1))
def test_units_of_channels_do_not_change_answers(graph: Graph, seed: int):
    units = map_scales(graph)
    steps = np.random.default_rng(seed).integers(-6, 7, len(units.free))
    doubled = rescale(graph, units, np.where(units.free, 2.0**steps, 1.0))
    assert value_difference(graph, doubled, seed=1) == 0  # powers of two round nothing
    other = np.where(units.free, np.exp(0.3 * steps), 1.0)
    assert value_difference(graph, rescale(graph, units, other), seed=1) <= 1e-4


@settings(max_examples=25, deadline=None)
@given(st.one_of(graphs(max_nodes=8), st.integers(0, 2**32 - 1).map(lambda s: Joined(s).build())))
def test_equalizing_changes_no_answer_bit(graph: Graph):
    result = EQUALIZE.run(graph, full_context(), verify_each=True)
    assert value_difference(graph, result.graph, seed=1) == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["per-tensor", "per-channel"]))
def test_equalizing_by_any_scales_rounds_only(seed: int, kernels: str):
    text = f"equalize{{kernels={kernels}}},equalize{{by=ranges, kernels={kernels}}}"
    graph = Joined(seed).build()
    result = Pipeline.parse(text).run(graph, full_context(), verify_each=True).graph
    assert value_difference(graph, result, seed=1) <= 1e-4


def test_only_free_units_take_a_scale():
    graph = Joined(0).build()
    units = map_scales(graph)
    assert not units.free[units.of[Value("image")]].any()
    with pytest.raises(GraphError, match="must be 1"):
        rescale(graph, units, np.full(len(units.free), 2.0))
    with pytest.raises(GraphError, match="above 0"):
        rescale(graph, units, np.zeros(len(units.free)))
