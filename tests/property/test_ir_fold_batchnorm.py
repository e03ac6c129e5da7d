"""fold-batchnorm keeps what a graph computes, whatever its structure."""

from __future__ import annotations

from hypothesis import given, settings

from lmopt.ir import Graph
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline, value_difference
from lmopt.testing.float_graphs import graphs

KINDS = (*("block",) * 4, "conv2d", "batch_norm", "relu", "add", "mul", "concat", "mean")
FOLD = Pipeline.parse("fold-batchnorm")


@settings(max_examples=80, deadline=None)
@given(graphs(max_nodes=8, kinds=KINDS))
def test_folding_keeps_values(graph: Graph):
    folded = FOLD.run(graph, PassContext(), verify_each=True).graph
    assert value_difference(graph, folded, seed=1) <= 1e-4


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=8, kinds=KINDS))
def test_folding_again_changes_nothing(graph: Graph):
    once = FOLD.run(graph, PassContext()).graph
    again = FOLD.run(once, PassContext())
    assert again.graph == once
    assert not again.steps[0].changed


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=8, kinds=KINDS, initialized=False))
def test_folding_needs_no_weights(graph: Graph):
    folded = FOLD.run(graph, PassContext(), verify_each=True).graph
    assert [graph.type(v) for _, v in graph.outputs] == [folded.type(v) for _, v in folded.outputs]
