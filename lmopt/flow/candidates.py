"""Candidates made, scored and timed: what `optimize` and `storage` do alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.cost.estimate import TargetCost, estimate
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.device.adb import DeviceLostError, is_phone
from lmopt.errors import BackendError
from lmopt.exploration.candidate import Candidate, Latency, Trained
from lmopt.flow.journal import Journal, key_of
from lmopt.flow.phone import Cabled, OutputsCompared, compare_outputs
from lmopt.flow.pipelines import BASELINE, require_legal_end
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
from lmopt.latency.phone import PhoneRun
from lmopt.pipeline.cache import code_digest
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.runner import file_digest
from lmopt.target.legality import require_legal
from lmopt.target.profile import Target

HOST = "host"
PHONE_S = 15.0
"""Seconds for a file at one thread count on a phone, unless its interval is narrow before."""


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
    if target is not None and str(pipeline) != BASELINE:
        require_legal_end(pipeline, target)
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
        std_percent=bench.std_percent(data),
    )


def _key(bench: Workbench, pipeline: Pipeline) -> str:
    detector, faces, teacher, target = bench.detector, bench.faces, bench.teacher, bench.target
    rules = "" if target is None else (target.runtime, target.fallback, target.forms, target.limits)
    by_target = any(item.follows_target() for item in pipeline.passes)
    return key_of(
        {
            "graph": detector.graph.digest(),
            "contract": repr(detector.contract),
            "pipeline": str(pipeline),
            "data": "" if faces is None else faces.digest,
            "seed": str(bench.seed),
            "code": code_digest(pipeline.passes),
            "rules": repr(rules),
            **({"times": TargetCost(target).digest} if target is not None and by_target else {}),
            **({} if teacher is None else {"teacher": teacher.graph.digest()}),
            **({} if bench.noise is None else {"noise": bench.noise.condition}),
        }
    )


def is_measured(target: Target, request: OptimizeRequest) -> bool:
    """Returns whether the latencies that count are measured: on this host, or on a device."""
    return target.name == HOST or request.device != "auto"


def measure_all(
    made: Iterable[Trained], target: Target, request: OptimizeRequest
) -> dict[harness.Key, Measurement]:
    """Returns measurements by file digest and thread count; equal files are measured once."""
    files = {trained.digest: Path(trained.model) for trained in made}
    threads = thread_counts(target, None if is_phone(request.device) else request.threads)
    return harness.compare(files, threads=threads, max_seconds=min(60.0, 2.0 * len(files)))


def thread_counts(target: Target, wanted: int | None) -> tuple[int, ...]:
    """Returns the thread counts to measure with on this host: the wanted one, or those to try."""
    if wanted is not None:
        return (wanted,)
    tried = target.threads if target.name == HOST else (1, 2)
    return tuple(n for n in tried if n <= host.usable_cores()) or (1,)


class OnDevice(Protocol):
    """What a device had to say of candidates, by the digests of their files."""

    def best(self, digest: str) -> Measurement:
        """Returns the fastest measurement; raises BackendError for none."""

    def ran(self, digest: str) -> str | None:
        """Returns the path of what was the fastest, where that is not the .tflite itself."""

    def notes(self, digest: str) -> tuple[str, ...]:
        """Returns what is to be said of a candidate beside its latency."""


@dataclass(frozen=True)
class OnPhone:
    """What a phone had to say of candidates; implements `OnDevice`.

    Attributes:
        run: Latencies, and why a file has none.
        outputs: How far its answers are from this host's.
        wrong: Files whose answers are elsewhere altogether.
    """

    run: PhoneRun
    outputs: Mapping[str, OutputsCompared]
    wrong: Mapping[str, BackendError]

    def best(self, digest: str) -> Measurement:
        """Returns the measurement at the fastest thread count; raises BackendError for none."""
        if digest in self.wrong:
            raise self.wrong[digest]
        if any(name == digest for name, _ in self.run.measurements):
            return harness.best(self.run.measurements, digest)
        raise next(error for (name, _), error in self.run.failures.items() if name == digest)

    def ran(self, digest: str) -> None:
        """Returns nothing: a phone runs the .tflite."""

    @property
    def compared(self) -> tuple[str, ...]:
        """Returns what the comparison of answers found, over all files."""
        found = [c for c in self.outputs.values() if c.faces]
        none = dict.fromkeys(str(c) for c in self.outputs.values() if not c.faces)
        if not found:
            return tuple(none)
        largest = max(c.largest_px for c in found)
        return (
            f"outputs of {len(found)} files on {found[0].faces} faces are at most {largest:.3f} px "
            "from this host's",
            *none,
        )

    def notes(self, digest: str) -> tuple[str, ...]:
        """Returns what is to be said of a file on the phone beside its latency."""
        compared = (str(self.outputs[digest]),) if digest in self.outputs else ()
        return tuple(f"phone: {text}" for text in (*self.run.notes.get(digest, ()), *compared))


class PhoneThere(Protocol):
    """A phone that files are measured on, wherever its cable ends."""

    @property
    def cable(self) -> Cabled:
        """Returns the phone, its tool and its profile."""

    def measure(
        self,
        files: Mapping[str, Path],
        threads: int | None,
        contract: Contract,
        crops: NDArray[np.uint8],
    ) -> OnPhone:
        """Returns measurements of files by digest, and their answers compared with this host's.

        Args:
            files: By digest.
            threads: None tries those that the target names.
            contract: Of all files.
            crops: Faces to compare answers on.

        Raises:
            BackendError: The phone went away before anything was measured.
        """


@dataclass(frozen=True)
class PhoneHere:
    """A phone on a cable of this machine; implements `PhoneThere`.

    Attributes:
        cable: The phone, its tool and its profile.
    """

    cable: Cabled

    def measure(
        self,
        files: Mapping[str, Path],
        threads: int | None,
        contract: Contract,
        crops: NDArray[np.uint8],
    ) -> OnPhone:
        """Returns measurements of files by digest, and their answers compared with this host's."""
        if threads is None:
            cores = len(self.cable.phone.max_khz) or 1
            counts = tuple(n for n in self.cable.target.threads if n <= cores) or (1,)
        else:
            counts = (threads,)
        outputs: dict[str, OutputsCompared] = {}
        wrong: dict[str, BackendError] = {}
        with self.cable.bench() as bench:
            run = bench.compare(
                files, threads=counts, max_seconds=PHONE_S * len(files) * len(counts)
            )
            for digest in dict.fromkeys(label for label, _ in run.measurements):
                try:
                    data, name = files[digest].read_bytes(), str(files[digest])
                    outputs[digest] = compare_outputs(bench, data, contract, crops, name)
                except DeviceLostError as error:
                    outputs[digest] = OutputsCompared(reason=error.what)
                except BackendError as error:
                    wrong[digest] = error
        return OnPhone(run, outputs, wrong)


