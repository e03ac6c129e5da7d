from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from lmopt.errors import BackendError, InputError, PassError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import (
    QuantScheme,
    RangeRule,
    SparsityPlan,
    TrainingPlan,
    TrainingProgress,
)
from lmopt.quant.assign import plan_grids
from tests.support.training_graphs import CONTRACT, Blobs, detector

if TYPE_CHECKING:
    from lmopt.training.loop import Course
    from lmopt.training.lower import Lowered

pytestmark = pytest.mark.slow

PLAN = TrainingPlan(epochs=10, learning_rate=1e-2, batch=16, warmup_steps=5)
Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]


class Cut(Exception):
    """Stands for whatever interrupts a training."""


@dataclass(frozen=True)
class CutShort(Blobs):
    """Faces that fail when batch `at` is asked for."""

    at: int = 17

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[Batch]:
        for index, drawn in enumerate(super().batches(batch, seed, start), start):
            if index == self.at:
                raise Cut
            yield drawn


def test_rate_warms_up_and_falls_to_zero() -> None:
    from lmopt.training.loop import Course

    course = Course(Blobs(), CONTRACT, PLAN, seed=0)
    assert course.steps == 40
    assert course.rate(0) == pytest.approx(1e-2 / 5)
    assert course.rate(20) == pytest.approx(1e-2 / 2)
    assert 0 < course.rate(39) < 1e-4
    assert Course(Blobs(), CONTRACT, replace(PLAN, epochs=0.001), seed=0).steps == 1


def test_training_lowers_the_loss_and_a_seed_repeats_it() -> None:
    from lmopt.training.loop import Course, fit

    seen: list[TrainingProgress] = []
    graph = detector(batch_norm=True)
    first = fit(graph, Course(Blobs(), CONTRACT, PLAN, 3, on_progress=seen.append))
    assert (seen[-1].step, seen[-1].steps) == (40, 40)
    assert seen[-1].images_per_second > 0
    # The loss of the very first step, from another run of one step.
    start: list[TrainingProgress] = []
    fit(graph, Course(Blobs(), CONTRACT, replace(PLAN, epochs=0.01), 3, on_progress=start.append))
    assert seen[-1].loss < 0.6 * start[0].loss
    assert fit(graph, Course(Blobs(), CONTRACT, PLAN, 3)).weights() == first.weights()
    assert fit(graph, Course(Blobs(), CONTRACT, PLAN, 4)).weights() != first.weights()
    assert not np.array_equal(first.node("stem_bn").weight("mean").real(), np.zeros(8))


def test_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmopt.training import loop
    from lmopt.training.loop import Course, fit

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    graph, file = detector(batch_norm=True), tmp_path / "deep" / "tiny.npz"
    whole = fit(graph, Course(Blobs(), CONTRACT, PLAN, 3))
    with pytest.raises(Cut):
        fit(graph, Course(CutShort(), CONTRACT, PLAN, 3, checkpoint=file))
    assert np.load(file)["step"] == 17
    resumed = fit(graph, Course(Blobs(), CONTRACT, PLAN, 3, checkpoint=file))
    assert resumed.weights() == whole.weights()
    # A finished training is not repeated: these faces would fail at once.
    again = fit(graph, Course(CutShort(at=0), CONTRACT, PLAN, 3, checkpoint=file))
    assert again.weights() == whole.weights()
    with pytest.raises(InputError, match="belongs to another training"):
        fit(graph, Course(Blobs(), CONTRACT, PLAN, 4, checkpoint=file))


def sparsely(graph: Graph, course: Course) -> tuple[Graph, object]:
    from lmopt.training.pruning import fit_sparse

    return fit_sparse(graph, SparsityPlan(0.5), course), None


def rounding(rule: RangeRule) -> Callable[[Graph, Course], tuple[Graph, object]]:
    def trained(graph: Graph, course: Course) -> tuple[Graph, object]:
        from lmopt.training.qat import fit_quantized

        scheme = QuantScheme(DType.I8, per_channel=True)
        ranges = dict.fromkeys(plan_grids(graph, scheme).owners, ValueRange(-3.0, 3.0))
        return fit_quantized(graph, ranges, scheme, course, rule=rule)

    return trained


