"""What every rendering of a result says: its rows, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from lmopt.exploration.candidate import Candidate, Latency
from lmopt.exploration.result import OptimizeResult, verdict
from lmopt.units import human_bytes

SMALL_DROP = 0.3
"""Points of NME that a user hardly sees: what the recommendation may lose."""
LOSSES = (0.0, 0.05, 0.1, 0.2, SMALL_DROP, 0.6, 1.0)
"""Points of NME for which it is said what to ship."""


@dataclass(frozen=True)
class Row:
    """A candidate as a table shows it; all texts.

    Attributes:
        role: `baseline`, or `front N` as the plot numbers it.
        host: Latency measured on this host.
        speedup: Against the baseline, measured on this host.
        target: Latency estimated for the target, or measured on the device; empty where the host
            is what counts.
        device_speedup: Against the baseline, measured on the device; empty where there is none.
        stability: STD of the landmarks under noise; empty where nobody asked for it.
    """

    role: str
    pipeline: str
    test: str
    validation: str
    host: str
    speedup: str
    target: str
    size: str
    verdict: str
    device_speedup: str = ""
    stability: str = ""


def is_estimated(result: OptimizeResult) -> bool:
    """Returns whether the front's latencies are estimates for another device."""
    return result.baseline.latency.kind == "estimated"


def is_on_device(baseline: Candidate) -> bool:
    """Returns whether latencies were measured on a phone or a card."""
    return baseline.device_speedup is not None


def target_columns(target: str, baseline: Candidate) -> tuple[str, ...]:
    """Returns the heading of the target's latency; none where the host is what counts."""
    if is_on_device(baseline):
        return (f"{target} ms (measured on the device)",)
    return (f"{target} ms (estimated ±)",) if baseline.latency.kind == "estimated" else ()


def columns(result: OptimizeResult) -> tuple[str, ...]:
    """Returns the headings that belong to `cells`."""
    target = target_columns(result.target, result.baseline)
    if is_on_device(result.baseline):
        target = (*target, "device speed-up")
    budget = f"verdict ({result.baseline.latency.kind})"
    stability = () if result.baseline.trained.std_percent is None else ("STD under noise %",)
    return (
        "",
        "pipeline",
        "NME test %",
        "NME val %",
        "host ms (measured)",
        "host speed-up",
        *target,
        *stability,
        "size",
        budget,
    )


def cells(row: Row, result: OptimizeResult) -> tuple[str, ...]:
    """Returns a row's texts in the order of `columns`."""
    before = (row.role, row.pipeline, row.test, row.validation, row.host, row.speedup)
    others = filter(None, (row.target, row.device_speedup, row.stability))
    return (*before, *others, row.size, row.verdict)


def rows(result: OptimizeResult) -> tuple[Row, ...]:
    """Returns the baseline and the front, fastest first."""
    return (
        _row("baseline", result.baseline),
        *(_row(f"front {k}", candidate) for k, candidate in enumerate(result.front, start=1)),
    )


def _row(role: str, candidate: Candidate) -> Row:
    made, latency = candidate.trained, candidate.latency
    on_device = candidate.device_speedup
    return Row(
        role=role,
        pipeline=candidate.pipeline,
        test="-" if candidate.nme_percent is None else f"{candidate.nme_percent:.2f}",
        validation=f"{made.val_nme_percent:.2f}",
        host=latency_text(candidate.host),
        speedup=speedup_text(candidate),
        target=latency_text(latency) if on_device or latency.kind == "estimated" else "",
        size=human_bytes(made.size_bytes),
        verdict=verdict(latency.ms),
        device_speedup="" if on_device is None else _times(on_device),
        stability="" if made.std_percent is None else f"{made.std_percent:.2f}",
    )


