"""The use case `search`: candidates proposed, raced and trained until the front stands still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmopt.cost.estimate import TargetCost, estimate
from lmopt.data.dataset import Dataset
from lmopt.detector.detector import Detector
from lmopt.errors import BackendError, PassError, UsageError
from lmopt.exploration import racing
from lmopt.exploration.candidate import Trained
from lmopt.exploration.front import Front
from lmopt.exploration.racing import Interval
from lmopt.exploration.result import SearchResult
from lmopt.exploration.space import SearchSpace, Sketch, load_space, lowest
from lmopt.exploration.study import Asked, Finding, Study
from lmopt.flow import events
from lmopt.flow.candidates import HOST, default_folder, obtain, thread_counts
from lmopt.flow.events import Listener, ignore
from lmopt.flow.host_profile import target_named
from lmopt.flow.journal import Journal, key_of
from lmopt.flow.optimization import optimize
from lmopt.flow.pipelines import BASELINE, of_form
from lmopt.flow.request import SearchRequest
from lmopt.flow.sources import as_teacher, load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.frontend.tflite import read
from lmopt.latency import harness
from lmopt.latency.measurement import ratio
from lmopt.pipeline.catalog import installed
from lmopt.pipeline.manager import Pipeline
from lmopt.target.profile import Target
from lmopt.units import human_bytes

EXPLORED = 0.6
"""Part of the budget that goes to new candidates; the front is trained to the end with the next."""
FINISHED = 0.9
"""Part of the budget after which no training is begun: the rest measures and scores the front."""
MEASURED_S = 4.0
"""Seconds for a candidate and the baseline at one thread count."""
SMALLER = (
    ("resize-input{size=64..96:16}",),
    ("drop-block{count=1..4}",),
    ("prune{amount=0.1..0.9:0.05}", "prune{amount=0.1..0.9:0.05,by=latency}"),
)
"""Stages of alternatives that make a detector smaller, with the numbers that are worth trying."""
RECOVERY = "finetune{learning-rate=1e-3,distill=0.5}"


def search(request: SearchRequest, listen: Listener = ignore) -> SearchResult:
    """Returns the best front of validation NME against latency that the budget buys.

    Every answer is recorded before the next question: the same command again goes on where a
    killed one was, and a second process with the same folder adds to the same study.

    Args:
        request: What is wanted.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector, target or pass, or a malformed pipeline.
        InputError: Data, contract, space, study or model that cannot be used.
        SearchError: No candidate meets the constraints.
    """
    started = time.monotonic()
    target = target_named(request.target)
    detector = load(request.detector, contract=request.contract)
    detector.require_weights()
    contract = detector.require_contract()
    space = space_of(request)
    folder = default_folder(detector, target)
    out = request.out or folder.with_name(f"{folder.name}-search")
    url = request.study or f"sqlite:///{(out / 'study.db').resolve()}"
    if request.resume and request.study is None and not (out / "study.db").is_file():
        raise UsageError(f"no study to resume in {out}", where="--resume", hint="see --out")
    journal = Journal(out)
    faces = load_faces(request.data, contract, listen)
    with Workbench(
        detector,
        faces,
        target,
        seed=request.seed,
        teacher=as_teacher(request.teacher),
        cache=journal.cache,
        listen=listen,
    ) as bench:
        if request.space is None:
            space = fitted(space, bench, listen)
        study = Study(
            url,
            f"{detector.name} for {target.name}",
            space,
            _identity(request, detector, faces, target, space),
            seed=request.seed,
            sampler=request.sampler,
        )
        listen(events.Noted(f"searching {space.size:,} candidates with {request.sampler}"))
        explorer = Explorer(request, target, space, bench, journal, study, listen)
        stopped = explorer.run(lambda: (time.monotonic() - started) / 60.0)
        listen(events.Noted(f"stopped: {stopped}"))
        finals, volumes = explorer.finals(), explorer.volumes()
    optimized = optimize(request.final(finals, out), listen)
    return SearchResult(optimized, space, volumes, study.tried(), stopped)


def _identity(
    request: SearchRequest, detector: Detector, faces: Dataset, target: Target, space: SearchSpace
) -> str:
    """Returns a key over everything that findings depend on."""
    measured = _is_measured(request, target)
    teacher = as_teacher(request.teacher)
    return key_of(
        {
            "graph": detector.graph.digest(),
            "contract": repr(detector.contract),
            "data": faces.digest,
            "target": repr((target.name, target.forms)),
            "times": "measured" if measured else TargetCost(target).digest,
            "space": space.to_toml(),
            "seed": str(request.seed),
            "teacher": "" if teacher is None else teacher.graph.digest(),
        }
    )


def space_of(request: SearchRequest) -> SearchSpace:
    """Returns the space that the user names, or what is worth trying on the target.

    Raises:
        UsageError: Unknown target.
        InputError: The space cannot be used.
    """
    return load_space(request.space) if request.space else space_for(target_named(request.target))


def space_for(target: Target) -> SearchSpace:
    """Returns what is worth trying on a target.

    Every installed pass that makes detectors smaller, and float32 and what the target prefers for
    storage, as far as they are legal there; on this host, where each file is measured, int8 too.
    """
    installed_ones = installed().targets
    stored = ("float32", target.preferred, *(("int8",) if target.name == HOST else ()))
    forms = [form for form in dict.fromkeys(stored) if target.rule(form).legal]
    endings = (str(of_form(form)).removeprefix(BASELINE).lstrip(",") for form in forms)
    return SearchSpace(
        before=tuple(
            ("", *(text for text in texts if text.partition("{")[0] in installed_ones))
            for texts in SMALLER
        ),
        after=(tuple(endings),),
        recovery=RECOVERY,
    )


def fitted(space: SearchSpace, bench: Workbench, listen: Listener = ignore) -> SearchSpace:
    """Returns the space without alternatives that this detector does not take at all."""

    def fits(text: str) -> bool:
        try:
            bench.run(Pipeline.parse(lowest(f"{space.begin},{text}" if text else space.begin)))
        except PassError as error:
            listen(events.Noted(f"left out: {text}: {error.what}"))
            return False
        return True

    before = (tuple(text for text in stage if fits(text)) for stage in space.before)
    return replace(space, before=tuple(stage for stage in before if stage and stage != ("",)))


def _is_measured(request: SearchRequest, target: Target) -> bool:
    if request.latency == "auto":
        return target.name == HOST
    return request.latency == "measure"


class Explorer:
    """Asks, trains and records until a limit is met; all it knows is in the study.

    Attributes:
        baseline: The float file that latencies are relative to.
    """

    def __init__(
        self,
        request: SearchRequest,
        target: Target,
        space: SearchSpace,
        bench: Workbench,
        journal: Journal,
        study: Study,
        listen: Listener = ignore,
    ) -> None:
        """Makes the baseline.

        Raises:
            BackendError: The baseline cannot be run.
        """
        self.request, self.target, self.space = request, target, space
        self.bench, self.journal, self.study, self.listen = bench, journal, study, listen
        self.baseline, _ = obtain(bench, journal, Pipeline.parse(BASELINE))
        self.errors = self._errors(self.baseline)
        self.fidelities = len(space.epochs)

    def run(self, minutes: Callable[[], float]) -> str:
        """Explores, then trains what may be on the front to the end; returns why it stopped.

        Args:
            minutes: Tells how much of the budget is spent.
        """
        budget = self.request.budget_minutes
        stopped = self._explore(lambda: minutes() > EXPLORED * budget)
        while minutes() < FINISHED * budget:
            racer = racing.next_to_finish(self.study.racers(), self.fidelities)
            if racer is None:
                return stopped
            self._train(racer.number, racer.fidelity + 1)
        return f"{stopped}; not all of the front is trained to the end: give a larger --budget"

    def _explore(self, is_late: Callable[[], bool]) -> str:
        while not is_late():
            if self._has_settled():
                return "the front has stood still"
            racer = racing.next_to_train(self.study.racers(), self.fidelities)
            if racer is not None:
                self._train(racer.number, racer.fidelity + 1)
                continue
            if self.request.trials is not None and self.study.told >= self.request.trials:
                return f"{self.study.told} candidates were tried"
            asked = self.study.ask()
            if asked is None:
                return "the space holds no more"
            self._begin(asked)
        return "the time for new candidates is over"

    def _begin(self, asked: Asked) -> None:
        """Makes a new candidate without training, then trains it a little if it is worth it."""
        number, known = asked.number, self.study.findings().get(asked.number, ())
        try:
            if not known:
                known = (self._find(number, asked.sketch, 0, None),)
            refused = self._refused(known[0])
            if refused:
                self.study.fail(number, refused)
                self.listen(events.Dropped(number, refused))
                return
            racers = {racer.number: racer for racer in self.study.racers()}
            guess = racing.hopeless(racers[number], tuple(racers.values()))
            if guess is not None:
                reason = f"about {guess:.1f} % is expected of it, which others have that are faster"
                self.study.drop(number, reason)
                self.study.tell(number, guess, known[0].ms.value)
                self.listen(events.Dropped(number, reason))
                return
            if len(known) == 1:
                known = (*known, self._find(number, asked.sketch, 1, known[0]))
        except (PassError, BackendError) as error:
            self.study.fail(number, str(error))
            self.listen(events.Dropped(number, str(error)))
            return
        self.study.tell(number, known[1].nme_percent, known[0].ms.value)

    def _train(self, number: int, fidelity: int) -> None:
        """Trains a candidate on to its next fidelity."""
        self.study.claim(number)
        sketch = next(asked.sketch for asked in self.study.asked if asked.number == number)
        try:
            self._find(number, sketch, fidelity, self.study.findings()[number][0])
        except (PassError, BackendError) as error:
            self.study.drop(number, str(error))
            self.listen(events.Dropped(number, str(error)))

    def _find(self, number: int, sketch: Sketch, fidelity: int, first: Finding | None) -> Finding:
        """Returns and records what a candidate is after a fidelity."""
        self.listen(events.Raced(number, fidelity, self.fidelities, sketch))
        made, _ = obtain(self.bench, self.journal, self.space.pipeline(sketch, fidelity))
        ms, latency_ms = self._latency(made) if first is None else (first.ms, first.latency_ms)
        found = Finding(
            pipeline=made.pipeline,
            digest=made.digest,
            size_bytes=made.size_bytes,
            errors=self._errors(made),
            macs=made.macs,
            parameters=made.parameters,
            ms=ms,
            latency_ms=latency_ms,
        )
        self.study.keep(number, fidelity, found)
        volume = self._volume() if fidelity else None
        self.listen(events.Found(number, found.nme_percent, ms, volume))
        return found

    def _volume(self, until: int | None = None) -> Interval:
        return racing.front_volume(self.study.racers(until), np.asarray(self.errors))

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

    def _errors(self, made: Trained) -> tuple[float, ...]:
        return self.bench.score(Path(made.model), "validation").per_face

    def _latency(self, made: Trained) -> tuple[Interval, float]:
        """Returns a file's latency relative to the baseline's, and in milliseconds.

        Training changes no latency, so the untrained file stands for all that follow.
        """
        threads = thread_counts(self.target, self.request.threads)
        if not _is_measured(self.request, self.target):
            guess = self._estimated(made)
            relative_guess = guess / self._estimated(self.baseline)
            return Interval(relative_guess, relative_guess, relative_guess), guess
        files = {item.digest: Path(item.model) for item in (self.baseline, made)}
        measured = harness.compare(
            files, threads=threads, max_seconds=MEASURED_S * len(threads), seed=self.request.seed
        )
        base, own = (harness.best(measured, item.digest) for item in (self.baseline, made))
        relative = ratio(own, base)
        return Interval(relative.value, relative.low, relative.high), own.p50

    def _estimated(self, made: Trained) -> float:
        graph, _ = read(Path(made.model).read_bytes(), made.model)
        return estimate(graph, self.target, threads=self.request.threads).latency_ms

    def finals(self) -> tuple[str, ...]:
        """Returns the pipelines on the front, as far as they are trained; the baseline for none."""
        racers = [racer for racer in self.study.racers() if racer.fidelity]
        front = Front.of(racers, lambda racer: (racer.nme(racer.fidelity), racer.ms.value))
        findings = self.study.findings()
        found = tuple(findings[racer.number][-1].pipeline for racer in front.points)
        return found or (BASELINE,)
