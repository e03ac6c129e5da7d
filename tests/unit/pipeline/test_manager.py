"""Running pipelines: checks before work, steps, events, promises kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from lmopt.errors import GraphError, PassError
from lmopt.ir import Graph
from lmopt.ir.ops import Dense
from lmopt.ir.text import parse_graph
from lmopt.pipeline.base import Need, Pass, PassContext, PassResult, Preserves
from lmopt.pipeline.manager import PassEvent, Pipeline, value_difference
from tests.support.services import NudgingTrainer

GRAPH = parse_graph(
    "graph g\n%x = input() : f32[?,3]\n"
    "%y = dense(%x) {units=2} [bias=f32[2]~1, kernel=f32[3,2]~2]\n"
    "%z = relu(%y)\noutput out = %z"
)


@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies the bias while promising to keep values."""

    name: ClassVar[str] = "scale"
    preserves: ClassVar[Preserves] = Preserves.VALUES
    factor: float = 1.0

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        edit = graph.edit()
        edit.set_weights("y", bias=graph.node("y").weight("bias").real() * self.factor)
        return PassResult(edit.done(), self.factor != 1, (f"times {self.factor:g}",))


@dataclass(frozen=True)
class Widen(Pass):
    """Changes a shape while promising not to."""

    name: ClassVar[str] = "widen"
    preserves: ClassVar[Preserves] = Preserves.SHAPES

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        edit = graph.edit()
        edit.set_op("y", Dense(2, use_bias=False))
        edit.set_weights("y", bias=None)
        edit.output("more", graph.node("y").value)
        return PassResult(edit.done(), True)


@dataclass(frozen=True)
class Train(Pass):
    """Uses the trainer and the seed."""

    name: ClassVar[str] = "train"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TRAINER})

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        ctx.derive_seed("train")
        return PassResult(ctx.trainer.finetune(graph, None, seed=1), True)


@dataclass(frozen=True)
class Fail(Pass):
    """Fails, with or without a place of its own."""

    name: ClassVar[str] = "fail"
    place: str | None = None

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        raise GraphError("it does not fit", where=self.place, hint="try less")


def test_text_round_trip_and_the_empty_pipeline():
    text = "fold-batchnorm,scale-width{factor=0.25},to-float16"
    pipeline = Pipeline.parse(text)
    assert str(pipeline) == text
    assert Pipeline.parse(str(pipeline)) == pipeline
    empty = Pipeline.parse("")
    assert str(empty) == ""
    assert empty.run(GRAPH, PassContext()).graph is GRAPH


def test_needs_are_checked_before_any_pass_runs():
    started: list[PassEvent] = []
    with pytest.raises(PassError) as caught:
        Pipeline((Scale(), Train())).run(GRAPH, PassContext(), observe=started.append)
    assert started == []
    assert str(caught.value) == (
        "pass 2 (train): train needs training faces, and this run has none\n"
        "hint: give training faces with --data (or lmopt.compile(..., data=...))"
    )
    Pipeline((Train(),)).check(PassContext(services={Need.TRAINER: NudgingTrainer()}))


def test_steps_and_events_tell_what_happened():
    events: list[PassEvent] = []
    ctx = PassContext(seed=3, services={Need.TRAINER: NudgingTrainer("t1")})
    result = Pipeline((Scale(), Train())).run(GRAPH, ctx, observe=events.append)
    assert [step.text for step in result.steps] == ["scale", "train"]
    assert [step.changed for step in result.steps] == [False, True]
    assert [step.cached for step in result.steps] == [False, False]
    assert all(step.seconds >= 0 for step in result.steps)
    assert result.notes == ("times 1",)
    assert result.steps[-1].digest == result.graph.digest()
    assert [(e.kind, e.index, e.count, e.text) for e in events] == [
        ("started", 0, 2, "scale"),
        ("finished", 0, 2, "scale"),
        ("started", 1, 2, "train"),
        ("finished", 1, 2, "train"),
    ]
    assert events[3].step == result.steps[1]
    assert events[3].graph == result.graph
    assert ctx.reads == {"seed": "3", "trainer": "t1"}


def test_a_broken_promise_of_values_is_refused_with_its_size():
    pipeline = Pipeline((Scale(), Scale(1.01)))
    assert pipeline.run(GRAPH, PassContext()).steps[1].changed
    with pytest.raises(PassError) as caught:
        pipeline.run(GRAPH, PassContext(), verify_each=True)
    assert caught.value.where == "pass 2 (scale)"
    found = value_difference(GRAPH, Scale(1.01).apply(GRAPH, PassContext()).graph, seed=0)
    assert 1e-4 < found < 0.02
    assert f"within 0.0001 of the largest output, but changed them by {found:.3g}" in str(
        caught.value
    )


def test_a_difference_within_the_tolerance_is_allowed():
    Pipeline((Scale(1 + 1e-6),)).run(GRAPH, PassContext(), verify_each=True)


def test_a_broken_promise_of_shapes_is_refused():
    with pytest.raises(PassError, match=r"keep the shapes .* more\[None, 2\]"):
        Pipeline((Widen(),)).run(GRAPH, PassContext(), verify_each=True)


def test_a_value_that_is_not_finite_is_a_difference():
    edit = GRAPH.edit()
    edit.set_weights("y", bias=GRAPH.node("y").weight("bias").real() * float("nan"))
    assert not value_difference(GRAPH, edit.done(), seed=0) <= 1e9


def test_a_failure_names_the_pass_unless_it_has_a_place():
    with pytest.raises(GraphError) as caught:
        Pipeline((Scale(), Fail())).run(GRAPH, PassContext())
    assert str(caught.value) == "pass 2 (fail): it does not fit\nhint: try less"
    with pytest.raises(GraphError) as caught:
        Pipeline((Fail("%y"),)).run(GRAPH, PassContext())
    assert caught.value.where == "%y"


def test_contexts_draw_by_seed_and_tag():
    ctx = PassContext(seed=1)
    assert ctx.derive_seed("a") == PassContext(seed=1).derive_seed("a")
    assert ctx.derive_seed("a") != ctx.derive_seed("b")
    assert ctx.derive_seed("a") != replace(ctx, seed=2).derive_seed("a")
