import numpy as np
import pytest

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Add, Conv2D, Dense, Mean, Relu
from lmopt.pipeline.base import Need, PassContext
from lmopt_passes.drop_block import DropBlock, residual_shortcuts
from tests.support.services import DistanceScorer

GAINS = (0.5, 0.01, 0.1, 0.3)
"""How strongly each residual block changes what passes through it."""


def chain(gains: tuple[float, ...] = GAINS) -> Graph:
    edit = Edit("chain")
    rng = np.random.default_rng(0)
    x = edit.input("image", (None, 6, 6, 4))
    for index, gain in enumerate(gains):
        kernel = (gain * rng.normal(size=(3, 3, 4, 4))).astype(np.float32)
        branch = edit.add(f"conv{index}", Conv2D(4, use_bias=False), x, weights={"kernel": kernel})
        operands = (x, branch) if index % 2 else (branch, x)  # either order is a block
        x = edit.add(f"block{index}", Add(), *operands)
    mean = edit.add("mean", Mean(), edit.add("relu", Relu(), x))
    head = rng.normal(size=(4, 10)).astype(np.float32)
    edit.output(
        "landmarks", edit.add("head", Dense(10, use_bias=False), mean, weights={"kernel": head})
    )
    return edit.done()


def scored(graph: Graph) -> PassContext:
    return PassContext(services={Need.SCORER: DistanceScorer(graph)})


def test_the_blocks_that_matter_least_go_and_leave_their_shortcut() -> None:
    graph = chain()
    result = DropBlock(2).apply(graph, scored(graph))
    assert "dropped block1 (" in result.notes[0]
    assert {node.name for node in graph.nodes} - {node.name for node in result.graph.nodes} == {
        "conv1",
        "block1",
        "conv2",
        "block2",
    }
    image = {"image": np.random.default_rng(1).normal(size=(1, 6, 6, 4)).astype(np.float32)}
    silent = graph.edit()
    for name in ("conv1", "conv2"):
        silent.set_weights(name, kernel=np.zeros((3, 3, 4, 4), np.float32))
    wanted = run(silent.done(), image)["landmarks"]
    np.testing.assert_array_equal(run(result.graph, image)["landmarks"], wanted)


def test_every_block_can_go() -> None:
    graph = chain()
    result = DropBlock(len(GAINS)).apply(graph, scored(graph)).graph
    assert result.node("relu").inputs == (result.node("image").value,)


def test_only_sums_over_their_own_operand_are_blocks() -> None:
    edit = Edit("siblings")
    x = edit.input("image", (None, 6, 6, 4))
    left, right = edit.add("left", Conv2D(4), x), edit.add("right", Conv2D(4), x)
    edit.output("map", edit.add("both", Add(), left, right))
    assert residual_shortcuts(edit.done()) == {}


def test_asking_for_more_than_there_are_says_how_many() -> None:
    graph = chain()
    with pytest.raises(PassError, match="wants 5 residual blocks, found 4"):
        DropBlock(5).apply(graph, scored(graph))


def test_count_and_faces_are_required() -> None:
    with pytest.raises(UsageError, match="count is 0, wanted at least 1"):
        DropBlock(0)
    with pytest.raises(PassError, match="--data"):
        DropBlock().apply(chain(), PassContext())
