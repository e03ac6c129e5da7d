"""Numbers of target profiles from fits to published latencies, as TOML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.published.catalog import network
from benchmarks.published.series import Network, Series
from lmopt.cost.fit import Fit
from lmopt.target.vocabulary import UNITS

LITERT = ("TFLite", "XNNPACK")
"""Frameworks of the table that are the targets' runtime, in a version with its present kernels."""
SCALING_ROWS = "Paddle-Lite 2.6"
"""Framework that timed the same detectors on several processors at one and four threads."""


class Fitted(Protocol):
    """A fit with how networks left out of it were predicted."""

    @property
    def series(self) -> Series: ...
    @property
    def networks(self) -> tuple[Network, ...]: ...
    @property
    def fit(self) -> Fit: ...
    def errors(self, threads: int | None = None) -> list[float]: ...


@dataclass(frozen=True)
class Profile:
    """What of a target is fitted, and on what.

    Attributes:
        target: Name of the TOML.
        series: Of float32 or, for GPUs, of float16.
        integers: Series of int8, or none.
        peak: GMAC/s of the profile's `peak_*` that belongs to the series.
        peak_i8: Likewise of int8.
        clock: The target's clock over the one that was measured, or its peak over that.
        winograd: Whether the target's runtime multiplies 3x3 windows in fewer steps.
        engine: Part of the table's processor names, for the spread between frameworks.
        threads: Thread counts that fits tell of, those of another chip included.
    """

    target: str
    series: str
    peak: float
    integers: str = ""
    peak_i8: float = 0.0
    clock: float = 1.0
    winograd: bool = False
    engine: str = "CPU"
    threads: tuple[int, ...] = (1, 2, 4)

    @property
    def own_runtime(self) -> bool:
        """Returns whether the latencies are the runtime's own, though of an early release."""
        return self.series.endswith("XNNPACK")


LEAST_SPREAD = math.log(1.25)
"""Ratio granted to other releases and sibling chips where no other framework comes in: a guess."""

PROFILES: tuple[Profile, ...] = (
    Profile(
        "p30-cpu",
        "Kirin 980 (A76), Paddle-Lite 2.11",
        20.8,
        "Kirin 980 (A76), Paddle-Lite 2.11 int8",
        83.2,
    ),
    Profile(
        "velvet-cpu",
        "Snapdragon 865 (A77), Paddle-Lite 2.11",
        16.0,
        "Snapdragon 865 (A77), Paddle-Lite 2.11 int8",
        64.0,
        clock=2.0 / 2.84,
    ),
    Profile("htc10-cpu", "Snapdragon 821 (Kryo), XNNPACK", 8.6),
    Profile(
        "p30-gpu", "Kirin 980 (Mali-G76), TNN", 345.6, winograd=True, engine="GPU", threads=(1,)
    ),
    Profile(
        "velvet-gpu",
        "Kirin 980 (Mali-G76), TNN",
        208.0,
        clock=208.0 / 345.6,
        winograd=True,
        engine="GPU",
        threads=(1,),
    ),
    Profile(
        "desktop-cuda",
        "T4, TensorRT fp32",
        3590.0,
        clock=3590.0 / 4050.0,
        winograd=True,
        engine="",
        threads=(1,),
    ),
)


def quantities(
    profile: Profile, outcomes: Sequence[Fitted], spread: float
) -> Iterator[tuple[str, float, str]]:
    """Yields name, value and source of every fitted quantity of a profile.

    Args:
        profile: Which.
        outcomes: Fits of all series.
        spread: Logarithm of the ratio within which nine of ten frameworks agree with the runtime.
    """
    by_name = {outcome.series.name: outcome for outcome in outcomes}
    fitted = by_name[profile.series]
    known, clock = fitted.fit.constants, profile.clock
    scaled = "" if clock == 1 else f", times {clock:.3g} for clock or peak"
    source = f"fit of {len(fitted.networks)} networks, {profile.series}"
    share = known["rate"] * clock / profile.peak
    yield "conv_share", share, source
    for name in ("square", "window", "depthwise", "dense"):
        if name == "square" and not profile.winograd:
            yield "square_share", share, f"as 1x1: the runtime has no Winograd; {source}"
        else:
            yield f"{name}_share", share * known[name], source
    yield "bandwidth", known["activations"] * clock, source + scaled
    yield "weight_bandwidth", known["weights"] * clock, source + scaled
    # Launches of a GPU are its driver's work on the CPU: they do not follow its clock.
    slower = clock if profile.engine == "CPU" else 1.0
    yield "kernel_overhead", known["launch"] / slower, source + (scaled if slower != 1 else "")
    yield "invoke_overhead", known["call"] / slower, source + (scaled if slower != 1 else "")
    worst = float(np.quantile(np.log1p(fitted.errors()), 0.9))
    if profile.integers:
        integers = by_name[profile.integers]
        rate = integers.fit.constants["rate"] * clock
        told = f"fit of {len(integers.networks)} networks, {profile.integers}"
        yield "integer_share", rate / (profile.peak_i8 * share), told
        yield "integer_bandwidth", integers.fit.constants["activations"] * clock, told + scaled
        worst = max(worst, float(np.quantile(np.log1p(integers.errors()), 0.9)))
    if profile.own_runtime or not profile.engine:
        spread, of = LEAST_SPREAD, "a guess for another release and a sibling chip"
    else:
        of = "which holds nine of ten latencies of the runtime against other frameworks'"
    error = math.exp(math.hypot(worst, spread)) - 1
    yield (
        "error",
        error,
        f"nine of ten networks left out of the fit are within {100 * math.expm1(worst):.0f} %; "
        f"and a factor {math.exp(spread):.2f}, {of}",
    )


