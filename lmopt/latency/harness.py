"""Measures model files on this machine, interleaved, until the medians are known well."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmopt.errors import InputError
from lmopt.latency import host
from lmopt.latency.measurement import BUSY_CORES, Measurement
from lmopt.runtime.runner import Kernels, Runner

Key = tuple[str, int]

ROUND_MS = 40.0
LARGEST_ROUND = 50
MIN_ROUNDS = 20
CHECK_EVERY = 5
NARROW = 0.01
STRETCH_MS = 1000.0
"""How long a stretch of a sustained run takes about."""


def compare(
    models: Mapping[str, bytes | Path],
    *,
    threads: Sequence[int] = (1,),
    min_runs: int = 50,
    max_seconds: float = 20.0,
    warmup: int = 3,
    seed: int = 0,
    kernels: Kernels = "default",
    timeout_s: float = 60.0,
) -> dict[Key, Measurement]:
    """Returns a measurement of every model at every thread count, taken interleaved.

    All workers stay loaded. Each round visits every model and thread count once, in an order
    drawn from `seed`, for a few inferences with the clock inside the worker. It stops when every
    median's 95 % interval is within +-1 % and each has `min_runs` inferences, or when
    `max_seconds` are over; never before `MIN_ROUNDS` rounds. The machine is held exclusively.

    Args:
        models: Files or their bytes by label.
        threads: CPU thread counts.
        min_runs: Measured inferences of each, unless the time is up before.
        max_seconds: When to stop although an interval is still wide.
        warmup: Unmeasured inferences before each visit.
        seed: Draws the order of visits.
        kernels: Which kernels run the model.
        timeout_s: Limit for loading a model, and for each visit.

    Raises:
        InputError: Nothing to measure, or a thread count the machine does not have.
        BackendError: A model crashes, hangs or is refused by the runtime.
    """
    _check(models, threads, min_runs, warmup)
    with host.exclusive("measuring"), ExitStack() as stack:
        runners = {
            (label, count): stack.enter_context(
                Runner(model, threads=count, kernels=kernels, timeout_s=timeout_s)
            )
            for label, model in models.items()
            for count in threads
        }
        starts = {key: runner.begin() for key, runner in runners.items()}
        per_round = {key: _runs_per_round(runner, warmup) for key, runner in runners.items()}
        least = max(math.ceil(min_runs / count) for count in per_round.values())
        samples: dict[Key, list[float]] = {key: [] for key in runners}
        meter = host.LoadMeter([runner.pid for runner in runners.values()])
        rng = np.random.default_rng(seed)
        keys = list(runners)
        session = uuid.uuid4().hex

        def measured() -> dict[Key, Measurement]:
            load = meter.cores()
            return {
                key: Measurement(
                    target="host",
                    digest=runner.digest,
                    samples_ms=tuple(samples[key]),
                    per_round=per_round[key],
                    warmup=warmup,
                    threads=key[1],
                    tool=f"LiteRT {host.describe().litert}, {kernels} kernels",
                    where=str(host.describe()),
                    session=session,
                    other_load=load,
                    start=starts[key],
                )
                for key, runner in runners.items()
            }

        start = time.monotonic()
        done = 0
        while True:
            for position in rng.permutation(len(keys)):
                key = keys[position]
                samples[key] += runners[key].time(warmup=warmup, runs=per_round[key])
            done += 1
            if done < MIN_ROUNDS:
                continue
            if time.monotonic() - start >= max_seconds:
                return measured()
            if done >= least and done % CHECK_EVERY == 0:
                found = measured()
                if all(measurement.spread <= NARROW for measurement in found.values()):
                    return found


@dataclass(frozen=True)
class Sustained:
    """A model that ran without a pause.

    Attributes:
        seconds: When each stretch ended, since the start.
        stretches_ms: Median time of an inference in each.
        start_ms: Of the first stretch.
        sustained_ms: Median over the stretches of the last quarter.
        other_load: CPU cores that other work kept busy meanwhile.
    """

    seconds: tuple[float, ...]
    stretches_ms: tuple[float, ...]
    start_ms: float
    sustained_ms: float
    other_load: float

    @property
    def slowdown(self) -> float:
        """Returns how many times the sustained time is that of the start."""
        return self.sustained_ms / self.start_ms

    @property
    def busy(self) -> bool:
        """Returns whether other work disturbed the run noticeably."""
        return self.other_load > BUSY_CORES


def sustain(
    model: bytes | Path,
    *,
    seconds: float,
    threads: int = 1,
    timeout_s: float = 60.0,
    on_stretch: Callable[[float, float], None] = lambda now, ms: None,
) -> Sustained:
    """Returns how a model's time changes while it runs without a pause.

    Args:
        model: The file or its bytes.
        seconds: How long.
        threads: CPU threads.
        timeout_s: Limit for loading the model, and for a stretch.
        on_stretch: Hears the seconds since the start, and the time of every stretch.

    Raises:
        InputError: No time, or a thread count the machine does not have.
        BackendError: The model crashes, hangs or is refused by the runtime.
    """
    if not seconds > 0:
        raise InputError(f"{seconds:g} s to sustain; wanted more than 0")
    _check({"": model}, (threads,), 1, 0)
    with host.exclusive("measuring"), Runner(model, threads=threads, timeout_s=timeout_s) as runner:
        typical_ms = max(float(np.median(runner.time(warmup=1, runs=3))), 1e-6)
        runs = max(1, round(STRETCH_MS / typical_ms))
        meter = host.LoadMeter([runner.pid])
        began = time.monotonic()
        ends: list[float] = []
        found: list[float] = []
        while not ends or ends[-1] < seconds:
            found.append(float(np.median(runner.time(warmup=0, runs=runs))))
            ends.append(time.monotonic() - began)
            on_stretch(ends[-1], found[-1])
        late = found[-max(1, len(found) // 4) :]
        return Sustained(tuple(ends), tuple(found), found[0], float(np.median(late)), meter.cores())


def best(measurements: Mapping[Key, Measurement], label: str) -> Measurement:
    """Returns the measurement of `label` at its fastest thread count (lowest median).

    Raises:
        InputError: Nothing was measured under that label.
    """
    own = [m for (name, _), m in measurements.items() if name == label]
    if not own:
        raise InputError(
            f"no measurement of '{label}'; there are {sorted({name for name, _ in measurements})}"
        )
    return min(own, key=lambda measurement: measurement.p50)


def _runs_per_round(runner: Runner, warmup: int) -> int:
    typical_ms = float(np.median(runner.time(warmup=warmup, runs=3)))
    return int(np.clip(ROUND_MS / max(typical_ms, 1e-6), 1, LARGEST_ROUND))


def _check(
    models: Mapping[str, bytes | Path], threads: Sequence[int], min_runs: int, warmup: int
) -> None:
    if not models or not threads:
        raise InputError("nothing to measure: give at least one model and one thread count")
    if min_runs < 1 or warmup < 0:
        raise InputError(f"min_runs {min_runs} and warmup {warmup}; wanted at least 1 and 0")
    cores = host.usable_cores()
    wrong = [count for count in threads if not 1 <= count <= cores]
    if wrong:
        raise InputError(
            f"cannot measure with {wrong[0]} threads; this machine offers 1 to {cores}",
            where="--threads",
            hint=f"choose from 1 to {cores}",
        )
