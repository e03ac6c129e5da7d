"""Measures model files on an Android phone, interleaved, by TFLite's own tool."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.device.adb import DeviceLostError
from lmopt.device.output import Profile, Report, parse
from lmopt.device.phone import Phone, Reading, busy_cores, read, temperature
from lmopt.device.rig import Rig
from lmopt.device.tool import Setting, Tool, check
from lmopt.errors import BackendError, InputError
from lmopt.latency import host
from lmopt.latency.harness import NARROW, Key
from lmopt.latency.measurement import Conditions, Measurement
from lmopt.latency.visits import VisitTime
from lmopt.runtime.runner import file_digest, read_model

MIN_ROUNDS = 5
KEPT_ROUNDS = 3
"""Whole rounds without which a phone that went away has measured nothing."""
LOSSES = 3
"""How often a phone may go away and come back within one comparison."""
DRIFT = 0.1
"""Slower by this part in the second half of the rounds than in the first: it throttles."""


@dataclass(frozen=True)
class Visit:
    """How long one run of the tool lasts.

    Attributes:
        runs: Measured inferences at least.
        seconds: Of measured inferences at least.
        longest_s: After this none is begun.
        warmup_s: Seconds of unmeasured ones at least.
        limit_s: After this the tool counts as hanging: loading takes long on some accelerators.
    """

    runs: int = 20
    seconds: float = 0.5
    longest_s: float = 30.0
    warmup_s: float = 0.2
    limit_s: float = 90.0

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns the tool's flags for it."""
        return (
            f"--num_runs={self.runs}",
            f"--min_secs={self.seconds:g}",
            f"--max_secs={self.longest_s:g}",
            "--warmup_runs=1",
            f"--warmup_min_secs={self.warmup_s:g}",
        )


@dataclass(frozen=True)
class Cooling:
    """How a hot phone is waited for.

    Attributes:
        rise_c: Degrees above the temperature at the beginning that are still cool.
        visit_s: Seconds to wait before one visit at most.
        total_s: Seconds to wait in all.
        poll_s: Seconds between two readings.
    """

    rise_c: float = 10.0
    visit_s: float = 30.0
    total_s: float = 600.0
    poll_s: float = 1.0


@dataclass
class PhoneRun:
    """What measuring on a phone found; a file that failed does not stop the others.

    Attributes:
        measurements: By label and thread count.
        failures: Why a file has no measurement, likewise.
        notes: What is to be said of the runs of a label, beside the figures.
    """

    measurements: dict[Key, Measurement] = field(default_factory=dict)
    failures: dict[Key, BackendError] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


