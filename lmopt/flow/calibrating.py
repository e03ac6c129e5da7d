"""`lmopt targets calibrate`: prices of kernels from small networks, here or on a phone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from lmopt.flow import prices as kept
from lmopt.flow.events import Activity, Listener, Noted, ignore
from lmopt.flow.folding import folded
from lmopt.flow.host_profile import host_target, prices_path
from lmopt.flow.phone import cabled
from lmopt.ir.graph import Graph
from lmopt.latency import host
from lmopt.latency.measurement import BUSY_CORES
from lmopt.latency.micronets import Micronet, design, stored
from lmopt.latency.phone import Visit
from lmopt.latency.visits import VisitTime, visits
from lmopt.target.catalog import load_target
from lmopt.target.profile import Experience, KernelPrices, Target

MINUTES = 10.0
LEFT_OUT = ("pfld-0.25", "pfld-1.0", "basic", "dan1", "hrnet-w18")
"""Detectors that are timed by turns with the rest, but never fitted."""
QUIET = 0.25
"""Quantile of a network's visits that is its time: whoever shares the machine only ever adds."""
IDLE_S = 1.0
"""How long is watched whether the machine is free."""
PHONE_SHARE = 4
"""One of so many small networks is timed on a phone, where every visit takes a second or two."""
PHONE_VISIT = Visit(runs=10, seconds=0.2, warmup_s=0.05)
PHONE_THREADS = 4

Visits = Callable[[Mapping[str, Path], Iterable[tuple[str, int]]], Iterator[VisitTime]]


