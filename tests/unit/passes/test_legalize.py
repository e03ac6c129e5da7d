"""legalize: the same values with the ops that an engine has, and what it saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt import zoo
from lmopt.cost.estimate import estimate
from lmopt.errors import PassError
from lmopt.flow.folding import folded
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.op import Op
from lmopt.ir.ops import BatchNorm, Dense, HardSwish, LeakyRelu, Mean
from lmopt.pipeline.base import ENGINE, PassContext
from lmopt.target.catalog import load_target
from lmopt_passes.legalize import Legalize

GPU, APU = load_target("velvet-gpu"), load_target("velvet-apu")


def of(op: Op, **weights: np.ndarray) -> Graph:
    edit = Edit("net")
    image = edit.input("image", (None, 5, 3, 4))
    edit.output("y", edit.add("op", op, image, weights=weights))
    return edit.done()


NORM = {
    "gamma": np.array([2.0, 3.0, -1.0, 0.5], np.float32),
    "beta": np.array([1.0, 0.0, 0.5, 2.0], np.float32),
    "mean": np.array([0.5, -1.0, 0.0, 3.0], np.float32),
    "variance": np.array([1.0, 4.0, 0.25, 9.0], np.float32),
}


@pytest.mark.parametrize(
    ("graph", "target", "kinds"),
    [
        (of(Mean()), GPU, {"avg_pool2d", "reshape"}),
        (of(Mean(keepdims=True)), GPU, {"avg_pool2d"}),
        (of(BatchNorm(), **NORM), GPU, {"depthwise_conv2d"}),
        (of(LeakyRelu(0.3)), APU, {"prelu"}),
        (of(HardSwish()), APU, {"add", "mul", "constant"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_same_values_with_ops_that_the_engine_has(
    graph: Graph, target, kinds: set[str]
) -> None:
    made = Legalize().apply(graph, PassContext(target=target))
    assert made.changed
    assert {node.op.kind for node in made.graph.nodes} == kinds | {"input"}
    x = np.random.default_rng(0).normal(0, 4, (3, 5, 3, 4)).astype(np.float32)
    before, after = (run(g, {"image": x})["y"] for g in (graph, made.graph))
    np.testing.assert_allclose(after, before, atol=2e-6, rtol=2e-6)


def test_without_weights_the_structure_changes() -> None:
    made = Legalize().apply(of(BatchNorm()), PassContext(target=GPU)).graph
    assert made.node("op").weight("kernel").type.shape == (1, 1, 4, 1)
    assert made.node("op").weight("kernel").array is None


def test_what_nothing_says_stays_and_is_named() -> None:
    edit = Edit("net")
    value = edit.add("head", Dense(4), edit.input("image", (None, 6)))
    edit.output("y", edit.add("norm", BatchNorm(), value))
    made = Legalize().apply(edit.done(), PassContext(target=GPU))
    assert not made.changed
    assert made.notes == ("'%norm' stays: the target's engine runs no batch_norm",)
    few = replace(GPU, supported_ops=frozenset({"conv2d"}))
    assert Legalize().apply(of(Mean()), PassContext(target=few)).notes == (
        "'%op' stays: the target's engine runs no mean",
    )


def test_a_detector_stays_on_the_gpu() -> None:
    graph = folded(zoo.load("pfld-0.25@none").graph)
    made = Legalize().apply(graph, PassContext(target=GPU)).graph
    before, after = estimate(graph, GPU), estimate(made, GPU)
    assert before.transfers_ms > 0 and any("fall back" in note for note in before.notes)
    assert after.transfers_ms == 0 and not any("fall back" in note for note in after.notes)
    assert after.latency_ms < before.latency_ms


def test_what_is_legal_already_is_left_and_the_engine_counts_for_the_cache() -> None:
    graph = of(Mean())
    cpu = PassContext(target=load_target("velvet-cpu"))
    made = Legalize().apply(graph, cpu)
    assert made.graph is graph and made.notes == ("the target's engine runs every op",)
    assert cpu.reads[ENGINE] != PassContext(target=GPU).current(ENGINE) != ""
    with pytest.raises(PassError, match="no target to fit the graph to"):
        Legalize().apply(graph, PassContext())
