"""What TFLite's `benchmark_model` prints, as figures: all its formats since 2019."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lmopt.errors import BackendError

_LOGCAT = re.compile(r"^\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +\d+ +\d+ ([VDIWEF]) \S+ *: ")
_LEVEL = re.compile(r"^(VERBOSE|INFO|WARN|WARNING|ERROR|FATAL): ")
_COUNT = re.compile(r"^(Timings \(microseconds\): )?count=(\d+) (.*\bcurr=.*)")
_TAIL = re.compile(r"^(?:Average inference|Inference) timings in us: (.*)")
_MEMORY = re.compile(
    r"^(?:Peak memory footprint|Memory footprint delta).*\(MB\): init=(\S+) overall=(\S+)"
)
_APPLIED = re.compile(
    r"(?P<name>\S+) delegate(?: is explicitly applied)?, (?:and )?the model graph will "
    r"(?:be (?P<how>completely|partially) executed|not be executed) (?:by|w/) the delegate"
    r"(?: w/ (?P<kernels>\d+) delegate kernels)?"
)
_APPLIED_BEFORE_2020 = re.compile(r"^Applied (\S+) delegate\.$")
_REPLACED = re.compile(
    r"^Replacing (\d+) out of (\d+) node\(s\) with delegate \((\S+)\) node, "
    r"yielding (\d+) partition"
)
_SIZE = re.compile(r"^The input model file size \(MB\): (\S+)")
_ACCELERATORS = re.compile(r"^NNAPI accelerators available: \[(.*)\]")
_IGNORED = re.compile(r"^Unconsumed cmdline flags: (.*)")
_FAILED_TO_APPLY = re.compile(r"^Failed to apply (.+) delegate\.")
_TITLE = re.compile(r"^=+ (Run Order|Top by Computation Time|Summary by node type) =+$")
_FAILURE = "Benchmarking failed."
_NAMES = {  # of the three figures in the tails of all years
    "Init": "init_us",
    "First inference": "first_us",
    "Warmup": "warmup_us",
    "Warmup (avg)": "warmup_us",
    "Inference": "inference_us",
    "Inference (avg)": "inference_us",
    "no stats": "inference_us",
}

Extent = Literal["completely", "partially", "not", "unknown"]
_EXTENTS: Mapping[str | None, Extent] = {
    "completely": "completely",
    "partially": "partially",
    None: "not",
}


@dataclass(frozen=True)
class Timings:
    """Statistics of a row of inferences, in microseconds.

    Attributes:
        count: Inferences.
        first, last: Of the first and the last one.
        low, high, mean, deviation: Over all of them.
        median: From tools of 2024 on, else None.
    """

    count: int
    first: float
    last: float
    low: float
    high: float
    mean: float
    deviation: float
    median: float | None = None

    @property
    def typical(self) -> float:
        """Returns the median, or the mean where the tool gives none."""
        return self.mean if self.median is None else self.median


@dataclass(frozen=True)
class Operator:
    """A row of the profile: a node, or a whole delegate kernel.

    Units: `start_ms`, `first_ms` and `mean_ms` are milliseconds, `memory_kb` is kilobytes.

    Attributes:
        kind: As the runtime calls it (CONV_2D, TfLiteNnapiDelegate).
        name: Its outputs.
        index: Its place in the graph, where the tool says it.
        percent: Share of the total.
        calls: In each inference; 0 in old tools.
    """

    kind: str
    start_ms: float
    first_ms: float
    mean_ms: float
    percent: float
    memory_kb: float
    calls: int
    name: str
    index: int | None = None


@dataclass(frozen=True)
class Profile:
    """Where the time of one phase went.

    Attributes:
        operators: In the order they ran.
        by_kind_ms: Total time of each kind of node, as the tool sums it.
        nodes: Nodes that ran, as the tool counts them; None in excerpts.
        timings: Of all nodes together.
    """

    operators: tuple[Operator, ...] = ()
    by_kind_ms: tuple[tuple[str, float], ...] = ()
    nodes: int | None = None
    timings: Timings | None = None


@dataclass(frozen=True)
class Delegation:
    """What the tool says became of a delegate that it was to apply.

    Attributes:
        name: GPU, NNAPI, XNNPACK.
        extent: How much of the graph the delegate took; tools before 2020 do not say it.
        kernels: Delegate kernels, where only a part was taken.
    """

    name: str
    extent: Extent
    kernels: int | None = None


@dataclass(frozen=True)
class Replacement:
    """What the runtime says a delegate took.

    Attributes:
        delegate: Class of the delegate (TfLiteXNNPackDelegate).
        taken, total: Nodes.
        partitions: Pieces that the graph falls into.
    """

    delegate: str
    taken: int
    total: int
    partitions: int


@dataclass(frozen=True)
class Report:
    """Everything a run of the tool says.

    Units: microseconds (`_us`) and megabytes (`_mb`).

    Attributes:
        init_us, first_us, warmup_us, inference_us: Loading, the first inference, and the means of
            warm-up and measured inferences, from the closing line; None where it does not say.
        warmup, runs: Statistics of the two phases.
        init_mb, overall_mb: Memory after loading and in the end.
        model_mb: Size of the file.
        delegations, replacements: What delegates took.
        accelerators: NNAPI drivers there are, or None where the tool was not to list them.
        refused: Operators that a delegate does not take, with its reason.
        ignored_flags: What the tool did not understand.
        errors: Lines logged as errors.
        failed: Whether the tool gave up.
        initialization, inference: Profiles, where asked for.
    """

    init_us: float | None = None
    first_us: float | None = None
    warmup_us: float | None = None
    inference_us: float | None = None
    warmup: Timings | None = None
    runs: Timings | None = None
    init_mb: float | None = None
    overall_mb: float | None = None
    model_mb: float | None = None
    delegations: tuple[Delegation, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    accelerators: tuple[str, ...] | None = None
    refused: tuple[str, ...] = ()
    ignored_flags: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    failed: bool = False
    initialization: Profile | None = None
    inference: Profile | None = None

    def delegation(self, name: str) -> Delegation | None:
        """Returns what became of the delegate of that name, or None if it was never applied."""
        return next((d for d in self.delegations if d.name == name), None)


@dataclass
class _Profiled:
    """A profile while it is read."""

    operators: list[Operator] = field(default_factory=list)
    by_kind: list[tuple[str, float]] = field(default_factory=list)
    nodes: int | None = None
    timings: Timings | None = None

    def done(self) -> Profile:
        return Profile(tuple(self.operators), tuple(self.by_kind), self.nodes, self.timings)


def parse(text: str) -> Report:
    """Returns what a run of the tool says; what it does not say stays empty.

    Takes prefixes of log levels and of logcat, and excerpts.

    Raises:
        BackendError: A line begins as the tool's do and goes on as none of them.
    """
    lines = list(_lines(text))
    try:
        return _parse(lines)
    except (ValueError, KeyError) as error:
        raise BackendError(f"the tool's output is garbled: {error}") from error


def _parse(lines: list[tuple[str, str]]) -> Report:
    found = Report(
        errors=tuple(line for level, line in lines if level in ("ERROR", "FATAL")),
        failed=any(line == _FAILURE for _, line in lines),
    )
    phases: list[Timings] = []
    for _, line in lines:
        if (match := _COUNT.match(line)) and match[1] is None:
            phases.append(_timings(match[2], match[3]))
        else:
            found = _with(found, line)
    profiles = _profiles(line for _, line in lines)
    complete = found.inference_us is not None
    return replace(
        found,
        warmup=phases[0] if len(phases) > 1 else None,
        # A lone row of inferences is the warm-up's, unless the closing line follows it.
        runs=phases[-1] if len(phases) > 1 or (phases and complete) else None,
        **{phase: profile.done() for phase, profile in profiles.items()},
    )


def _with(report: Report, line: str) -> Report:
    """Returns a report and what one line adds to it."""
    if match := _TAIL.match(line):
        return replace(report, **_figures(match[1]))
    if match := _MEMORY.match(line):
        return replace(report, init_mb=float(match[1]), overall_mb=float(match[2]))
    if match := _SIZE.match(line):
        return replace(report, model_mb=float(match[1]))
    if match := _APPLIED.search(line):
        kernels = None if match["kernels"] is None else int(match["kernels"])
        applied = Delegation(match["name"], _EXTENTS[match["how"]], kernels)
        return replace(report, delegations=(*report.delegations, applied))
    if match := _APPLIED_BEFORE_2020.match(line):
        applied = Delegation(match[1], "unknown")
        return replace(report, delegations=(*report.delegations, applied))
    if match := _REPLACED.match(line):
        taken, total, partitions = (int(match[k]) for k in (1, 2, 4))
        entry = Replacement(match[3], taken, total, partitions)
        return replace(report, replacements=(*report.replacements, entry))
    if match := _ACCELERATORS.match(line):
        return replace(report, accelerators=tuple(filter(None, match[1].split(","))))
    if match := _IGNORED.match(line):
        return replace(report, ignored_flags=tuple(match[1].split()))
    if _FAILED_TO_APPLY.match(line) and line not in report.errors:
        return replace(report, errors=(*report.errors, line))
    if line.endswith("Operation is not supported."):
        return replace(report, refused=(*report.refused, line))
    return report


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yields every line without its prefixes, and the level they state."""
    letters = {"E": "ERROR", "F": "FATAL", "W": "WARNING"}
    for raw in text.splitlines():
        level, line = "INFO", raw.rstrip()
        if match := _LOGCAT.match(line):
            level, line = letters.get(match[1], "INFO"), line[match.end() :]
        if match := _LEVEL.match(line):
            level, line = match[1], line[match.end() :]
        yield level, line