def toml(profile: Profile, outcomes: Sequence[Fitted], spread: float) -> str:
    """Returns the fitted quantities of a profile, and what they were fitted on, as TOML."""
    lines = [f"# {profile.target}.toml"]
    for name, value, source in quantities(profile, outcomes, spread):
        lines += [
            f"[quantities.{name}]",
            f"value = {value:.3g}" if value < 1000 else f"value = {value:.0f}",
            f'unit = "{UNITS[name]}"',
            'kind = "fitted"',
            f'source = "{source}"',
            "",
        ]
    used = [o for o in outcomes if o.series.name in (profile.series, profile.integers)]
    found = [net for outcome in used for net in outcome.networks]
    storages = [outcome.series.storage for outcome in used]
    macs = [net.macs for net in found]
    works = sorted(frozenset().union(*(net.works for net in found)))
    lines += [
        "[experience]",
        # The series of integers times the same networks.
        f"networks = {max(len(outcome.networks) for outcome in used)}",
        f'framework = "{", ".join(sorted({o.series.match["framework"] for o in used}))}"',
        f"macs = [{min(macs):.3g}, {max(macs):.3g}]",
        f"storages = {storages}".replace("'", '"'),
        f"works = {works}".replace("'", '"'),
        f"threads = {list(profile.threads)}",
        'kind = "fitted"',
        f'source = "published latencies: {" and ".join(o.series.name for o in used)}"',
    ]
    return "\n".join(lines) + "\n"


def framework_ratios(rows: Sequence[Mapping[str, str]], engine: str) -> list[float]:
    """Returns the runtime's latencies over other frameworks', alike in network, chip and threads.

    Args:
        rows: The table.
        engine: CPU, in float32 throughout; or GPU.
    """
    found: dict[tuple[str, str, int, int], list[tuple[str, float]]] = {}
    for row in rows:
        graph = network(row["model"], int(row["input"])) if row["input"].isdigit() else None
        if graph is None or engine not in row["processor"] or not _comparable(row, engine):
            continue
        chip = row["soc"].partition(" (")[0].removesuffix("+")
        key = (chip, row["threads"] if engine == "CPU" else "", graph.macs, graph.parameters)
        found.setdefault(key, []).append((row["framework"], float(row["ms"])))
    return [
        ms / other_ms
        for group in found.values()
        for name, ms in group
        if name in LITERT
        for other, other_ms in group
        if other not in LITERT
    ]


def _comparable(row: Mapping[str, str], engine: str) -> bool:
    if engine == "GPU":
        return True
    # ncnn's precision follows the core: no half precision on these.
    float_cores = ("A73", "Kryo", "A53")
    return row["precision"] == "fp32" or (
        not row["precision"].startswith(("int8", "uint8"))
        and any(core in row["processor"] for core in float_cores)
    )


def scaling_ratio(rows: Sequence[Mapping[str, str]], chip: str, other: str) -> float:
    """Returns a chip's gain of four threads over another chip's, geometric mean of detectors."""
    ms = {
        (row["soc"], row["model"], row["threads"]): float(row["ms"])
        for row in rows
        if row["framework"] == SCALING_ROWS
    }
    names = sorted({model for soc, model, _ in ms if soc == chip})
    gains = [
        (ms[chip, n, "1"] / ms[chip, n, "4"]) / (ms[other, n, "1"] / ms[other, n, "4"])
        for n in names
    ]
    return math.exp(float(np.mean(np.log(gains))))
