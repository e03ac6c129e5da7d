"""Passes that distill learn from the detector as it entered the pipeline, or from a given one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lmopt.errors import PassError, UsageError
from lmopt.ir import Graph
from lmopt.pipeline.base import Need, PassContext
from lmopt.pipeline.cache import PipelineCache
from lmopt.pipeline.manager import Pipeline
from lmopt.pipeline.services import TrainingPlan
from lmopt.pipeline.validation import Validation
from tests.support.services import DistanceScorer, DrawnCalibrator, NudgingTrainer
from tests.support.training_graphs import CONTRACT, detector


@dataclass
class WatchedTrainer(NudgingTrainer):
    """Keeps the plans it was given."""

    digest: str = "watched"
    calls: int = 0
    plans: list[TrainingPlan] = field(default_factory=list)

    def finetune(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        validation: Validation | None = None,
    ) -> Graph:
        self.plans.append(plan)
        return super().finetune(graph, plan, seed=seed, validation=validation)


def context(trainer: WatchedTrainer, tutor: Graph | None = None) -> PassContext:
    services = {
        Need.TRAINER: trainer,
        Need.CALIBRATOR: DrawnCalibrator(),
        Need.SCORER: DistanceScorer(),
    }
    given = None if tutor is None else (tutor, CONTRACT)
    return PassContext(contract=CONTRACT, services=services, tutor=given)


@pytest.mark.parametrize("last", ["finetune{distill=0.25}", "qat{distill=0.25}"])
def test_the_float_baseline_teaches(last: str) -> None:
    trainer, graph = WatchedTrainer(), detector()
    Pipeline.parse(f"prune{{amount=0.2, min-channels=2, align=1}},{last}").run(
        graph, context(trainer)
    )
    (plan,) = trainer.plans
    assert plan.teacher is not None
    assert plan.teacher.graph.digest() == graph.digest()
    assert (plan.teacher.contract, plan.teacher.weight) == (CONTRACT, 0.25)


def test_a_given_teacher_comes_first_and_none_is_asked_without_the_option() -> None:
    trainer, other = WatchedTrainer(), detector(seed=8)
    Pipeline.parse("finetune{distill=1},finetune").run(detector(), context(trainer, other))
    taught, plain = trainer.plans
    assert taught.teacher is not None
    assert taught.teacher.graph.digest() == other.digest()
    assert plain.teacher is None


def test_a_cached_result_belongs_to_its_teacher(tmp_path: Path) -> None:
    trainer, cache = WatchedTrainer(), PipelineCache(tmp_path)
    pipeline = Pipeline.parse("finetune{distill=0.5}")
    for seed in (8, 9, 8):
        pipeline.run(detector(), context(trainer, detector(seed=seed)), cache=cache)
    assert trainer.calls == 2
    assert len({repr(plan.teacher) for plan in trainer.plans}) == 2


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"distill is 1\.5, wanted 0 to 1"):
        Pipeline.parse("qat{distill=1.5}")
    alone = PassContext(services={Need.TRAINER: WatchedTrainer()})
    with pytest.raises(PassError, match="nobody to distill from"):
        Pipeline.parse("finetune{distill=0.5}").run(detector(), alone)
