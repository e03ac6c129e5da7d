"""substitute-activation: which activation goes, what takes its place, and with which slope."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from lmopt.errors import PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, HardSwish, LeakyRelu, Op, PRelu, Relu, Relu6, Sigmoid
from lmopt.pipeline.base import Need, PassContext
from lmopt.target.catalog import load_target
from lmopt_passes.substitute_activation import CHEAPEST, INSTEAD, SubstituteActivation
from tests.support.services import DrawnCalibrator

GPU = load_target("velvet-gpu")


def of(*ops: Op, **weights: np.ndarray) -> Graph:
    """Activations one after the other, `a0`, `a1`, ..."""
    edit = Edit("net")
    value = edit.input("image", (None, 3, 3, 2))
    for index, op in enumerate(ops):
        given = weights if isinstance(op, PRelu) else None
        value = edit.add(f"a{index}", op, value, weights=given)
    edit.output("y", value)
    return edit.done()


def engine_without(*kinds: str) -> PassContext:
    return PassContext(target=replace(GPU, supported_ops=GPU.supported_ops - set(kinds)))


@dataclass(frozen=True)
class Prices:
    """Milliseconds by kind."""

    ms: dict[str, float]
    digest: str = "prices"

    def latency_ms(self, graph: Graph) -> float:
        return sum(self.ms.get(node.op.kind, 0) for node in graph.nodes)


SLOPES = np.array([0.1, 0.5], np.float32)


@pytest.mark.parametrize(
    ("graph", "new", "wanted"),
    [
        (of(Relu6()), "relu", lambda x: np.maximum(x, 0)),
        (of(Relu()), "relu6", lambda x: np.clip(x, 0, 6)),
        (of(LeakyRelu(0.3)), "prelu", lambda x: np.where(x > 0, x, 0.3 * x)),
        (of(PRelu(), alpha=SLOPES), "leaky_relu", lambda x: np.where(x > 0, x, 0.3 * x)),
        (of(PRelu(), alpha=SLOPES), "relu6", lambda x: np.clip(x, 0, 6)),
        (of(HardSwish()), "relu", lambda x: np.maximum(x, 0)),
        (of(Sigmoid()), "hard_sigmoid", lambda x: np.clip(x + 3, 0, 6) / 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_takes_the_place_of_an_activation(graph: Graph, new: str, wanted) -> None:
    made = SubstituteActivation(graph.nodes[1].op.kind, new).apply(graph, PassContext())
    assert made.changed
    assert made.graph.node("a0").loc.passes == ("substitute-activation",)
    assert made.notes[0].startswith(f"{graph.nodes[1].op.kind} became {new}: %a0")
    x = np.random.default_rng(0).normal(0, 5, (2, 3, 3, 2)).astype(np.float32)
    np.testing.assert_allclose(run(made.graph, {"image": x})["y"], wanted(x), atol=1e-6)


def test_slopes_are_the_nearest_on_faces_each_activation_its_own() -> None:
    """Of the two channels the second has twice as much below 0, so that it counts four times."""
    edit = Edit("net")
    image = edit.input("image", (None, 3, 3, 1))
    kernel = np.array([[[[-1, -2]]]], np.float32)
    deep = edit.add("deep", Conv2D(2, (1, 1), use_bias=False), image, weights={"kernel": kernel})
    edit.output("first", edit.add("first", PRelu(), deep, weights={"alpha": SLOPES}))
    edit.output("second", edit.add("second", HardSwish(), deep))
    ctx = PassContext(services={Need.CALIBRATOR: DrawnCalibrator()})
    made = SubstituteActivation("prelu", "leaky_relu").apply(edit.done(), ctx).graph
    (slope,) = {node.op.alpha for node in made.nodes if isinstance(node.op, LeakyRelu)}
    assert slope == pytest.approx((0.1 + 4 * 0.5) / 5, rel=1e-5)
    made = SubstituteActivation("hard_swish", "leaky_relu").apply(made, ctx).graph
    x = np.random.default_rng(0).uniform(size=(4, 3, 3, 1)) * [-1, -2]  # all below 0
    least = np.sum(x * (x * np.clip(x + 3, 0, 6) / 6)) / np.sum(x * x)
    assert made.node("second").op.alpha == pytest.approx(least, rel=1e-5)
    with pytest.raises(PassError, match="no calibrator") as caught:
        SubstituteActivation("hard_swish", "leaky_relu").apply(of(HardSwish()), PassContext())
    assert "--data" in str(caught.value.hint)


def test_what_becomes_relu_runs_in_the_kernel_before_it_if_that_has_no_other_reader() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 3, 3, 2))
    alone = edit.add("alone", Conv2D(2), image)
    shared = edit.add("shared", Conv2D(2), edit.add("act0", HardSwish(), alone))
    edit.output("raw", shared)
    edit.output("y", edit.add("act1", HardSwish(), shared))
    made = SubstituteActivation("hard_swish", "relu6").apply(edit.done(), PassContext()).graph
    assert made.node("alone").op.activation == "relu6" and "act0" not in made
    assert made.node("alone").loc.passes[-1] == "fold-batchnorm"
    assert made.node("shared").op.activation == "none"
    assert made.node("act1").op == Relu6()


def test_a_fused_activation_changes_in_place() -> None:
    graph = of(Conv2D(2, activation="relu6"), Conv2D(2, activation="relu"))
    made = SubstituteActivation("relu6", "relu").apply(graph, PassContext()).graph
    assert [node.op.activation for node in made.nodes[1:]] == ["relu", "relu"]


def test_what_the_engine_lacks_becomes_the_nearest_that_it_has() -> None:
    graph = of(PRelu(), HardSwish(), Relu(), alpha=SLOPES)
    made = SubstituteActivation().apply(graph, engine_without("prelu", "hard_swish", "leaky_relu"))
    assert [node.op.kind for node in made.graph.nodes[1:]] == ["relu", "relu", "relu"]
    has_leaky = replace(GPU, supported_ops=GPU.supported_ops - {"prelu"} | {"leaky_relu"})
    nearer = SubstituteActivation().apply(graph, PassContext(target=has_leaky))
    assert [node.op for node in nearer.graph.nodes[1:]] == [
        LeakyRelu(pytest.approx(0.3)),
        HardSwish(),
        Relu(),
    ]
    leaky = SubstituteActivation().apply(of(LeakyRelu()), engine_without("leaky_relu"))
    assert leaky.graph.node("a0").op == PRelu()
    stays = SubstituteActivation().apply(of(Sigmoid()), engine_without("sigmoid", "mul"))
    assert not stays.changed
    assert stays.notes == ("sigmoid stays: the target's engine has nothing that stands for it",)
    said = SubstituteActivation(new="hard_sigmoid").apply(of(Sigmoid()), engine_without("sigmoid"))
    assert [node.op.kind for node in said.graph.nodes if node.inputs] == ["add", "mul"]


def test_a_fused_relu_needs_no_op_of_its_own() -> None:
    made = SubstituteActivation().apply(of(Conv2D(2, activation="relu")), engine_without("relu"))
    assert not made.changed


def test_what_costs_most_goes_when_nothing_is_lacking() -> None:
    graph = of(PRelu(), HardSwish(), Sigmoid(), alpha=SLOPES)
    cost = Prices({"prelu": 2.0, "hard_swish": 3.0, "relu": 0.5, "sigmoid": 1.0, "add": 4.0})
    made = SubstituteActivation().apply(graph, PassContext(services={Need.COST: cost}))
    assert [node.op.kind for node in made.graph.nodes[1:]] == ["prelu", "relu", "sigmoid"]
    assert made.notes[-1] == "estimated 6 ms -> 3.5 ms in float32"
    only = SubstituteActivation(new="leaky_relu")
    cheap = PassContext(services={Need.COST: Prices({}), Need.CALIBRATOR: DrawnCalibrator()})
    kept = only.apply(graph, cheap)
    assert kept.graph is graph
    assert kept.notes == ("no activation costs more than what stands for it",)


def test_without_target_or_name_nothing_is_done_and_said_so() -> None:
    made = SubstituteActivation().apply(of(HardSwish()), PassContext())
    assert not made.changed and "name one with old" in made.notes[0]


def test_refusals_name_what_there_is() -> None:
    with pytest.raises(UsageError, match="relu cannot stand for sigmoid") as caught:
        SubstituteActivation("sigmoid", "relu")
    assert caught.value.hint == "new: hard_sigmoid"
    with pytest.raises(PassError, match="found no prelu to replace") as missing:
        SubstituteActivation("prelu").apply(of(Relu6(), HardSwish()), PassContext())
    assert missing.value.hint == "it has relu6, hard_swish"
    with pytest.raises(PassError, match="reads weights"):
        SubstituteActivation("prelu", "leaky_relu").apply(of(PRelu()), PassContext())


def test_every_activation_has_a_cheapest_among_what_may_stand_for_it() -> None:
    assert CHEAPEST.keys() == INSTEAD.keys()
    assert all(CHEAPEST[old] in news for old, news in INSTEAD.items())
