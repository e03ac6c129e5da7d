"""The loop of a search: asks, has candidates made, races them, and records every answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmopt.errors import BackendError, PassError
from lmopt.exploration import racing
from lmopt.exploration.candidate import Objective, Trained
from lmopt.exploration.expectation import hopeless
from lmopt.exploration.finding import Finding
from lmopt.exploration.front import Front
from lmopt.exploration.racer import Interval, Racer
from lmopt.exploration.space import Sketch
from lmopt.exploration.study import Study
from lmopt.flow import events
from lmopt.flow.crew import Crew, Outcome, Scored, Task
from lmopt.flow.events import Listener, ignore
from lmopt.flow.gauging import Gauge, Gauged
from lmopt.flow.pipelines import BASELINE
from lmopt.flow.request import SearchRequest
from lmopt.units import human_bytes

EXPLORED = 0.6
"""Part of the budget in which candidates are drawn before everything else is trained to its end."""
FINISHED = 0.9
"""Part of the budget that trainings have to be done in: the rest measures and scores the front."""
LEAST = 1e-3
"""What a figure counts as that is lower, STD in percent of a network that answers always alike."""
GROWN = 0.5
"""Part of the candidates that may inherit the weights of another one."""


class Explorer:
    """Asks, has made and records until a limit is met; all it has to remember is in the study."""

    def __init__(
        self,
        request: SearchRequest,
        study: Study,
        crew: Crew,
        gauge: Gauge,
        baseline: Scored,
        listen: Listener = ignore,
    ) -> None:
        """Keeps what it is given.

        Args:
            request: Its limits count.
            study: Proposes and records; its space says how candidates are trained.
            crew: Makes candidates.
            gauge: Tells their latencies.
            baseline: The float file.
            listen: Receives events.
        """
        self.request, self.space, self.study = request, study.space, study
        self.crew, self.gauge, self.listen = crew, gauge, listen
        self.baseline = baseline.made
        self.errors = np.array(baseline.errors, np.float64)
        self.fidelities = len(self.space.epochs)
        drop = request.max_nme_drop
        self.limit = math.inf if drop is None else float(self.errors.mean()) + drop
        self._under_way: dict[int, Task] = {}
        self._begun: list[int] = []
        self._stopped = ""

    def run(self, minutes: Callable[[], float]) -> str:
        """Explores, then trains what may be on the front to the end; returns why it stopped.

        Args:
            minutes: Tells how much of the budget is spent.
        """
        while True:
            while not self.crew.is_full and (task := self._next(now := minutes())) is not None:
                self._begin(task, now)
            if not self._under_way:
                break
            self._take(self.crew.finish())
        stopped = self._stopped or "the time is over"
        if self._finisher(self.study.racers()) is None:
            return stopped
        return f"{stopped}; not all of the front is trained to the end: the same command goes on"

    def _next(self, minutes: float) -> Task | None:
        """Returns what is to be made next; None when that hangs on what is under way, or is over.

        The front is trained towards its end as long as that gains it more for its work than
        descendants are expected to, and than the last candidates did that were drawn. Whoever was
        chosen so has its first training before anybody goes on.
        """
        budget = self.request.budget_minutes
        left = FINISHED * budget - minutes
        if left < 0:
            return self._next_twin()
        least = math.inf if self.study.has_unfinished(self._under_way) else self._best_descent()
        if minutes <= EXPLORED * budget:
            least = max(least, self._worth_drawing())
        return (
            self._next_to_finish(left, least)
            or self._next_to_explore(left)
            or self._next_to_finish(left)
        )

    def _next_to_explore(self, left: float) -> Task | None:
        """Returns a task; notes the reason where there is nothing to explore any more."""
        if self._begun:
            return self._task(self._begun.pop(0), 1)
        if (task := self._next_twin()) is not None:
            return task
        while not self._stopped:
            if self._has_settled():
                self._stopped = "the front has stood still"
                break
            if not self.study.has_waiting(self._under_way):
                racer = racing.next_to_train(
                    self._free(left), self.space.epochs, self.limit, self._best_descent()
                )
                if racer is not None:
                    return self._task(racer.number, racer.fidelity + 1)
            new = sum(task.fidelity < 2 for task in self._under_way.values())
            if self.request.trials is not None and self.study.told + new >= self.request.trials:
                self._stopped = f"{self.study.told + new} candidates were tried"
                break
            self._grow()
            asked = self.study.ask(self._under_way)
            if asked is None:
                self._stopped = "the space holds no more"
                break
            if not self.study.findings().get(asked.number):
                return self._task(asked.number, 0)
            self._judge(asked.number)
            if self._begun:
                return self._task(self._begun.pop(0), 1)
        return None

    def _grow(self) -> None:
        """Puts a good candidate's twin or its descendant in line, unless others come first."""
        if self.study.has_waiting(self._under_way):
            return
        worth = self._worth_extending()
        descents = self._descents(worth)
        for parent in worth:
            if self.study.vary(parent[0]):
                return
            if parent in descents:
                self.study.grow(*parent)
                return

    def _worth_extending(self) -> dict[tuple[int, int], float]:
        return racing.worth_extending(self.study.racers(), self.space.epochs, self.limit)

    def _descents(self, worth: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
        """Returns what of that may be had: each once, and not too many of them."""
        parents = self.study.parents()
        if not self.space.further or len(parents) >= GROWN * len(self.study.asked):
            return {}
        had = set(parents.values())
        return {parent: gain for parent, gain in worth.items() if parent not in had}

    def _best_descent(self) -> float:
        """Returns what the front gains for its work by the best of them; 0 where there is none."""
        return max(self._descents(self._worth_extending()).values(), default=0.0)

    def _worth_drawing(self) -> float:
        return racing.worth_drawing(self.study.racers(), self.space.epochs, self.limit)

    def _next_twin(self) -> Task | None:
        """Returns what costs next to nothing: whose twin has been through its next training."""
        free = [r for r in self.study.racers() if r.number not in self._under_way]
        trained: dict[str | None, int] = {}
        for racer in free:
            trained[racer.training] = max(racer.fidelity, trained.get(racer.training, 0))
        for racer in free:
            if 0 < racer.fidelity < trained[racer.training] and not racer.dropped:
                return self._task(racer.number, racer.fidelity + 1)
        return None

    def _next_to_finish(self, left: float, least: float = 0.0) -> Task | None:
        if (task := self._next_twin()) is not None:
            return task
        racer = self._finisher(self._free(left), least)
        return None if racer is None else self._task(racer.number, racer.fidelity + 1)

    def _finisher(self, racers: Sequence[Racer], least: float = 0.0) -> Racer | None:
        """Returns whom to train on; one above the limit where nothing else is left."""
        epochs = self.space.epochs
        wanted = racing.next_to_finish(racers, epochs, self.limit, least)
        return wanted if wanted or least else racing.next_to_finish(racers, epochs)

    def _free(self, left: float) -> tuple[Racer, ...]:
        """Returns the candidates; whom another one trains, or who takes too long, is out.

        Args:
            left: Minutes.
        """
        racers, findings = self.study.racers(), self.study.findings()
        took: dict[tuple[str | None, int], float] = {}
        for racer in racers:
            for fidelity, found in enumerate(findings[racer.number]):
                training = racer.training, fidelity
                took[training] = max(found.seconds, took.get(training, 0.0))

        def is_out(racer: Racer) -> bool:
            last = racer.fidelity
            if racer.number in self._under_way:
                return True
            if not 0 < last < self.fidelities:
                return False
            longer = self.space.epochs[last] / self.space.epochs[last - 1]
            return took[racer.training, last] * longer > 60 * left

        return tuple(replace(racer, dropped=True) if is_out(racer) else racer for racer in racers)

    def _task(self, number: int, fidelity: int) -> Task:
        sketch = self.study.sketch(number)
        return Task(number, fidelity, self.space.pipeline(sketch, fidelity))

    def _begin(self, task: Task, minutes: float) -> None:
        self.study.claim(task.number)
        self._under_way[task.number] = task
        own, parent = self._own(task.number)
        budget = self.request.budget_minutes
        self.listen(
            events.Raced(task.number, task.fidelity, self.fidelities, own, parent, minutes, budget)
        )
        self.crew.begin(task)

    def _own(self, number: int) -> tuple[Sketch, tuple[int, int] | None]:
        """Returns what a candidate does behind what it has from another, and from whom."""
        sketch = self.study.sketch(number)
        first = next(a for a in self.study.asked if a.sketch.before == sketch.before)
        if first.number != number:
            return Sketch("", sketch.after), (first.number, 0)
        parent = self.study.parents().get(number)
        return (sketch if parent is None else Sketch(self.space.further, sketch.after)), parent

    def _take(self, outcome: Outcome) -> None:
        """Records what became of a task."""
        task, found = outcome.task, outcome.found
        del self._under_way[task.number]
        try:
            if not isinstance(found, Scored):
                raise found
            self._keep(task, found)
        except (PassError, BackendError) as error:
            (self.study.fail if task.fidelity < 2 else self.study.drop)(task.number, str(error))
            self.listen(events.Dropped(task.number, str(error)))
            return
        if task.fidelity < 2:
            self._judge(task.number)

    def _keep(self, task: Task, scored: Scored) -> None:
        # Training changes no latency, so the untrained file stands for all that follow.
        known = self.study.findings().get(task.number)
        gauged = Gauged(known[0].ms, known[0].latency_ms) if known else self.gauge.of(scored.made)
        found = Finding(
            pipeline=scored.made.pipeline,
            digest=scored.made.digest,
            size_bytes=scored.made.size_bytes,
            errors=scored.errors,
            macs=scored.made.macs,
            parameters=scored.made.parameters,
            ms=gauged.relative,
            latency_ms=gauged.ms,
            more=tuple(self._relative(scored.made, name) for name in self.request.objectives),
            seconds=scored.made.seconds,
        )
        self.study.keep(task.number, task.fidelity, found)
        volume = self._volume() if task.fidelity else None
        more: dict[str, float] = dict(zip(self.request.objectives, found.more, strict=True))
        self.listen(events.Found(task.number, found.nme_percent, found.ms, volume, more))

    def _relative(self, made: Trained, objective: Objective) -> float:
        """Returns a figure over the baseline's; never 0, for its logarithm is taken."""
        own, base = (max(item.figure(objective), LEAST) for item in (made, self.baseline))
        return own / base

    def _judge(self, number: int) -> None:
        """Tells the sampler what a new candidate is worth, or has it trained a little first."""
        known = self.study.findings()[number]
        if len(known) > 1:
            self.study.tell(number, known[1].nme_percent, known[0].ms.value, known[1].more)
            return
        refused = self._refused(known[0])
        if refused:
            self.study.fail(number, refused)
            self.listen(events.Dropped(number, refused))
            return
        racers = {racer.number: racer for racer in self.study.racers()}
        guess = hopeless(racers[number], tuple(racers.values()))
        if guess is None:
            self._begun.append(number)
            return
        reason = f"about {guess:.1f} % is expected of it, which others have that are faster"
        self.study.drop(number, reason)
        self.study.tell(number, guess, known[0].ms.value, known[0].more)
        self.listen(events.Dropped(number, reason))

    def _volume(self, until: int | None = None) -> Interval:
        return racing.front_volume(self.study.racers(until), self.errors)

    def _results(self) -> list[int]:
        """Returns how many findings there were after every result of a training."""
        rows = (rows[1:] for rows in self.study.findings().values())
        return sorted(row.place + 1 for trained in rows for row in trained)

    def _has_settled(self) -> bool:
        results = self._results()
        if len(results) <= racing.PATIENCE:
            return False
        before = self._volume(results[-1 - racing.PATIENCE])
        return racing.has_settled(before, self._volume())

    def volumes(self) -> tuple[Interval, ...]:
        """Returns the hypervolume after every result of a training."""
        return tuple(self._volume(until) for until in self._results())

    def _refused(self, found: Finding) -> str:
        """Returns why a candidate cannot be wanted whatever its NME; empty when it can."""
        limit, size = self.request.max_latency_ms, self.request.max_size_bytes
        if limit is not None and found.latency_ms * found.ms.low / found.ms.value > limit:
            return f"{found.latency_ms:.2f} ms, allowed {limit:g}"
        if size is not None and found.size_bytes > size:
            return f"{human_bytes(found.size_bytes)}, allowed {human_bytes(size)}"
        return ""

    def finals(self) -> tuple[str, ...]:
        """Returns the pipelines on the front, as far as they are trained; the baseline for none."""
        racers = [racer for racer in self.study.racers() if racer.fidelity]
        front = Front.of(racers, lambda r: (r.nme(r.fidelity), *r.more, r.ms.value))
        findings = self.study.findings()
        found = tuple(findings[racer.number][-1].pipeline for racer in front.points)
        return found or (BASELINE,)
