"""Latencies of candidates while a search goes on, relative to the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lmopt.cost.estimate import Estimate, estimate
from lmopt.errors import BackendError
from lmopt.exploration.candidate import Trained
from lmopt.exploration.racer import Interval
from lmopt.flow.candidates import HOST, OnPhone, thread_counts
from lmopt.flow.request import SearchRequest
from lmopt.frontend.tflite import read
from lmopt.latency import harness
from lmopt.latency.measurement import Measurement, ratio
from lmopt.target.profile import Target
from lmopt.units import human_bytes

MEASURED_S = 4.0
"""Seconds for a candidate and the baseline at one thread count."""


class Gauged(NamedTuple):
    """A latency relative to the baseline's, and in milliseconds."""

    relative: Interval
    ms: float


class Gauge:
    """Finds out how fast files are: measured on this host or on a phone, else estimated."""

    def __init__(
        self,
        request: SearchRequest,
        target: Target,
        baseline: Trained,
        measure_on_phone: Callable[[Mapping[str, Path]], OnPhone] | None = None,
    ) -> None:
        """Keeps what latencies are relative to.

        Args:
            request: Says how latencies are to be known.
            target: What they are estimated for where they are not measured.
            baseline: Of the search.
            measure_on_phone: Measures files by digest; None for a search without a phone.
        """
        self._request, self._target = request, target
        self._baseline, self._measure_on_phone = baseline, measure_on_phone

    def of(self, made: Trained) -> Gauged:
        """Returns the latency of a candidate.

        Raises:
            BackendError: It cannot be run where it is measured, or is beyond a limit that can be
                told before.
        """
        self._require_fitting(made)
        if self._measure_on_phone is None and not is_measured_here(self._request, self._target):
            guess = self._estimated(made)
            relative = guess / self._estimated(self._baseline)
            return Gauged(Interval(relative, relative, relative), guess)
        files = {item.digest: Path(item.model) for item in (self._baseline, made)}
        if self._measure_on_phone is not None:
            run = self._measure_on_phone(files)
            return _relative(*(run.best(item.digest) for item in (self._baseline, made)))
        threads = thread_counts(self._target, self._request.threads)
        measured = harness.compare(
            files, threads=threads, max_seconds=MEASURED_S * len(threads), seed=self._request.seed
        )
        return _relative(*(harness.best(measured, i.digest) for i in (self._baseline, made)))

    def _require_fitting(self, made: Trained) -> None:
        allowed = self._request.max_memory_bytes
        if allowed is not None:
            peak = self._estimate(made).memory.total_bytes
            if peak > allowed:
                raise BackendError(f"needs {human_bytes(peak)}, allowed {human_bytes(allowed)}")
        if self._request.delegate_only:
            for kernel in (time.kernel for time in self._estimate(made).kernels):
                if not kernel.delegated:
                    raise BackendError(f"%{kernel.node} falls off the engine: {kernel.refused}")

    def _estimated(self, made: Trained) -> float:
        return self._estimate(made).latency_ms

    def _estimate(self, made: Trained) -> Estimate:
        graph, _ = read(Path(made.model).read_bytes(), made.model)
        return estimate(graph, self._target, threads=self._request.threads)


def is_measured_here(request: SearchRequest, target: Target) -> bool:
    """Returns whether the files of a search without a phone are measured on this host."""
    if request.latency == "auto":
        return HOST in (target.name, request.device)
    return request.latency == "measure"


def _relative(base: Measurement, own: Measurement) -> Gauged:
    found = ratio(own, base)
    return Gauged(Interval(found.value, found.low, found.high), own.p50)
