"""The use case `optimize`: from a detector, faces and a target to a Pareto front of files."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmopt.cost.estimate import estimate
from lmopt.data.dataset import SPLITS
from lmopt.detector.detector import Detector
from lmopt.errors import BackendError, PassError, SearchError, UsageError
from lmopt.exploration.candidate import Candidate, Failure, Latency, Trained
from lmopt.exploration.front import Front
from lmopt.exploration.result import Dominated, OptimizeResult
from lmopt.flow import events
from lmopt.flow.environment import environment
from lmopt.flow.events import Listener, ignore
from lmopt.flow.journal import Journal, key_of
from lmopt.flow.request import OptimizeRequest
from lmopt.flow.sources import as_teacher, kind_of_faces, load, load_faces
from lmopt.flow.workbench import Workbench
from lmopt.frontend.tflite import read
from lmopt.latency import harness, host
from lmopt.latency.measurement import Measurement, ratio
from lmopt.pipeline.base import Need, Pass
from lmopt.pipeline.cache import code_digest
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.target.catalog import load_target
from lmopt.target.profile import Target

BASELINE = "fold-batchnorm"
HOST = "host"


def optimize(request: OptimizeRequest, listen: Listener = ignore) -> OptimizeResult:
    """Returns the front of validation NME against latency that the pipelines reach.

    Every pipeline is run, emitted, scored on the validation faces and recorded; a rerun with the
    same arguments takes finished candidates from the journal. Then all files are measured on this
    host in one interleaved run, and the baseline and the front see the test faces once.

    Args:
        request: What is wanted.
        listen: Receives progress events.

    Raises:
        UsageError: Unknown detector, target or pass, or a malformed pipeline.
        InputError: Data, contract or model that cannot be used.
        SearchError: No candidate meets the constraints.
    """
    target = load_target(request.target)
    detector = load(request.detector, contract=request.contract)
    detector.require_weights()
    contract = detector.require_contract()
    pipelines = _pipelines(request, target)
    out = request.out or default_folder(detector, target)
    journal = Journal(out)
    faces = load_faces(request.data, contract, listen)
    for split in SPLITS:
        faces.split(split)
    listen(events.Started(detector.name, target.name, faces.name, len(pipelines)))

    with Workbench(
        detector,
        faces,
        target,
        seed=request.seed,
        teacher=as_teacher(request.teacher),
        cache=out / "cache",
        listen=listen,
    ) as bench:
        for pipeline in pipelines:
            pipeline.check(bench.context())
        made, failures = _make_all(request, bench, journal, pipelines, listen)
        baseline = made.pop(BASELINE, None)
        if baseline is None:
            reason = next(f.reason for f in failures if f.pipeline == BASELINE)
            raise BackendError(f"the float baseline failed: {reason}", where=detector.name)
        bench.rest()
        listen(events.Activity("measuring every file on this host, interleaved"))
        measured = _measure({BASELINE: baseline, **made}, target, request)
        timing = _Timing(target, request, measured, baseline)
        base = timing.candidate(baseline)
        candidates = [base]
        for trained in made.values():
            try:
                candidates.append(timing.candidate(trained))
            except BackendError as error:
                failures.append(Failure(trained.pipeline, "failed", str(error)))
        usable, refused = _constrain(
            candidates, base, request, bench.protocol("validation").mean_shape_nme_percent
        )
        front = Front.of(usable, lambda c: c.objectives)
        listen(events.Activity("scoring the front on the test faces"))
        tested = {
            c.trained.digest: bench.score(Path(c.trained.model), "test")
            for c in (base, *front.points)
        }

    def with_test(candidate: Candidate) -> Candidate:
        return replace(candidate, nme_percent=tested[candidate.trained.digest].nme_percent)

    test = tested[base.trained.digest]
    return OptimizeResult(
        target=target.name,
        detector=detector.name,
        data={
            "name": faces.name,
            "digest": faces.digest,
            "faces": {split: len(faces.split(split)) for split in SPLITS},
            "normaliser": test.normaliser,
            "crop": test.crop,
            "kind": kind_of_faces(request.data),
        },
        baseline=with_test(base),
        front=tuple(with_test(c) for c in front.points),
        dominated=tuple(Dominated(c, f"dominated by {by.pipeline}") for c, by in front.dominated),
        failures=(*refused, *failures),
        environment={
            **environment(),
            "host": str(host.describe()),
            "seed": request.seed,
            "measured_target": _is_measured(target, request),
            "busy": any(m.busy for m in measured.values()),
            "out": str(out.resolve()),
        },
    )


def default_folder(detector: Detector, target: Target) -> Path:
    """Returns where a run keeps its files when the user names no folder."""
    return (
        Path("out")
        / f"{Path(detector.name).stem if '/' in detector.name else detector.name}-{target.name}"
    )


def scaled(pipeline: Pipeline, effort: float) -> Pipeline:
    """Returns the pipeline with the epochs of every training pass multiplied by `effort`."""
    return Pipeline(tuple(_scaled(item, effort) for item in pipeline.passes))


def _scaled(item: Pass, effort: float) -> Pass:
    options = {field.name for field in dataclasses.fields(item)}
    if "epochs" not in options or Need.TRAINER not in item.required():
        return item
    changes: dict[str, Any] = {"epochs": getattr(item, "epochs") * effort}  # noqa: B009 - an option
    return replace(item, **changes)


def _pipelines(request: OptimizeRequest, target: Target) -> tuple[Pipeline, ...]:
    """Returns the float baseline and what the user or else the target wants tried, each once."""
    if request.passes:
        wanted = [Pipeline.parse(text) for text in request.passes]
    else:
        wanted = [scaled(Pipeline.parse(text), request.effort) for text in target.pipelines]
    if not wanted:
        raise UsageError(
            f"target '{target.name}' names no pipelines", hint="give some with --passes"
        )
    return tuple(dict.fromkeys([Pipeline.parse(BASELINE), *wanted]))


def _make_all(
    request: OptimizeRequest,
    bench: Workbench,
    journal: Journal,
    pipelines: tuple[Pipeline, ...],
    listen: Listener,
) -> tuple[dict[str, Trained], list[Failure]]:
    started = time.monotonic()
    made: dict[str, Trained] = {}
    failures: list[Failure] = []
    for position, pipeline in enumerate(pipelines, start=1):
        text = str(pipeline)
        minutes = (time.monotonic() - started) / 60.0
        if request.budget_minutes is not None and minutes > request.budget_minutes and made:
            failures.append(
                Failure(text, "skipped", f"the budget of {request.budget_minutes:g} min was spent")
            )
            listen(events.CandidateFailed(failures[-1]))
            continue
        listen(events.CandidateStarted(position, len(pipelines), text))
        key = _key(bench, pipeline, request.seed)
        found = journal.find(key)
        if found is not None:
            made[text] = found
            listen(events.CandidateTrained(found, resumed=True))
            continue
        try:
            made[text] = _make(bench, journal, pipeline)
        except (PassError, BackendError) as error:
            failures.append(Failure(text, "failed", str(error)))
            listen(events.CandidateFailed(failures[-1]))
            continue
        journal.record(key, made[text])
        listen(events.CandidateTrained(made[text], resumed=False))
    return made, failures


def _make(bench: Workbench, journal: Journal, pipeline: Pipeline) -> Trained:
    start = time.monotonic()
    result = bench.run(pipeline)
    data = bench.file(result.graph)
    parity = bench.prove(result.graph, data)
    score = bench.score(data, "validation")
    path = journal.write_model(data)
    return Trained(
        pipeline=str(pipeline),
        digest=file_digest(data),
        model=str(path),
        size_bytes=len(data),
        val_nme_percent=score.nme_percent,
        parameters=result.graph.parameters,
        macs=result.graph.macs,
        seconds=time.monotonic() - start,
        notes=(*result.notes, *parity),
    )


def _key(bench: Workbench, pipeline: Pipeline, seed: int) -> str:
    detector, faces, teacher = bench.detector, bench.faces, bench.teacher
    return key_of(
        {
            "graph": detector.graph.digest(),
            "contract": repr(detector.contract),
            "pipeline": str(pipeline),
            "data": "" if faces is None else faces.digest,
            "seed": str(seed),
            "code": code_digest(pipeline.passes),
            **({} if teacher is None else {"teacher": teacher.graph.digest()}),
        }
    )


def _is_measured(target: Target, request: OptimizeRequest) -> bool:
    return target.name == HOST or request.device == "host"


def _measure(
    made: Mapping[str, Trained], target: Target, request: OptimizeRequest
) -> dict[harness.Key, Measurement]:
    """Returns measurements by file digest and thread count; equal files are measured once."""
    files = {trained.digest: Path(trained.model) for trained in made.values()}
    if request.threads is not None:
        threads: tuple[int, ...] = (request.threads,)
    else:
        wanted = target.threads if target.name == HOST else (1, 2)
        threads = tuple(n for n in wanted if n <= host.usable_cores()) or (1,)
    return harness.compare(files, threads=threads, max_seconds=min(60.0, 3.0 * len(files)))


class _Timing:
    """Puts latencies on trained candidates: measured on this host, estimated for the target."""

    def __init__(
        self,
        target: Target,
        request: OptimizeRequest,
        measured: Mapping[harness.Key, Measurement],
        baseline: Trained,
    ) -> None:
        self._target = target
        self._request = request
        self._measured = measured
        self._baseline = harness.best(measured, baseline.digest)

    def candidate(self, trained: Trained) -> Candidate:
        """Returns the candidate; raises BackendError when the target cannot run it at all."""
        best = harness.best(self._measured, trained.digest)
        gain = ratio(self._baseline, best)
        speedup = (gain.value, gain.low, gain.high)
        low, high = best.interval
        here = Latency(best.p50, "measured", best.where, low, high, best.threads)
        if _is_measured(self._target, self._request):
            return Candidate(trained, here, here, speedup)
        graph, _ = read(Path(trained.model).read_bytes(), trained.model)
        guess = estimate(graph, self._target, threads=self._request.threads)
        there = Latency(
            guess.latency_ms,
            "estimated",
            self._target.name,
            max(0.0, guess.latency_ms - guess.error_ms),
            guess.latency_ms + guess.error_ms,
            guess.threads,
        )
        return Candidate(trained, there, here, speedup)


def _constrain(
    candidates: list[Candidate],
    baseline: Candidate,
    request: OptimizeRequest,
    mean_shape_nme: float,
) -> tuple[list[Candidate], list[Failure]]:
    """Returns the candidates worth choosing from, and the others with the reason.

    A file no better than the mean shape in every crop, where the baseline is, has unlearned
    everything, however fast it is.
    """
    usable: list[Candidate] = []
    refused: list[Failure] = []
    for candidate in candidates:
        drop = candidate.trained.val_nme_percent - baseline.trained.val_nme_percent
        if baseline.trained.val_nme_percent < mean_shape_nme <= candidate.trained.val_nme_percent:
            reason = (
                f"validation NME {candidate.trained.val_nme_percent:.2f} % is no better than the "
                f"mean shape's {mean_shape_nme:.2f} %: it needs more training"
            )
        elif request.max_nme_drop is not None and drop > request.max_nme_drop:
            reason = f"validation NME rises by {drop:.2f} points, allowed {request.max_nme_drop:g}"
        elif request.max_latency_ms is not None and candidate.latency.ms > request.max_latency_ms:
            reason = (
                f"{candidate.latency.kind} latency {candidate.latency.ms:.2f} ms, "
                f"allowed {request.max_latency_ms:g}"
            )
        else:
            usable.append(candidate)
            continue
        refused.append(Failure(candidate.pipeline, "failed", reason))
    if not usable:
        closest = "; ".join(f"{f.pipeline}: {f.reason}" for f in refused[:3])
        raise SearchError(
            f"none of {len(candidates)} candidates meets the limits ({closest})",
            hint="loosen --max-nme-drop or --max-latency, or add pipelines with --passes",
        )
    return usable, refused
