"""Measured latencies and their ratios, with intervals that respect how they were taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.runtime.runner import Start

RESAMPLES = 1000
NORMAL_95 = 1.96
"""Standard deviations to both sides that hold 95 % of a normal distribution."""
PROCESS_SPREAD = 0.0025
"""Standard deviation of the logarithmic ratio of one file's times in two processes.

More rounds do not tell it: where a process lies in memory stays. Measured with pfld-0.25 in twelve
pairs of processes, 120 rounds each, on an AMD EPYC with AVX-512: 0.0021.
"""
BUSY_CORES = 0.25

Xla = Literal["on", "off"]


@dataclass(frozen=True)
class Conditions:
    """What a phone was like while a file was measured on it; None where it does not tell.

    Attributes:
        device: The phone as plain data: model, chip, Android version, clocks.
        mask: CPUs the tool was bound to, in hexadecimal.
        temperature_before_c, temperature_after_c: In degrees Celsius.
        governors: Clock governors of its cores.
        inferences: Measured inferences in all.
        init_ms, first_ms: Loading, and the first inference.
        memory_mb: Memory of the tool in the end.
        doubts: Why the latency may not be what the phone can do.
    """

    device: Mapping[str, Any]
    mask: str | None
    temperature_before_c: float | None
    temperature_after_c: float | None
    governors: tuple[str, ...]
    inferences: int
    init_ms: float | None
    first_ms: float | None
    memory_mb: float | None
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """Latencies of one model file at one thread count, really measured.

    Inferences within a round follow each other and share its disturbances, so intervals are
    bootstrapped over whole rounds, never over single samples.

    Attributes:
        target: What ran the file (`host`).
        digest: 32 hex digits over the file's bytes.
        samples_ms: Milliseconds of each inference, in the order they were taken.
        per_round: Inferences in each round; divides the number of samples.
        warmup: Unmeasured inferences before each round.
        threads: CPU threads of the interpreter.
        tool: What measured.
        where: The machine, in words.
        session: The interleaved run it belongs to; only within one are rounds paired.
        other_load: CPU cores that other processes (and the hypervisor) kept busy meanwhile; on a
            phone, before.
        conditions: Of a phone, whose samples are medians or means of runs of the tool.
        start: What loading and the first inference took on this host; None elsewhere.
        xla: Whether XLA compiled a SavedModel; None for a .tflite.
    """

    target: str
    digest: str
    samples_ms: tuple[float, ...]
    per_round: int
    warmup: int
    threads: int
    tool: str
    where: str
    session: str
    other_load: float
    conditions: Conditions | None = None
    start: Start | None = None
    xla: Xla | None = None

    def __post_init__(self) -> None:
        count = len(self.samples_ms)
        if self.per_round < 1 or count == 0 or count % self.per_round:
            raise InputError(f"{count} latency samples are no whole rounds of {self.per_round}")

    @cached_property
    def _rounds(self) -> NDArray[np.float64]:
        return np.array(self.samples_ms, np.float64).reshape(-1, self.per_round)

    @property
    def rounds(self) -> int:
        """Returns the number of rounds."""
        return len(self.samples_ms) // self.per_round

    @cached_property
    def p50(self) -> float:
        """Returns the median in milliseconds."""
        return float(np.median(self._rounds))

    @cached_property
    def p90(self) -> float:
        """Returns the 90th percentile in milliseconds."""
        return float(np.percentile(self._rounds, 90))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Returns the 95 % bootstrap interval of the median in milliseconds."""
        low, high = np.percentile(self._medians(_draws(self.rounds)), [2.5, 97.5])
        return float(low), float(high)

    @property
    def spread(self) -> float:
        """Returns half the interval's width relative to the median."""
        low, high = self.interval
        return (high - low) / 2 / self.p50

    @property
    def busy(self) -> bool:
        """Returns whether other work disturbed the measurement noticeably."""
        return self.other_load > BUSY_CORES

    @property
    def doubts(self) -> tuple[str, ...]:
        """Returns why the latency may not be what the machine can do."""
        busy = (f"busy: other work took {self.other_load:.1f} cores",) if self.busy else ()
        return busy + (() if self.conditions is None else self.conditions.doubts)

    def _medians(self, draws: NDArray[np.intp]) -> NDArray[np.float64]:
        picked = self._rounds[draws].reshape(len(draws), -1)
        return np.asarray(np.median(picked, axis=1), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Returns the summary and the conditions, without the single samples.

        Units: everything ending in `_ms` is milliseconds; `other_load` is CPU cores.
        """
        low, high = self.interval
        return {
            "kind": "measured",
            "target": self.target,
            "digest": self.digest,
            "p50_ms": self.p50,
            "p90_ms": self.p90,
            "interval_ms": [low, high],
            "runs": len(self.samples_ms),
            "rounds": self.rounds,
            "warmup": self.warmup,
            "threads": self.threads,
            "tool": self.tool,
            "where": self.where,
            "busy": self.busy,
            "other_load": self.other_load,
            "doubts": list(self.doubts),
            "conditions": None if self.conditions is None else asdict(self.conditions),
            "start": None if self.start is None else asdict(self.start),
            "xla": self.xla,
        }


@dataclass(frozen=True)
class Ratio:
    """How many times one latency is another, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def to_json(self) -> Mapping[str, float]:
        """Returns value and interval."""
        return {"value": self.value, "low": self.low, "high": self.high}


def ratio(a: Measurement, b: Measurement) -> Ratio:
    """Returns how many times `a`'s time is `b`'s: above 1 means that `b` is faster; of itself, 1.

    Rounds are compared one by one, so that what disturbed a round cancels, also where a machine
    changes between a fast and a slow state: the median over all pairs of rounds of the mean of both
    rounds' logarithmic ratios, with the interval of the signed-rank test, widened by what two
    processes with the same file differ by.

    Raises:
        InputError: They were not measured interleaved in one run.

    Source: Hodges and Lehmann, "Estimates of Location Based on Rank Tests", 1963, and the normal
        approximation of Wilcoxon's signed-rank statistic for the interval.
    """
    if a.session != b.session or a.rounds != b.rounds:
        raise InputError(
            "a ratio of latencies that were not measured interleaved in one run is not to be had",
            hint="measure both in one call: lmopt measure A.tflite --against B.tflite",
        )
    if a is b:
        return Ratio(1.0, 1.0, 1.0)
    logs = np.log(np.median(a._rounds, axis=1)) - np.log(np.median(b._rounds, axis=1))
    means = np.sort(((logs[:, None] + logs) / 2)[np.triu_indices(a.rounds)])
    deviation = math.sqrt(a.rounds * (a.rounds + 1) * (2 * a.rounds + 1) / 24)
    outside = max(0, math.floor(len(means) / 2 - NORMAL_95 * deviation))
    value = float(np.median(means))
    below, above = (
        math.hypot(value - means[end], NORMAL_95 * PROCESS_SPREAD)
        for end in (outside, -1 - outside)
    )
    return Ratio(math.exp(value), math.exp(value - below), math.exp(value + above))


def _draws(rounds: int) -> NDArray[np.intp]:
    return np.random.default_rng(rounds).integers(rounds, size=(RESAMPLES, rounds))