def latency_text(latency: Latency) -> str:
    """Returns a latency with its uncertainty, in milliseconds.

    >>> latency_text(Latency(0.5, "estimated", "velvet-apu", 0.1, 0.9))
    '0.5 ± 0.4'
    >>> latency_text(Latency(0.5, "measured", "a CPU", 0.49, 0.52, threads=2))
    '0.500 [0.490, 0.520], 2 threads'
    """
    if latency.kind == "estimated":
        return f"{latency.ms:.3g} ± {latency.high - latency.ms:.2g}"
    count = latency.threads
    threads = "" if count is None else f", {count} thread{'s' if count > 1 else ''}"
    return f"{latency.ms:.3f} [{latency.low:.3f}, {latency.high:.3f}]{threads}"


def speedup_text(candidate: Candidate) -> str:
    """Returns how many times as fast as the baseline a candidate is here, with its interval."""
    return _times(candidate.speedup)


def _times(speedup: tuple[float, float, float]) -> str:
    value, low, high = speedup
    return f"{value:.2f}x [{low:.2f}, {high:.2f}]"


def where(result: OptimizeResult) -> str:
    """Returns where the latencies come from, in words."""
    measured = f"measured on this host ({result.baseline.host.where})"
    if is_on_device(result.baseline):
        return f"measured on {result.baseline.latency.where}; host column {measured}"
    if not is_estimated(result):
        return measured
    return f"estimated for {result.target}, not measured there; host column {measured}"


def faces(result: OptimizeResult) -> str:
    """Returns what the NME was found on, in words."""
    data = result.data
    counts = ", ".join(f"{count} {split}" for split, count in data["faces"].items())
    return f"{data['kind']} ({data['name']}: {counts}); {data['normaliser']}, crop {data['crop']}"


@dataclass(frozen=True)
class Choice:
    """What to ship when so much NME may be lost.

    Attributes:
        points: Of validation NME that may be lost against the baseline.
        candidate: The fastest of the front that loses no more.
        text: What it costs and brings.
    """

    points: float
    candidate: Candidate
    text: str


def choices(result: OptimizeResult) -> tuple[Choice, ...]:
    """Returns what to ship for the losses in `LOSSES`, without larger ones that buy nothing."""
    found: list[Choice] = []
    for points in LOSSES:
        pick = _fastest(result, points)
        if pick is not None and (not found or pick != found[-1].candidate):
            found.append(Choice(points, pick, f"{_gain(pick, result)}; {_price(pick, result)}"))
    return tuple(found)


def recommended(result: OptimizeResult) -> Candidate:
    """Returns the fastest front point within `SMALL_DROP` of the baseline's validation NME."""
    return _fastest(result, SMALL_DROP) or min(result.front, key=lambda c: c.latency.ms)


def recommendation(result: OptimizeResult) -> str:
    """Returns which file to ship and why, as a sentence."""
    pick = recommended(result)
    if pick.trained.digest == result.baseline.trained.digest:
        return f"ship the float baseline: nothing faster keeps its NME within {SMALL_DROP} points"
    found = f"ship {pick.pipeline}: {_gain(pick, result)}, {_price(pick, result)}"
    if pick == _fastest(result, SMALL_DROP):
        return f"{found}; the fastest that loses no more than {SMALL_DROP} points"
    return found


def _fastest(result: OptimizeResult, points: float) -> Candidate | None:
    limit = result.baseline.trained.val_nme_percent + points
    good = [c for c in result.front if c.trained.val_nme_percent <= limit]
    return min(good, key=lambda c: c.latency.ms, default=None)


def _gain(pick: Candidate, result: OptimizeResult) -> str:
    if is_estimated(result):
        times = result.baseline.latency.ms / pick.latency.ms
        return f"{times:.2f}x as fast as the float baseline (estimated)"
    return (
        f"{_times(pick.device_speedup or pick.speedup)} as fast as the float baseline "
        f"(measured{' on the device' if pick.device_speedup else ''})"
    )


def _price(pick: Candidate, result: OptimizeResult) -> str:
    base = result.baseline
    change = pick.trained.val_nme_percent - base.trained.val_nme_percent
    return (
        f"{human_bytes(pick.trained.size_bytes)} instead of "
        f"{human_bytes(base.trained.size_bytes)}, {change:+.2f} points validation NME"
    )