class PhoneBench:
    """Runs files on one phone in one way; everything of it happens within its rig.

    Attributes:
        phone: What it is.
        setting: The engine.
        tool: What runs there.
    """

    def __init__(
        self,
        rig: Rig,
        phone: Phone,
        tool: Tool,
        setting: Setting,
        *,
        target: str = "adb",
        visit: Visit | None = None,
        cooling: Cooling | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keeps how to measure.

        Args:
            rig: An entered one.
            phone: What `describe` found.
            tool: What the rig runs.
            setting: The engine.
            target: The profile that this measures.
            visit: How long one run of the tool lasts.
            cooling: How long to wait for a hot phone.
            wait: Lets seconds pass.
        """
        self.phone = phone
        self.setting = setting
        self._rig = rig
        self.tool = tool
        self._target = target
        self._length = visit or Visit()
        self._cooling = cooling or Cooling()
        self._wait = wait
        self._waited_s = 0.0
        self._hot: float | None = None
        self._places: dict[str, str] = {}

    def compare(
        self,
        models: Mapping[str, bytes | Path],
        *,
        threads: Sequence[int] = (1,),
        max_seconds: float = 60.0,
        min_rounds: int = MIN_ROUNDS,
        seed: int = 0,
    ) -> PhoneRun:
        """Returns a measurement of every file at every thread count, taken interleaved.

        A round visits each once, in an order drawn from `seed`; a visit is one run of the tool,
        whose median inference (the mean, of tools before 2024) is the sample. It stops when every
        median's 95 % interval is within +-1 %, or when `max_seconds` are over; never before
        `min_rounds`. A phone that goes away is waited for; when it stays away, the rounds that
        were whole by then count.

        Args:
            models: Files or their bytes by label.
            threads: CPU thread counts.
            max_seconds: When to stop although an interval is still wide.
            min_rounds: Rounds at least.
            seed: Draws the order of visits.

        Raises:
            InputError: Nothing to measure, or a thread count the phone does not have.
            DeviceLostError: The phone went away before `KEPT_ROUNDS` rounds.
        """
        self._check(models, threads)
        found = PhoneRun()
        visits: dict[Key, list[Report]] = {(name, n): [] for name in models for n in threads}
        rng, session, rounds = np.random.default_rng(seed), uuid.uuid4().hex, 0
        with host.exclusive("measuring a phone"):
            before = read(self._rig.adb)
            load = busy_cores(self._rig.adb)
            after: Reading | None = None

            def measured() -> dict[Key, Measurement]:
                # Rounds are paired: what was visited once more before a loss is left out.
                return {
                    key: self._measurement(
                        models[key[0]], key[1], own[:rounds], session, load, before, after
                    )
                    for key, own in visits.items()
                }

            start = time.monotonic()
            losses = 0
            try:
                while visits:
                    order = list(visits)
                    order = [order[place] for place in rng.permutation(len(order))]
                    while order:
                        try:
                            self._visit(models, order[-1], before, visits, found)
                            order.pop()
                        except DeviceLostError:
                            losses += 1
                            if losses > LOSSES or not self._rig.wait_until_back():
                                raise
                    rounds += 1
                    if rounds < min_rounds:
                        continue
                    late = time.monotonic() - start >= max_seconds
                    if late or all(m.spread <= NARROW for m in measured().values()):
                        break
                after = read(self._rig.adb)
            except DeviceLostError:
                if rounds < KEPT_ROUNDS:
                    raise
            found.measurements.update(measured() if visits else {})
        return found

    def visits(self, models: Mapping[str, Path], order: Iterable[Key]) -> Iterator[VisitTime]:
        """Yields what a run of the tool told, for every file and thread count of `order`.

        No file stays on the phone. One that fails is told; a phone that goes away is waited for.

        Args:
            models: Files by name.
            order: Names and thread counts, as they are to be visited.

        Raises:
            DeviceLostError: The phone stays away.
        """
        with host.exclusive("measuring a phone"):
            cool, losses = temperature(self._rig.adb), 0
            for name, threads in order:
                told: VisitTime | None = None
                while told is None:
                    try:
                        self._cool(cool)
                        runs = self._run(models[name], threads, self._length.flags, name)[0].runs
                        us = None if runs is None else runs.typical
                        told = VisitTime(name, threads, us, "" if us else "the tool told no time")
                    except DeviceLostError:
                        losses += 1
                        if losses > LOSSES or not self._rig.wait_until_back():
                            raise
                    except BackendError as error:
                        told = VisitTime(name, threads, None, str(error))
                for place in self._places.values():
                    self._rig.remove(place)
                self._places.clear()
                yield told

    def profile(self, model: bytes | Path, *, threads: int = 1) -> Profile | None:
        """Returns where the time goes, node by node; the profiler itself takes some of it.

        Raises:
            BackendError: The tool fails, or the phone went away.
        """
        flags = ("--enable_op_profiling=true", *self._length.flags)
        return self._run(model, threads, flags, "profiling")[0].inference

    def answers(
        self, model: bytes | Path, items: NDArray[np.generic], *, threads: int = 1
    ) -> list[bytes] | None:
        """Returns the bytes of all outputs for each item; None where the tool is too old for it.

        Shapes:
            items: [items, *input shape without its batch], in the stored type of the one input.

        Raises:
            BackendError: The tool fails, or the phone went away.
        """
        found = []
        for item in items:
            place = self._rig.send(np.ascontiguousarray(item).tobytes(), "input")
            flags = (
                "--input_layer=input",
                f"--input_layer_shape=1,{','.join(map(str, item.shape))}",
                f"--input_layer_value_files=input:{place}",
                f"--output_filepath={self._rig.folder}/output",
                *("--num_runs=1", "--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0"),
            )
            report, _ = self._run(model, threads, flags, "comparing outputs")
            written = self._rig.fetch("output")
            if written is None or report.ignored_flags:
                return None
            found.append(written)
        return found

    def _check(self, models: Mapping[str, bytes | Path], threads: Sequence[int]) -> None:
        if not models or not threads:
            raise InputError("nothing to measure: give at least one model and one thread count")
        cores = len(self.phone.max_khz) or max(threads)
        wrong = [count for count in threads if not 1 <= count <= cores]
        if wrong:
            raise InputError(
                f"cannot measure with {wrong[0]} threads; the phone offers 1 to {cores}",
                where="--threads",
                hint=f"choose from 1 to {cores}",
            )

    def _visit(
        self,
        models: Mapping[str, bytes | Path],
        key: Key,
        before: Reading,
        visits: dict[Key, list[Report]],
        found: PhoneRun,
    ) -> None:
        """Adds a visit; a file that fails is left out of the later rounds."""
        label, threads = key
        try:
            self._cool(before.temperature_c)
            report, notes = self._run(models[label], threads, self._length.flags, label)
        except DeviceLostError:
            raise
        except BackendError as error:
            found.failures[key] = error
            del visits[key]
            return
        visits[key].append(report)
        if notes:
            found.notes.setdefault(label, notes)

    def _run(
        self, model: bytes | Path, threads: int, flags: Sequence[str], doing: str
    ) -> tuple[Report, tuple[str, ...]]:
        """Returns what the tool says, and what is to be said of that."""
        data = model if isinstance(model, bytes) else read_model(model)
        digest = file_digest(data)
        if digest not in self._places:
            self._places[digest] = self._rig.send(data, f"{digest}.tflite")
        graph = f"--graph={self._places[digest]}"
        ran = self._rig.run(
            (graph, f"--num_threads={threads}", *self.setting.flags, *flags),
            mask=self.phone.mask(threads),
            limit_s=self._length.limit_s,
        )
        report = parse(ran.output)
        return report, check(report, ran.status, self.setting, f"{doing} on {self.phone.serial}")

    def _cool(self, start_c: float | None) -> None:
        """Waits until the phone is about as cool as it was, or the time for that is up."""
        if start_c is None:
            return
        limits, waited = self._cooling, 0.0
        while True:
            now = temperature(self._rig.adb)
            if now is None or now <= start_c + limits.rise_c:
                return
            if waited >= limits.visit_s or self._waited_s >= limits.total_s:
                self._hot = max(self._hot or now, now)
                return
            self._wait(limits.poll_s)
            waited += limits.poll_s
            self._waited_s += limits.poll_s

    def _measurement(
        self,
        model: bytes | Path,
        threads: int,
        visits: Sequence[Report],
        session: str,
        load: float | None,
        before: Reading,
        after: Reading | None,
    ) -> Measurement:
        runs = [visit.runs for visit in visits if visit.runs is not None]
        medians = all(run.median is not None for run in runs)
        samples = tuple((run.typical if medians else run.mean) / 1e3 for run in runs)
        first = visits[0]
        return Measurement(
            target=self._target,
            digest=file_digest(model if isinstance(model, bytes) else read_model(model)),
            samples_ms=samples,
            per_round=1,
            warmup=int(np.median([v.warmup.count if v.warmup else 0 for v in visits])),
            threads=threads,
            tool=f"{self.tool}, {'median' if medians else 'mean'} of each run",
            where=f"{self.phone}, {self.setting}",
            session=session,
            other_load=load or 0.0,
            conditions=Conditions(
                device=self.phone.to_json(),
                mask=self.phone.mask(threads) if self._rig.pins else None,
                temperature_before_c=before.temperature_c,
                temperature_after_c=None if after is None else after.temperature_c,
                governors=tuple(sorted(set(before.governors.values()))),
                inferences=sum(run.count for run in runs),
                init_ms=_ms(first.init_us),
                first_ms=_ms(first.first_us),
                memory_mb=first.overall_mb,
                doubts=self._doubts(samples, before, after),
            ),
        )

    def _doubts(
        self, samples: Sequence[float], before: Reading, after: Reading | None
    ) -> tuple[str, ...]:
        found = [*before.doubts, *(() if after is None else after.doubts)]
        if self._hot is not None:
            found.append(f"hot: {self._hot:.0f} C, and it did not cool down in time")
        half = len(samples) // 2
        drift = float(np.median(samples[half:]) / np.median(samples[:half])) - 1 if half else 0.0
        if drift > DRIFT:
            found.append(f"slower by {drift:.0%} in the second half of the run: it throttles")
        if after is None:
            found.append(f"the phone went away after {len(samples)} rounds")
        return tuple(dict.fromkeys(found))


def _ms(us: float | None) -> float | None:
    return None if us is None else us / 1e3
