"""How well the cost model explains latencies that others published.

Every network of a processor is predicted by the constants that the others give (leave one out).

Run: `python -m benchmarks.published_latency [--table measured_latency.csv] [--networks]`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.published.profiles import PROFILES, framework_ratios, scaling_ratio, toml
from benchmarks.published.series import (
    FROZEN_ON,
    SERIES,
    SHARED,
    Network,
    Series,
    described,
    networks,
    read_table,
)
from lmopt.cost.fit import Fit, fit, leave_one_out
from lmopt.errors import LmoptError


@dataclass(frozen=True)
class Outcome:
    """What a fit of one series gave.

    Attributes:
        series: The latencies.
        networks: Those that are described.
        total: Networks that the table has.
        fit: Constants from all networks.
        ratios: Prediction over measurement of networks left out, by network.
    """

    series: Series
    networks: tuple[Network, ...]
    total: int
    fit: Fit
    ratios: tuple[tuple[float, ...], ...]

    def errors(self, threads: int | None = None) -> list[float]:
        """Returns the absolute relative errors of networks left out."""
        return [
            abs(ratio - 1)
            for network, ratios in zip(self.networks, self.ratios, strict=True)
            for sample, ratio in zip(network.samples, ratios, strict=True)
            if threads is None or sample.threads == threads
        ]

    @property
    def threads(self) -> tuple[int, ...]:
        """Returns the thread counts."""
        return tuple(sorted({s.threads for n in self.networks for s in n.samples}))


def evaluate(series: Series, rows: Sequence[Mapping[str, str]]) -> Outcome:
    """Returns the fit of a series and how networks left out of it are predicted."""
    found = networks(series, rows)
    groups = [network.samples for network in found]
    samples = [sample for group in groups for sample in group]
    ratios = leave_one_out(groups, series.expected)
    return Outcome(
        series,
        tuple(found),
        described(rows, series)[1],
        fit(samples, series.expected),
        tuple(map(tuple, ratios)),
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns the errors of all series as Markdown."""
    lines = [
        "| processor, framework | networks described / published | threads | median % | 90 % "
        "within | within 10 % | within 20 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        mark = " (form chosen here)" if outcome.series in FROZEN_ON else ""
        for threads in outcome.threads:
            errors = np.array(outcome.errors(threads))
            lines.append(
                f"| {outcome.series.name}{mark} | {len(outcome.networks)} / {outcome.total} | "
                f"{threads} | {100 * np.median(errors):.1f} | {100 * np.quantile(errors, 0.9):.0f} "
                f"% | {100 * np.mean(errors <= 0.1):.0f} % | {100 * np.mean(errors <= 0.2):.0f} % |"
            )
    return "\n".join(lines)


def constants(outcome: Outcome) -> str:
    """Returns the constants of a fit in one line."""
    shown = ", ".join(f"{name} {value:.3g}" for name, value in outcome.fit.constants.items())
    return f"{outcome.series.name}: {shown}"


def worst(outcome: Outcome) -> str:
    """Returns every network of a series with its error, the worst first."""
    pairs = [
        (ratio - 1, f"{network.name} {sample.threads}t")
        for network, ratios in zip(outcome.networks, outcome.ratios, strict=True)
        for sample, ratio in zip(network.samples, ratios, strict=True)
    ]
    pairs.sort(key=lambda pair: -abs(pair[0]))
    return f"{outcome.series.name}: " + ", ".join(f"{name} {100 * e:+.0f} %" for e, name in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=SHARED, help="published latencies, CSV")
    parser.add_argument("--profiles", action="store_true", help="print TOML for the targets")
    parser.add_argument("--networks", action="store_true", help="show every network's error")
    options = parser.parse_args()
    try:
        rows = read_table(options.table)
    except LmoptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    outcomes = [evaluate(series, rows) for series in SERIES]
    ratios = {engine: framework_ratios(rows, engine) for engine in ("CPU", "GPU")}
    spread = {e: float(np.quantile(np.abs(np.log(found)), 0.9)) for e, found in ratios.items()}
    if options.profiles:
        for profile in PROFILES:
            print(toml(profile, outcomes, spread.get(profile.engine, 0.0)))
        return 0
    print(table(outcomes))
    for engine, found in ratios.items():
        print(
            f"\nTFLite and XNNPACK against other frameworks, {engine}: {len(found)} pairs, median "
            f"{np.median(found):.2f}, nine of ten within a factor {np.exp(spread[engine]):.2f}"
        )
    gain = scaling_ratio(rows, "Kirin 980", "Snapdragon 855")
    print(f"\nGain of four threads, Kirin 980 over Snapdragon 855, six detectors: {gain:.2f}")
    print("\nMediaTek APU 3.0: no network's latency is published; nothing to fit.\n")
    for outcome in outcomes:
        print(worst(outcome) if options.networks else constants(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
