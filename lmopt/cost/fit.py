"""Finding a target's numbers from latencies of whole networks, or of single kernels.

Times are linear in amounts of work (`lmopt.cost.prices`), and every price is a product of few
constants: the rate of 1x1 convolutions, the shares of it that other kernels reach, two bandwidths,
a launch, a call. Constants are positive and known roughly before anything is measured, so their
logarithms are fitted with a normal prior. Errors count in ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.cost.prices import ARITHMETIC, TERMS
from lmopt.errors import BackendError

Array = NDArray[np.float64]

RATES = ("rate", *ARITHMETIC[1:], "activations", "weights", "launch", "call")
"""Constants of one thread count: GMAC/s of 1x1 convolutions; shares of it; GB/s twice; us twice."""
NOISE = 0.07
"""Standard deviation of the log ratio of a published latency to what the best model would say."""
SPREAD: Mapping[str, float] = {
    "rate": 0.6,
    **dict.fromkeys(ARITHMETIC[1:], 0.4),
    "activations": 0.7,
    "weights": 0.7,
    "launch": 1.0,
    "call": 1.0,
    "speedup": 0.3,
    "thread": 1.0,
}
"""Standard deviation of a constant's logarithm around what is expected, before any latency."""
MOST_STEPS = 200


@dataclass(frozen=True)
class Sample:
    """One latency: the work done, on how many threads, how long it took.

    Attributes:
        amounts: Summed over kernels, in the columns of `TERMS`.
        threads: CPU threads.
        ms: Measured.
    """

    amounts: tuple[float, ...]
    threads: int
    ms: float


@dataclass(frozen=True)
class Fit:
    """Constants by name, as in `RATES`, and `speedup_n` and `thread` where threads varied."""

    constants: Mapping[str, float]

    def ms(self, sample: Sample) -> float:
        """Returns what the model says of a sample's work."""
        names = tuple(self.constants)
        features, powers = _design([sample], names)
        logs = np.log([self.constants[name] for name in names])
        total: float = (features @ np.exp(powers @ logs)).item()
        return total / 1e3


def fit(samples: Sequence[Sample], expected: Mapping[str, float]) -> Fit:
    """Returns the constants that explain samples best.

    Args:
        samples: At least one; thread counts besides 1 bring constants of their own.
        expected: Every constant of `RATES` as known before, and `thread`; `speedup_n` is expected
            to be `n` to the power 0.85 unless given.

    Raises:
        BackendError: A sample's time is not positive.
    """
    if not samples or any(not sample.ms > 0 for sample in samples):
        raise BackendError("nothing to fit: wanted samples with times above 0")
    counts = sorted({sample.threads for sample in samples} - {1})
    names = [*RATES, *(f"speedup_{n}" for n in counts), *(["thread"] if counts else [])]
    center = np.log([_usual(name, expected) for name in names])
    spread = np.array([SPREAD[name.partition("_")[0]] for name in names])
    features, powers = _design(samples, names)
    target = np.log([sample.ms * 1e3 for sample in samples])
    logs = _minimize(features, powers, target, center, spread)
    return Fit(dict(zip(names, map(float, np.exp(logs)), strict=True)))


def leave_one_out(
    groups: Sequence[Sequence[Sample]], expected: Mapping[str, float]
) -> list[list[float]]:
    """Returns ratios of prediction to measurement, every group predicted without itself.

    Args:
        groups: Samples that are left out together: one network at all its thread counts.
        expected: As for `fit`.
    """
    ratios = []
    for k, group in enumerate(groups):
        rest = [sample for j, other in enumerate(groups) if j != k for sample in other]
        found = fit(rest, expected)
        known = dict(found.constants)
        for sample in group:
            # A thread count that only the group has is predicted as expected.
            name = f"speedup_{sample.threads}"
            known.setdefault(name, _usual(name, expected))
        ratios.append([Fit(known).ms(sample) / sample.ms for sample in group])
    return ratios


def _usual(name: str, expected: Mapping[str, float]) -> float:
    if name in expected:
        return expected[name]
    return math.pow(int(name.removeprefix("speedup_")), 0.85)


def _design(samples: Sequence[Sample], names: Sequence[str]) -> tuple[Array, Array]:
    """Returns work by column, and the powers of the constants that make a column's price.

    Units:
        Work times price is microseconds.
    """
    threads = sorted({sample.threads for sample in samples})
    columns: list[tuple[int, str]] = [(n, term) for n in threads for term in TERMS]
    columns += [(n, "thread") for n in threads] + [(0, "call")]
    powers = np.zeros((len(columns), len(names)))
    scale = np.ones(len(columns))
    for k, (count, term) in enumerate(columns):

        def times(name: str, power: float, k: int = k) -> None:
            if name in names:
                powers[k, names.index(name)] = power

        if term in ARITHMETIC:
            scale[k] = 1e3
            times("rate", -1)
            times(term, -1)
        elif term in ("activations", "weights"):
            times(term, -1)
        elif term == "launches":
            times("launch", 1)
        else:
            times(term, 1)
        if count > 1 and (term in ARITHMETIC or term == "weights"):
            times(f"speedup_{count}", -1)
    features = np.zeros((len(samples), len(columns)))
    for row, sample in zip(features, samples, strict=True):
        at = threads.index(sample.threads) * len(TERMS)
        row[at : at + len(TERMS)] = sample.amounts
        extra = len(threads) * len(TERMS) + threads.index(sample.threads)
        row[extra] = sample.amounts[-1] * (sample.threads - 1)
        row[-1] = 1
    return features * scale, powers


def _minimize(features: Array, powers: Array, target: Array, center: Array, spread: Array) -> Array:
    """Returns the logarithms of most probability, by damped Gauss-Newton steps."""

    def residuals(logs: Array) -> tuple[Array, Array]:
        parts = features * np.exp(powers @ logs)
        total = parts.sum(axis=1)
        misfit = np.concatenate([(np.log(total) - target) / NOISE, (logs - center) / spread])
        slope = np.vstack([parts / total[:, None] @ powers / NOISE, np.diag(1 / spread)])
        return misfit, slope

    logs, damping = center.copy(), 1e-3
    misfit, slope = residuals(logs)
    for _ in range(MOST_STEPS):
        normal = slope.T @ slope + damping * np.eye(len(logs))
        step = np.linalg.solve(normal, -slope.T @ misfit)
        tried, tried_slope = residuals(logs + step)
        if tried @ tried < misfit @ misfit:
            logs, misfit, slope = logs + step, tried, tried_slope
            damping = max(damping / 3, 1e-9)
            if np.abs(step).max() < 1e-7:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return logs