class Timing:
    """Puts latencies on trained candidates: measured here or on a device, else estimated."""

    def __init__(
        self,
        target: Target,
        request: OptimizeRequest,
        measured: Mapping[harness.Key, Measurement],
        baseline: Trained,
        device: OnDevice | None = None,
    ) -> None:
        """Keeps what was measured here and on a device; speed-ups refer to `baseline`.

        Raises:
            BackendError: The device did not measure the baseline.
        """
        self._target = target
        self._request = request
        self._measured = measured
        self._baseline = harness.best(measured, baseline.digest)
        self._device = device
        try:
            self._device_baseline = None if device is None else device.best(baseline.digest)
        except BackendError as error:
            raise BackendError(
                f"the device does not run the float baseline, which others are compared with: "
                f"{error.what}",
                where=error.where,
                hint="name a target whose engine takes it; everything made so far is kept",
            ) from error

    def candidate(self, trained: Trained) -> Candidate:
        """Returns the candidate; raises BackendError when the target cannot run it at all."""
        best = harness.best(self._measured, trained.digest)
        speedup, here = _speedup(self._baseline, best), _latency(best)
        if self._device is not None and self._device_baseline is not None:
            own = self._device.best(trained.digest)
            noted = (*trained.notes, *self._device.notes(trained.digest))
            return Candidate(
                replace(trained, notes=noted),
                _latency(own),
                here,
                speedup,
                device_speedup=_speedup(self._device_baseline, own),
                device_model=self._device.ran(trained.digest),
            )
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


def _latency(found: Measurement) -> Latency:
    threads = found.threads if found.xla is None else None
    return Latency(found.p50, "measured", found.where, *found.interval, threads)


def _speedup(base: Measurement, found: Measurement) -> tuple[float, float, float]:
    gain = ratio(base, found)
    return (gain.value, gain.low, gain.high)