@dataclass(frozen=True)
class LeftOut:
    """A whole detector that the fit did not see.

    Attributes:
        name: Detector and storage.
        threads: CPU threads.
        measured_ms: `QUIET` of its visits.
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
        target: Whose estimates it serves.
        machine: What was calibrated, in words.
        path: Where the prices are kept.
        networks: Small networks that were timed.
        rounds: How often each was.
        fold_error: By thread count: median error of mixed networks left out of the fit.
        stated: By thread count: error that estimates state.
        left_out: Whole detectors.
    """

    target: str
    machine: str
    path: Path
    networks: int
    rounds: int
    fold_error: Mapping[int, float]
    stated: Mapping[int, float]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain data; errors are parts of what was measured."""
        return {
            "target": self.target,
            "machine": self.machine,
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
    _check(minutes)
    target = host_target(listen)
    here = host.describe()
    _note_load(listen)
    run = _Run(target, target.threads, design(), prices_path(), str(here), f"LiteRT {here.litert}")
    return run.finished(visits, minutes * 60, listen)


def calibrate_phone(
    device: str,
    *,
    target: str | Path | None = None,
    threads: int | None = None,
    benchmark_model: Path | None = None,
    minutes: float = MINUTES,
    listen: Listener = ignore,
) -> Calibration:
    """Does the same on a phone on the cable, with one of `PHONE_SHARE` networks.

    Args:
        device: `adb` or `adb:SERIAL`.
        target: Profile whose engine is calibrated; None takes the phone's own CPU profile.
        threads: CPU threads; None takes `PHONE_THREADS`, or as many as the profile names.
        benchmark_model: TFLite's tool for the phone; None looks for it.
        minutes: How long to go on; one round is always finished.
        listen: Hears the progress, and what disturbed it.

    Raises:
        UsageError: No time is given, or no phone named where there are several.
        InputError: The cache cannot be written.
        BackendError: No phone, no tool for it, or it went away for good; what was timed is kept.
    """
    _check(minutes)
    cable = cabled(device, None if target is None else load_target(target), benchmark_model)
    profile = cable.target
    count = threads or min(PHONE_THREADS, max(profile.threads))
    for text in cable.notes:
        listen(Noted(text))
    place = kept.path_of(profile.name)
    machine = str(cable.phone)
    run = _Run(profile, (count,), design()[::PHONE_SHARE], place, machine, str(cable.tool))
    with cable.bench(PHONE_VISIT) as bench:
        return run.finished(bench.visits, minutes * 60, listen)


class _Log:
    """Visits, one flushed line each."""

    def __init__(self, path: Path, machine: str) -> None:
        """Reads what is there, if it is about the same machine."""
        self.path = path
        self.found: dict[tuple[str, int], list[float | None]] = {}
        head = json.dumps([kept.FIT, machine])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            if lines[:1] != [head]:
                path.write_text(head + "\n", encoding="utf-8")
                lines = []
        except OSError as error:
            raise unwritable(path, error) from error
        for line in lines[1:]:
            try:
                name, threads, us = json.loads(line)
                self.found.setdefault((name, threads), []).append(us)
            except (ValueError, TypeError):
                continue  # torn by a crash

    def add(self, visit: VisitTime) -> None:
        self.found.setdefault((visit.name, visit.threads), []).append(visit.us)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([visit.name, visit.threads, visit.us]) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def rounds(self, name: str, threads: int) -> int:
        return len(self.found.get((name, threads), ()))

    def us(self, name: str, threads: int) -> float | None:
        """Returns `QUIET` of all visits, or None for what the runtime did not take."""
        told = [us for us in self.found.get((name, threads), ()) if us is not None]
        return float(np.quantile(told, QUIET)) if told else None


class _Run:
    """One calibration: of which machine, with which networks, kept where."""

    def __init__(
        self,
        target: Target,
        threads: tuple[int, ...],
        nets: Sequence[Micronet],
        path: Path,
        machine: str,
        framework: str,
    ) -> None:
        self._target, self._threads, self._path = target, threads, path
        self._machine, self._framework = machine, framework
        self._nets = {net.name: net for net in nets if _takes(target, net.storage)}
        self._work: dict[str, tuple[Kernel, ...]] = {}
        self._whole = dict(_left_out(target))
        self._log = _Log(path.with_suffix(".timings.jsonl"), machine)

    def finished(self, visit_all: Visits, seconds: float, listen: Listener) -> Calibration:
        """Returns what was found, once the time is over and everything was visited."""
        with TemporaryDirectory(prefix="lmopt-calibrate-", dir=self._path.parent) as folder:
            files = self._written(Path(folder), listen)
            self._time(files, visit_all, seconds, listen)
        listen(Activity("fitting what kernels take"))
        prices: dict[int, KernelPrices] = {}
        fold_error: dict[int, float] = {}
        for threads in self._threads:
            samples = [
                Timed(work, us, self._nets[name].mixed)
                for name, work in self._work.items()
                if (us := self._log.us(name, threads)) is not None
            ]
            errors = fold_errors(samples)
            fold_error[threads] = float(np.median(errors))
            prices[threads] = KernelPrices(fit_prices(samples), stated_error(errors))
        rounds = min(self._log.rounds(name, n) for name in self._work for n in self._threads)
        kept.keep_prices(self._path, self._machine, prices, self._experience())
        self._log.path.unlink()
        calibrated = kept.with_prices(self._target, self._path)
        return Calibration(
            target=self._target.name,
            machine=self._machine,
            path=self._path,
            networks=len(self._work),
            rounds=rounds,
            fold_error=fold_error,
            stated={threads: found.error for threads, found in prices.items()},
            left_out=tuple(self._compared(calibrated)),
        )

    def _written(self, folder: Path, listen: Listener) -> dict[str, Path]:
        """Writes what the engine runs without help, and returns the files."""
        files: dict[str, Path] = {}
        for done, name in enumerate((*self._nets, *self._whole)):
            if done % 50 == 0:
                total = len(self._nets) + len(self._whole)
                listen(Activity("writing small networks", done, total))
            graph = self._nets[name].graph() if name in self._nets else self._whole[name]
            work = kernels(graph, self._target)
            if not all(kernel.delegated for kernel in work):
                continue
            if name in self._nets:
                self._work[name] = work
            files[name] = folder / f"{done}.tflite"
            files[name].write_bytes(emit(graph))
        return files

    def _time(
        self, files: Mapping[str, Path], visit_all: Visits, seconds: float, listen: Listener
    ) -> None:
        """Visits what was visited least, until the time is over and all were."""
        keys = [(name, threads) for name in files for threads in self._threads]
        began = time.monotonic()
        while True:
            number = min(self._log.rounds(*key) for key in keys)
            if number > 0 and time.monotonic() - began >= seconds:
                return
            todo = [key for key in keys if self._log.rounds(*key) == number]
            todo = [todo[k] for k in np.random.default_rng(number).permutation(len(todo))]
            for done, visit in enumerate(visit_all(files, todo)):
                if done % 20 == 0:
                    told = f"timing small networks, round {number + 1}"
                    listen(Activity(told, len(keys) - len(todo) + done, len(keys)))
                self._log.add(visit)
                if visit.failure:
                    listen(Noted(f"{visit.name} is left out: {visit.failure}"))
                if number > 0 and time.monotonic() - began >= seconds:
                    return

    def _compared(self, target: Target) -> Iterator[LeftOut]:
        for name, graph in self._whole.items():
            for threads in self._threads:
                us = self._log.us(name, threads)
                if us is not None:
                    found = estimate(graph, target, threads=threads)
                    yield LeftOut(
                        name, threads, us / 1e3, found.latency_ms, found.low_ms, found.high_ms
                    )

    def _experience(self) -> Experience:
        """Returns what the prices rest on; estimates beyond it say so."""
        macs = [float(sum(kernel.macs for kernel in found)) for found in self._work.values()]
        every = [kernel for found in self._work.values() for kernel in found]
        return Experience(
            networks=len(self._work),
            framework=self._framework,
            macs=(min(macs), max(macs)),
            storages=tuple(sorted({kernel.storage for kernel in every})),
            works=tuple(sorted({kernel.work for kernel in every})),
            threads=self._threads,
            kind="fitted",
            source=f"small networks timed on {self._machine} on {date.today()}",
        )


def _check(minutes: float) -> None:
    if not minutes > 0:
        raise UsageError(f"{minutes:g} minutes; wanted more than 0", where="--minutes")


def _takes(target: Target, storage: str) -> bool:
    """Returns whether the engine computes files of a storage in it; GPUs halve floats."""
    return storage == "f32" or storage in target.storage


def _left_out(target: Target) -> Iterator[tuple[str, Graph]]:
    for name in LEFT_OUT:
        drawn = folded(zoo.initialize(zoo.load(f"{name}@none").graph, 0))
        for storage in ("f32", "i8"):
            if _takes(target, storage):
                yield f"{name} {storage}", stored(drawn, storage)


def _note_load(listen: Listener) -> None:
    meter = host.LoadMeter([])
    time.sleep(IDLE_S)
    load = meter.cores()
    if load > BUSY_CORES:
        listen(Noted(f"other work takes {load:.1f} cores: what is timed beside it is too slow"))
