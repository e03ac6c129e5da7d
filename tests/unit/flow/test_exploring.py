"""The loop of a search, with made-up candidates: what it asks for, and that crashes change nothing.

Candidates here are arithmetic on their pipelines, so that hundreds are made in no time; real ones
are searched in `tests/e2e/test_search.py`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmopt.errors import BackendError
from lmopt.exploration import racing
from lmopt.exploration.candidate import Trained
from lmopt.exploration.finding import Tried
from lmopt.exploration.racer import Interval, Racer
from lmopt.exploration.space import SearchSpace
from lmopt.exploration.study import Study
from lmopt.flow.crew import Outcome, Scored, Task
from lmopt.flow.events import Event, Found, Raced
from lmopt.flow.exploring import Explorer
from lmopt.flow.gauging import Gauged
from lmopt.flow.request import SearchRequest

SPACE = SearchSpace(
    before=(("", "drop-block{count=1..4}"), ("prune{amount=0.1..0.9:0.01}",)),
    epochs=(1.0, 3.0, 12.0),
    further="prune{amount=0.3}",
)
STORED = replace(SPACE, after=(("", "quantize-int8"),))
FACES = 20
BASELINE = 4.0


class Crash(Exception):
    """The process is killed."""


def _made(pipeline: str, macs: int, seconds: float = 0.0) -> Trained:
    """Returns a candidate that answers the more unsteadily the fewer MACs it has."""
    std = 1e3 / macs**0.5
    return Trained(pipeline, "d", "m", macs // 250, 0.0, 10, macs, seconds, std_percent=std)


class MadeUp:
    """A crew and a gauge: NME falls with epochs, rises with what was removed."""

    def __init__(self, size: int = 1, crash_after: int | None = None, minute: float = 0.0) -> None:
        self.size, self.left, self.minute = size, crash_after, minute
        self.tasks: list[Task] = []
        self.made: list[str] = []
        self.trained: set[str] = set()
        self.spent = 0.0

    @property
    def is_full(self) -> bool:
        return len(self.tasks) >= self.size

    def begin(self, task: Task) -> None:
        assert not self.is_full
        self.tasks.append(task)

    def finish(self) -> Outcome:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash
        task = self.tasks.pop(0)
        self.made.append(str(task.pipeline))
        removed, epochs, blocks, last = 1.0, 0.0, 0, 0.0
        for item in task.pipeline.passes:
            if item.name == "prune":
                removed *= 1 - item.amount  # type: ignore[attr-defined]
            elif item.name == "drop-block":
                blocks += item.count  # type: ignore[attr-defined]
            elif item.name == "finetune":
                last = item.epochs  # type: ignore[attr-defined]
                epochs += last
        if blocks == 4:
            return Outcome(task, BackendError("four are too many"))
        training = str(task.pipeline).removesuffix(",quantize-int8")
        is_new = task.fidelity > 0 and training not in self.trained
        minutes = last * self.minute if is_new else 0.0
        self.trained.add(training)
        self.spent += minutes
        loss = 3 * (1 - removed) ** 4 + 0.05 / removed + 0.3 * blocks
        errors = BASELINE + loss / (1 + epochs) ** 0.5 + 0.2 * np.sin(np.arange(FACES))
        if task.pipeline.passes[-1].name == "quantize-int8":
            removed *= 0.6
        made = _made(str(task.pipeline), int(1e6 * removed), 60 * minutes)
        return Outcome(task, Scored(made, tuple(errors.tolist())))

    def of(self, made: Trained) -> Gauged:
        ms = made.macs / 1e6
        return Gauged(Interval(ms, 0.99 * ms, 1.01 * ms), ms)

    def minutes(self) -> float:
        return self.spent


def explore(
    folder: Path,
    made_up: MadeUp,
    seen: list[Event] | None = None,
    space: SearchSpace = SPACE,
    **limits: object,
) -> tuple[Tried, ...]:
    """Returns everything that was tried until the search ends, or the process is killed."""
    folder.mkdir(exist_ok=True)
    request = SearchRequest("velvet-apu", **limits)  # type: ignore[arg-type]
    more = len(request.objectives)
    url = f"sqlite:///{folder / 's.db'}"
    study = Study(url, "s", space, {}, seed=0, sampler="tpe", more=more)
    whole = Scored(_made("fold-batchnorm", 1_000_000), (BASELINE,) * FACES)
    explorer = Explorer(
        *(request, study, made_up, made_up, whole),  # type: ignore[arg-type]
        listen=(lambda event: None) if seen is None else seen.append,
    )
    explorer.run(made_up.minutes)
    return study.tried()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeUp, tuple[Tried, ...]]:
    made_up = MadeUp()
    return made_up, explore(tmp_path_factory.mktemp("whole"), made_up, trials=10)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(moments=st.lists(st.integers(0, 30), min_size=1, max_size=2))
def test_crashes_lose_nothing_repeat_nothing_and_change_nothing(
    undisturbed, tmp_path_factory, moments: list[int]
) -> None:
    whole, tried = undisturbed
    folder, made = tmp_path_factory.mktemp("killed"), []
    for moment in moments:
        made_up = MadeUp(crash_after=moment)
        with suppress(Crash):
            explore(folder, made_up, trials=10)
        made += made_up.made
    last = MadeUp()
    assert explore(folder, last, trials=10) == tried
    assert made + last.made == whole.made


def test_descendants_inherit_the_weights_of_good_candidates(undisturbed) -> None:
    _, tried = undisturbed
    inherited = [t for t in tried if "finetune" in t.asked.sketch.before]
    assert len(inherited) in range(1, 6)
    texts = [row.pipeline for t in tried for row in t.findings]
    for one in inherited:
        parent = one.findings[0].pipeline.removesuffix(",prune{amount=0.3}")
        assert parent in texts and "finetune" in parent
    numbers = [t.asked.number for t in tried]
    assert numbers == sorted(set(numbers)) and len(tried) == 10


def test_a_training_serves_every_storage_of_what_is_worth_it(tmp_path) -> None:
    tried = explore(tmp_path, MadeUp(), space=STORED, trials=16)
    known = {str(t.asked.sketch): t for t in tried}
    racers = {t.asked.number: t for t in tried}
    twins = 0
    for sketch, one in known.items():
        other = known.get(f"{sketch},quantize-int8")
        if other is not None and not other.failure and not one.failure:
            assert len(other.findings) == len(one.findings)
            twins += 1
    well = [t for t in racers.values() if len(t.findings) > 2]
    assert twins >= 2 and well
    best = min(well, key=lambda t: t.findings[-1].ms.value)
    assert best.asked.sketch.after == "quantize-int8"


def test_a_candidate_is_told_by_what_it_does_beyond_another(tmp_path) -> None:
    seen: list[Event] = []
    tried = explore(tmp_path, MadeUp(), seen, space=STORED, trials=16)
    sketches = {t.asked.number: t.asked.sketch for t in tried}
    twins = descendants = 0
    for event in (event for event in seen if isinstance(event, Raced)):
        own, whole = event.sketch, sketches[event.number]
        number, fidelity = event.parent or (event.number, 0)
        if event.parent is None:
            assert own == whole
        elif fidelity == 0:
            assert own.before == "" and sketches[number].before == whole.before
            twins += 1
        else:
            assert own.before == STORED.further
            assert STORED.descendant(sketches[number], fidelity).before == whole.before
            descendants += 1
        assert own.after == whole.after
    assert twins and descendants


def test_other_objectives_are_known_of_every_candidate_and_told(tmp_path) -> None:
    seen: list[Event] = []
    objectives = ("bytes", "stability")
    tried = explore(tmp_path, MadeUp(), seen, trials=9, objectives=objectives)
    found = [row for t in tried for row in t.findings]
    for row in found:
        assert row.more == pytest.approx((row.ms.value, row.ms.value**-0.5), rel=1e-2)
    told = [dict(event.more) for event in seen if isinstance(event, Found)]
    assert told == [
        dict(zip(objectives, row.more, strict=True)) for row in sorted(found, key=lambda r: r.place)
    ]
    assert any(len(t.findings) > 2 for t in tried)


def test_several_at_once_make_what_one_makes_and_nothing_twice(tmp_path) -> None:
    seen: list[Event] = []
    made_up = MadeUp(size=3)
    tried = explore(tmp_path, made_up, seen, trials=12)
    assert len(made_up.made) == len(set(made_up.made))
    assert sum(len(t.findings) > 1 or bool(t.failure) for t in tried) == 12
    under_way = [event.number for event in seen[:3] if isinstance(event, Raced)]
    assert len(set(under_way)) == 3


def test_no_training_is_begun_that_would_outlast_the_budget(tmp_path) -> None:
    made_up = MadeUp(minute=1.0)
    tried = explore(tmp_path, made_up, budget_minutes=40.0)
    assert 20 < made_up.spent < 40
    assert max(len(t.findings) for t in tried) == 4  # the front was trained to its end all the same


def test_the_fewer_are_drawn_the_less_drawing_is_worth(tmp_path, monkeypatch) -> None:
    drawn = []
    for worth in (math.inf, 1e-20):
        monkeypatch.setattr(racing, "worth_drawing", lambda *_, worth=worth: worth)
        seen: list[Event] = []
        explore(tmp_path / str(worth), MadeUp(minute=1.0), seen, budget_minutes=100.0)
        early = [e for e in seen if isinstance(e, Raced) and e.minutes < 60]
        drawn.append(sum(e.parent is None and e.fidelity == 0 for e in early))
    assert drawn[0] > 2 * drawn[1] > 0


@pytest.mark.parametrize("budget", [50.0, 60.0])
def test_whoever_is_made_is_trained_before_anyone_goes_on(tmp_path, budget: float) -> None:
    seen: list[Event] = []
    explore(tmp_path, MadeUp(minute=1.0), seen, space=STORED, budget_minutes=budget)
    raced = [(event.number, event.fidelity) for event in seen if isinstance(event, Raced)]
    first = [place for place, (_, fidelity) in enumerate(raced) if fidelity == 1]
    assert len(first) > 3
    assert [raced[place - 1] for place in first] == [(raced[place][0], 0) for place in first]


@pytest.mark.parametrize("budget", [30.0, 40.0, 50.0, 60.0])
def test_what_a_twin_has_costs_nothing_though_the_time_is_over(tmp_path, budget: float) -> None:
    made_up = MadeUp(minute=1.0)
    tried = explore(tmp_path, made_up, space=STORED, budget_minutes=budget)
    assert made_up.spent < budget
    lengths: dict[str, set[int]] = {}
    for one in tried:
        if not one.failure:
            lengths.setdefault(one.asked.sketch.before, set()).add(len(one.findings))
    assert all(len(different) == 1 for different in lengths.values())


def test_nobody_above_the_limit_is_trained_on_while_descendants_are_worth_it(
    tmp_path: Path,
) -> None:
    whole = Scored(_made("fold-batchnorm", 1_000_000), (BASELINE,) * FACES)
    request = SearchRequest("velvet-apu", max_nme_drop=1.0)
    study = Study(f"sqlite:///{tmp_path}/s.db", "s", SPACE, {}, seed=0, sampler="tpe")
    explorer = Explorer(*(request, study, None, None, whole))  # type: ignore[arg-type]
    errors = tuple(np.full(FACES, nme) for nme in (9.0, 6.0))
    above = Racer(0, Interval(0.5, 0.49, 0.51), errors, 10**6, 10**5)
    assert explorer._finisher([above], least=1e-12) is None
    assert explorer._finisher([above]) is above


def test_what_cannot_be_made_is_not_trained(tmp_path) -> None:
    made_up = MadeUp()
    tried = explore(tmp_path, made_up, trials=10)
    four = [t for t in tried if "count=4" in str(t.asked.sketch)]
    assert all(t.failure == "four are too many" and not t.findings for t in four)
