"""`lmopt targets calibrate host`: prices of kernels from small networks timed on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.cost.estimate import estimate
from lmopt.cost.kernels import Kernel, kernels
from lmopt.cost.micro import Timed, fit_prices, fold_errors, stated_error
from lmopt.errors import UsageError
from lmopt.files import unwritable
from lmopt.flow.events import Activity, Listener, Noted, ignore
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import host_target, keep_prices, prices_path
from lmopt.ir.graph import Graph
from lmopt.latency import host
from lmopt.latency.measurement import BUSY_CORES
from lmopt.latency.micronets import Micronet, design, stored
from lmopt.latency.visits import Visit, visits
from lmopt.target.profile import Experience, KernelPrices, Target

MINUTES = 10.0
LEFT_OUT = ("pfld-0.25", "pfld-1.0", "basic", "dan1", "hrnet-w18")
"""Detectors that are timed by turns with the rest, but never fitted."""
IDLE_S = 1.0
"""How long is watched whether the machine is free."""


@dataclass(frozen=True)
class LeftOut:
    """A whole detector that the fit did not see.

    Attributes:
        name: Detector and storage.
        threads: CPU threads.
        measured_ms: Median.
        estimated_ms, low_ms, high_ms: The estimate and its interval.
    """

    name: str
    threads: int
    measured_ms: float
    estimated_ms: float
    low_ms: float
    high_ms: float

    @property
    def error(self) -> float:
        """Returns the estimate over the measurement, less 1."""
        return self.estimated_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        path: Where the prices are kept.
        networks: Small networks that were timed.
        rounds: How often each was.
        fold_error: By thread count: median error of mixed networks left out of the fit.
        stated: By thread count: error that estimates state.
        left_out: Whole detectors.
    """

    path: Path
    networks: int
    rounds: int
    fold_error: Mapping[int, float]
    stated: Mapping[int, float]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain data; errors are parts of what was measured."""
        return {
            "path": str(self.path),
            "networks": self.networks,
            "rounds": self.rounds,
            "fold_error": dict(self.fold_error),
            "stated": dict(self.stated),
            "left_out": [{**asdict(found), "error": found.error} for found in self.left_out],
        }


def calibrate_host(*, minutes: float = MINUTES, listen: Listener = ignore) -> Calibration:
    """Times small networks on this machine, fits what kernels take, and keeps it.

    Every round visits all networks at all thread counts, in another order. What was timed is kept
    at once: a calibration that was interrupted goes on.

    Args:
        minutes: How long to go on; one round is always finished.
        listen: Hears the progress, and what disturbed it.

    Raises:
        UsageError: No time is given.
        InputError: The cache cannot be written.
        BackendError: The machine is not free for measuring.
    """
    if not minutes > 0:
        raise UsageError(f"{minutes:g} minutes; wanted more than 0", where="--minutes")
    target = host_target(listen)
    nets = {net.name: net for net in design()}
    whole = dict(_left_out())
    log = _Log(prices_path().with_suffix(".timings.jsonl"))
    _note_load(listen)
    _time(nets, whole, target, log, minutes * 60, listen)
    return _fitted(nets, whole, target, log, listen)


class _Log:
    """Visits, one flushed line each; those of another machine or LiteRT have another name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[tuple[str, int], list[float | None]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise unwritable(path, error) from error
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                name, threads, us = json.loads(line)
                self.found.setdefault((name, threads), []).append(us)
            except (ValueError, TypeError):
                continue  # torn by a crash

    def add(self, visit: Visit) -> None:
        self.found.setdefault((visit.name, visit.threads), []).append(visit.us)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([visit.name, visit.threads, visit.us]) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def rounds(self, name: str, threads: int) -> int:
        return len(self.found.get((name, threads), ()))

    def us(self, name: str, threads: int) -> float | None:
        """Returns the median, or None for what the runtime did not take."""
        told = [us for us in self.found.get((name, threads), ()) if us is not None]
        return float(np.median(told)) if told else None


def _left_out() -> Iterator[tuple[str, Graph]]:
    for name in LEFT_OUT:
        drawn = folded(zoo.initialize(zoo.load(f"{name}@none").graph, 0))
        for storage in ("f32", "i8"):
            yield f"{name} {storage}", stored(drawn, storage)


def _time(
    nets: Mapping[str, Micronet],
    whole: Mapping[str, Graph],
    target: Target,
    log: _Log,
    seconds: float,
    listen: Listener,
) -> None:
    """Visits what was visited least, until the time is over and all were."""
    keys = [(name, threads) for name in (*nets, *whole) for threads in target.threads]
    began = time.monotonic()
    with TemporaryDirectory(prefix="lmopt-calibrate-", dir=log.path.parent) as folder:
        files = {name: Path(folder) / f"{k}.tflite" for k, name in enumerate((*nets, *whole))}
        for done, name in enumerate(files):
            if done % 50 == 0:
                listen(Activity("writing small networks", done, len(files)))
            graph = nets[name].graph() if name in nets else whole[name]
            files[name].write_bytes(emit(graph))
        while True:
            number = min(log.rounds(*key) for key in keys)
            if number > 0 and time.monotonic() - began >= seconds:
                return
            todo = [key for key in keys if log.rounds(*key) == number]
            todo = [todo[k] for k in np.random.default_rng(number).permutation(len(todo))]
            for done, visit in enumerate(visits(files, todo)):
                if done % 20 == 0:
                    told = f"timing on this machine, round {number + 1}"
                    listen(Activity(told, len(keys) - len(todo) + done, len(keys)))
                log.add(visit)
                if visit.failure:
                    listen(Noted(f"{visit.name} is left out: {visit.failure}"))
                if number > 0 and time.monotonic() - began >= seconds:
                    return


def _fitted(
    nets: Mapping[str, Micronet],
    whole: Mapping[str, Graph],
    target: Target,
    log: _Log,
    listen: Listener,
) -> Calibration:
    listen(Activity("fitting what kernels take"))
    work = {name: kernels(net.graph(), target) for name, net in nets.items()}
    prices: dict[int, KernelPrices] = {}
    fold_error: dict[int, float] = {}
    for threads in target.threads:
        samples = [
            Timed(work[name], us, net.mixed)
            for name, net in nets.items()
            if (us := log.us(name, threads)) is not None
        ]
        errors = fold_errors(samples)
        fold_error[threads] = float(np.median(errors))
        prices[threads] = KernelPrices(fit_prices(samples), stated_error(errors))
    rounds = min(log.rounds(name, n) for name in nets for n in target.threads)
    path = keep_prices(prices, _experience(list(work.values()), target.threads))
    log.path.unlink()
    calibrated = host_target(listen)
    return Calibration(
        path=path,
        networks=len(nets),
        rounds=rounds,
        fold_error=fold_error,
        stated={threads: found.error for threads, found in prices.items()},
        left_out=tuple(_compared(whole, calibrated, log)),
    )


def _compared(whole: Mapping[str, Graph], target: Target, log: _Log) -> Iterator[LeftOut]:
    for name, graph in whole.items():
        for threads in target.threads:
            us = log.us(name, threads)
            if us is not None:
                found = estimate(graph, target, threads=threads)
                yield LeftOut(
                    name, threads, us / 1e3, found.latency_ms, found.low_ms, found.high_ms
                )


def _experience(work: Sequence[Sequence[Kernel]], threads: tuple[int, ...]) -> Experience:
    """Returns what the prices rest on; estimates beyond it say so."""
    macs = [float(sum(kernel.macs for kernel in found)) for found in work]
    every = [kernel for found in work for kernel in found]
    here = host.describe()
    return Experience(
        networks=len(work),
        framework=f"LiteRT {here.litert}",
        macs=(min(macs), max(macs)),
        storages=tuple(sorted({kernel.storage for kernel in every})),
        works=tuple(sorted({kernel.work for kernel in every})),
        threads=threads,
        kind="fitted",
        source=f"small networks timed on {here} on {date.today()}",
    )


def _note_load(listen: Listener) -> None:
    meter = host.LoadMeter([])
    time.sleep(IDLE_S)
    load = meter.cores()
    if load > BUSY_CORES:
        listen(Noted(f"other work takes {load:.1f} cores: what is timed beside it is too slow"))
