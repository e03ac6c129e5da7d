"""Layers that two graphs share start from the weights of one of them."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt import zoo
from lmopt.errors import GraphError
from lmopt.flow.folding import folded
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.zoo import dan, hrnet, pfld


def drawn(graph: Graph, seed: int = 1) -> Graph:
    """Drawn weights, the statistics of batch norms too."""
    graph, rng = zoo.initialize(graph, seed), np.random.default_rng(seed)
    edit = graph.edit()
    for node in graph.nodes:
        if node.op.kind == "batch_norm":
            size = node.weight("mean").type.shape
            edit.set_weights(
                node.name,
                mean=rng.normal(size=size).astype(np.float32),
                variance=rng.uniform(0.5, 2, size).astype(np.float32),
                gamma=rng.uniform(0.5, 2, size).astype(np.float32),
                beta=rng.normal(size=size).astype(np.float32),
            )
    return edit.done()


@pytest.mark.parametrize("fold", [False, True])
def test_the_first_stage_of_a_longer_cascade_answers_as_the_shorter_one(fold: bool) -> None:
    short = drawn(dan.build("dan1", 1, 32))
    made = zoo.inherit(dan.build("dan2", 2, 32), folded(short) if fold else short)
    assert made.nodes == {
        node.name for node in (folded(short) if fold else short).nodes if node.weights
    }
    graph = zoo.initialize(made.graph, 2)
    assert ("stage1_conv1_1_bn" in graph) is not fold
    assert "stage2_conv1_1_bn" in graph
    edit = graph.edit()
    edit.output("first", graph.node("stage1_landmarks").value)
    image = np.random.default_rng(3).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    want = run(short, {"image": image})["landmarks"]
    np.testing.assert_allclose(
        run(edit.done(), {"image": image})["first"], want, rtol=1e-4, atol=1e-4
    )


def test_convolutions_without_bias_take_the_one_that_folding_gave() -> None:
    source = drawn(hrnet.build("hrnet", 32))
    made = zoo.inherit(hrnet.build("hrnet", 32), folded(source)).graph
    assert made.is_initialized
    assert not any(node.op.kind == "batch_norm" for node in made.nodes)
    image = np.random.default_rng(3).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    bare = [run(hrnet.bare(graph), {"image": image})["heatmaps"] for graph in (made, source)]
    np.testing.assert_allclose(bare[0], bare[1], rtol=1e-4, atol=1e-4 * np.abs(bare[1]).max())


def test_layers_of_other_shapes_are_left_alone() -> None:
    wide = drawn(pfld.build("wide", pfld.FULL))
    made = zoo.inherit(pfld.build("narrow", pfld.QUARTER), wide)
    assert {"stem", "stem_bn", "block1_expand", "landmarks"} <= made.nodes
    assert not {"block1_project", "block1_project_bn"} & made.nodes
    assert not made.graph.is_initialized
    for name in made.nodes:
        for key, weight in made.graph.node(name).weights.items():
            assert weight == wide.node(name).weight(key)


def test_strangers_are_refused() -> None:
    with pytest.raises(GraphError, match="'hrnet' has no layer of the same name and shape"):
        zoo.inherit(dan.build("dan1", 1, 32), drawn(hrnet.build("hrnet", 32)))
