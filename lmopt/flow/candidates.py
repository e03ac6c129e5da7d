"""Candidates made, scored and timed: what `optimize` and `storage` do alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lmopt.cost.estimate import estimate
from lmopt.detector.detector import Detector
from lmopt.exploration.candidate import Candidate, Latency, Trained
from lmopt.flow.journal import Journal, key_of
from lmopt.flow.pipelines import BASELINE
from lmopt.flow.request import OptimizeRequest
from lmopt.flow.saved_model import (
    saved_models_at,
    takes_saved_models,
    write_saved_models,
)
from lmopt.flow.workbench import Workbench
from lmopt.frontend.tflite import read
from lmopt.latency import harness, host
from lmopt.latency.measurement import Measurement, ratio
from lmopt.pipeline.cache import code_digest
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.target.legality import require_legal
from lmopt.target.profile import Target

HOST = "host"


def default_folder(detector: Detector, target: Target) -> Path:
    """Returns where a run keeps its files when the user names no folder."""
    return (
        Path("out")
        / f"{Path(detector.name).stem if '/' in detector.name else detector.name}-{target.name}"
    )


def obtain(bench: Workbench, journal: Journal, pipeline: Pipeline) -> tuple[Trained, bool]:
    """Returns the candidate of a pipeline, and whether the journal had it already.

    Raises:
        PassError: A pass cannot work on this detector.
        BackendError: Training failed, the runtime refuses the file, or the target's rules do.
    """
    key = _key(bench, pipeline)
    found = journal.find(key)
    if found is not None:
        return found, True
    made = _make(bench, journal, pipeline)
    journal.record(key, made)
    return made, False


def _make(bench: Workbench, journal: Journal, pipeline: Pipeline) -> Trained:
    start = time.monotonic()
    target = bench.target
    result = bench.run(pipeline)
    # The baseline is what others are compared with, whether or not it may ship.
    if target is not None and str(pipeline) != BASELINE:
        require_legal(result.graph, target)
    data = bench.file(result.graph)
    parity = bench.prove(result.graph, data)
    score = bench.score(data, "validation")
    path = journal.write_model(data)
    folder, notes = None, (*result.notes, *parity)
    if target is not None and takes_saved_models(target):
        folder = path.with_suffix("")
        saved = (
            saved_models_at(folder)  # of another pipeline with the same result
            if folder.is_dir()
            else write_saved_models(bench, result.graph, folder)
        )
        notes = (*notes, *map(str, saved))
    return Trained(
        pipeline=str(pipeline),
        digest=file_digest(data),
        model=str(path),
        size_bytes=len(data),
        val_nme_percent=score.nme_percent,
        parameters=result.graph.parameters,
        macs=result.graph.macs,
        seconds=time.monotonic() - start,
        notes=notes,
        saved_models=None if folder is None else str(folder),
    )


def _key(bench: Workbench, pipeline: Pipeline) -> str:
    detector, faces, teacher, target = bench.detector, bench.faces, bench.teacher, bench.target
    rules = "" if target is None else (target.runtime, target.fallback, target.forms, target.limits)
    return key_of(
        {
            "graph": detector.graph.digest(),
            "contract": repr(detector.contract),
            "pipeline": str(pipeline),
            "data": "" if faces is None else faces.digest,
            "seed": str(bench.seed),
            "code": code_digest(pipeline.passes),
            "rules": repr(rules),
            **({} if teacher is None else {"teacher": teacher.graph.digest()}),
        }
    )


def is_measured(target: Target, request: OptimizeRequest) -> bool:
    """Returns whether the latencies that count are measured on this host."""
    return target.name == HOST or request.device == "host"


def measure_all(
    made: Iterable[Trained], target: Target, request: OptimizeRequest
) -> dict[harness.Key, Measurement]:
    """Returns measurements by file digest and thread count; equal files are measured once."""
    files = {trained.digest: Path(trained.model) for trained in made}
    if request.threads is not None:
        threads: tuple[int, ...] = (request.threads,)
    else:
        wanted = target.threads if target.name == HOST else (1, 2)
        threads = tuple(n for n in wanted if n <= host.usable_cores()) or (1,)
    return harness.compare(files, threads=threads, max_seconds=min(60.0, 2.0 * len(files)))


class Timing:
    """Puts latencies on trained candidates: measured on this host, estimated for the target."""

    def __init__(
        self,
        target: Target,
        request: OptimizeRequest,
        measured: Mapping[harness.Key, Measurement],
        baseline: Trained,
    ) -> None:
        """Keeps what `measure_all` found; `baseline` is what speed-ups refer to."""
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
        if is_measured(self._target, self._request):
            return Candidate(trained, here, here, speedup)
        graph, _ = read(Path(trained.model).read_bytes(), trained.model)
        guess = estimate(graph, self._target, threads=self._request.threads)
        there = Latency(
            guess.latency_ms,
            "estimated",
            self._target.name,
            guess.low_ms,
            guess.high_ms,
            guess.threads,
        )
        return Candidate(trained, there, here, speedup)