@pytest.mark.parametrize("method", [sparsely, rounding("average"), rounding("learned")])
def test_what_else_a_training_changes_is_resumed_as_well(
    method: Callable[[Graph, Course], tuple[Graph, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lmopt.training import loop
    from lmopt.training.loop import Course

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    graph, file = detector(), tmp_path / "c.npz"
    whole, ranges = method(graph, Course(Blobs(), CONTRACT, PLAN, 3))
    with pytest.raises(Cut):
        method(graph, Course(CutShort(), CONTRACT, PLAN, 3, checkpoint=file))
    resumed, again = method(graph, Course(Blobs(), CONTRACT, PLAN, 3, checkpoint=file))
    assert resumed.weights() == whole.weights() and again == ranges


def test_the_best_epoch_is_what_comes_back_after_a_resume_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmopt.training import loop
    from lmopt.training.loop import Course, Judge, fit

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    plan, file = replace(PLAN, epochs=4.5), tmp_path / "c.npz"
    script, shown = iter([4.0, 2.0, 3.0, 2.0, 9.0]), []

    def error(lowered: Lowered, ranges: object) -> float:
        assert ranges == {}
        shown.append(lowered.arrays())
        return next(script)

    def course(faces: Blobs, judge: Judge) -> Course:
        return Course(faces, CONTRACT, plan, 3, checkpoint=file, judge=judge)

    with pytest.raises(Cut):  # in the third epoch of four steps
        fit(detector(), course(CutShort(at=10), Judge(error)))
    judge = Judge(error)
    best = fit(detector(), course(Blobs(), judge))
    assert judge.errors == [4.0, 2.0, 3.0, 2.0, 9.0]
    assert len(shown) == 5
    for key, weight in best.weights().items():
        np.testing.assert_array_equal(weight.real(), shown[1][key])
    # Judging does not change the course; without it the last weights come back.
    last = fit(detector(), Course(Blobs(), CONTRACT, plan, 3))
    for key, weight in last.weights().items():
        np.testing.assert_array_equal(weight.real(), shown[4][key])
    again = Judge(error)
    assert fit(detector(), course(CutShort(at=0), again)).weights() == best.weights()
    assert again.errors == judge.errors


def test_average_of_weights_is_what_comes_back() -> None:
    from lmopt.training.loop import Course, fit

    one = replace(PLAN, epochs=0.01, warmup_steps=1)
    graph = detector()
    last = fit(graph, Course(Blobs(), CONTRACT, replace(one, weight_average=0.0), 3))
    mean = fit(graph, Course(Blobs(), CONTRACT, replace(one, weight_average=0.99), 3))
    start, end, averaged = (g.node("landmarks").weight("bias").real() for g in (graph, last, mean))
    # After the first step the average keeps 1 / 10 of where it started.
    np.testing.assert_allclose(averaged, start + 0.9 * (end - start), rtol=1e-5)


def test_divergence_names_the_step() -> None:
    from lmopt.training.loop import Course, fit

    plan = replace(PLAN, learning_rate=1e30, loss="l2", warmup_steps=1)
    with pytest.raises(BackendError, match=r"loss became (nan|inf) in step \d+ of 40"):
        fit(detector(), Course(Blobs(), CONTRACT, plan, 3))


def test_graph_and_contract_must_fit() -> None:
    from lmopt.training.loop import Course, fit

    def refused(**changes: object) -> Course:
        return Course(Blobs(), replace(CONTRACT, **changes), PLAN, 3)

    with pytest.raises(PassError, match=r"input of \[16, 16, 3\].*crops of \[8, 16, 3\]"):
        fit(detector(), refused(height=8))
    with pytest.raises(PassError, match="no output 'points'"):
        fit(detector(), refused(output="points"))
    with pytest.raises(PassError, match="output of 4 numbers, wanted 6"):
        fit(detector(), refused(scheme=replace(CONTRACT.scheme, count=3)))
    with pytest.raises(InputError, match="no training faces"):
        fit(detector(), Course(Blobs(0), CONTRACT, PLAN, 3))