def _timings(count: str, rest: str) -> Timings:
    """Returns statistics; a single inference is printed without its extremes."""
    values = {key: float(value) for key, value in re.findall(r"(\w+)=(\S+)", rest)}
    last = values["curr"]
    return Timings(
        int(count),
        values.get("first", last),
        last,
        values.get("min", last),
        values.get("max", last),
        values.get("avg", last),
        values.get("std", 0.0),
        values.get("median"),
    )


def _figures(text: str) -> dict[str, Any]:
    pairs = (entry.rpartition(": ") for entry in text.split(", "))
    return {_NAMES[name]: float(value) for name, _, value in pairs if name in _NAMES}


def _profiles(lines: Iterable[str]) -> dict[str, Any]:
    """Returns the profiles of both phases, as far as the text holds them."""
    profiles: dict[str, Any] = {}
    phase, table = "inference", ""
    for line in lines:
        if line.startswith("Profiling Info for Benchmark Initialization"):
            phase = "initialization"
        elif line.startswith("Operator-wise Profiling Info for Regular"):
            phase = "inference"
        elif match := _TITLE.match(line):
            table = match[1]
            profiles.setdefault(phase, _Profiled())
        elif phase not in profiles:
            continue
        elif line.startswith("\t") and "[node type]" not in line.lower():
            cells = [cell.strip() for cell in line.split("\t")[1:]]
            if table == "Run Order" and len(cells) == 9:
                profiles[phase].operators.append(_operator(cells))
            elif table == "Summary by node type" and len(cells) == 7:
                profiles[phase].by_kind.append((cells[0], float(cells[2])))
        elif match := re.match(r"Number of nodes executed: (\d+)", line):
            profiles[phase].nodes = int(match[1])
        elif (match := _COUNT.match(line)) and match[1] is not None:
            profiles[phase].timings = _timings(match[2], match[3])
    return profiles


def _operator(cells: list[str]) -> Operator:
    numbers = [float(cell.rstrip("%")) for cell in cells[1:7]]
    start, first, mean, percent, _, memory = numbers
    name, colon, index = cells[8].rpartition(":")
    indexed = bool(colon) and index.isdecimal()
    return Operator(
        cells[0],
        start,
        first,
        mean,
        percent,
        memory,
        int(cells[7]),
        (name if indexed else cells[8]).removeprefix("[").removesuffix("]"),
        int(index) if indexed else None,
    )
