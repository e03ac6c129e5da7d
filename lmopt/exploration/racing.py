"""Which candidate a search trains on, which it drops, and when it has found what it will find.

All of it is a function of what is known of the candidates, so that a search that was killed goes on
as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmopt.exploration.front import Front, hypervolume

KEPT = 3.0
"""One candidate in so many goes on to the next fidelity (Li et al. 2020, arXiv:1810.05934)."""
SURE = 2.0
"""Standard errors from which on a difference counts."""
LEARNED = 10
"""Candidates from which on a candidate's NME is guessed before it is trained."""
SLACK = (1.5, 1.2)
"""The hypervolume's corner: so many times the baseline's NME and latency."""
RESAMPLES = 200
PATIENCE = 24
"""Results after which a search that did not gain `GROWTH` has found its front."""
GROWTH = 0.01


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, eq=False)
class Racer:
    """What is known of one candidate.

    Attributes:
        number: In the order of asking.
        ms: Latency and its 95 % interval, relative to the baseline's: 0.5 is twice as fast.
        errors: NME in percent of each validation face, after no training and after each fidelity.
        macs, parameters: Of its graph.
        dropped: Whether it is not to be trained on.
    """

    number: int
    ms: Interval
    errors: tuple[NDArray[np.float64], ...]
    macs: int
    parameters: int
    dropped: bool = False

    @property
    def fidelity(self) -> int:
        """Returns up to where it was trained; 0 is not at all."""
        return len(self.errors) - 1

    def nme(self, fidelity: int) -> float:
        """Returns the NME in percent after a fidelity."""
        return float(self.errors[fidelity].mean())


def beats(left: Racer, right: Racer, fidelity: int) -> bool:
    """Returns whether `left` dominates `right` beyond the noise of both, at one fidelity.

    The NME are compared face by face; latencies differ where their intervals are apart.
    """
    if not left.ms.high < right.ms.low:
        return False
    worse = right.errors[fidelity] - left.errors[fidelity]
    return float(worse.mean()) > SURE * _standard_error(worse)


def is_beaten(racer: Racer, racers: Sequence[Racer]) -> bool:
    """Returns whether anyone that was trained as long beats it, at the longest fidelity it has."""
    last = racer.fidelity
    return last > 0 and any(beats(other, racer, last) for other in racers if other.fidelity >= last)


def next_to_train(racers: Sequence[Racer], fidelities: int) -> Racer | None:
    """Returns who goes on to its next fidelity; None when a new candidate is wanted.

    Of those that have reached a fidelity one in `KEPT` goes on: the outermost front first, within a
    front whoever adds most to the hypervolume, never one that is beaten beyond noise.
    """
    for fidelity in range(fidelities - 1, 0, -1):
        here = [racer for racer in racers if racer.fidelity >= fidelity]
        beyond = sum(racer.fidelity > fidelity for racer in here)
        if beyond + 1 > len(here) / KEPT:
            continue
        for racer in _ranked(here, [racer.nme(fidelity) for racer in here]):
            if racer.fidelity == fidelity and not racer.dropped and not is_beaten(racer, racers):
                return racer
    return None


def next_to_finish(racers: Sequence[Racer], fidelities: int) -> Racer | None:
    """Returns whom to train further of those that may be on the front at the end; None when done.

    NME of different fidelities are made comparable by what the others gained on the way. Whoever
    was trained least comes first, for every next fidelity takes a multiple of the time and gains
    less; among equals, whoever adds most to the hypervolume.
    """
    unfinished = [
        racer
        for racer in _expected_front(racers, fidelities)
        if racer.fidelity < fidelities and not racer.dropped and not is_beaten(racer, racers)
    ]
    return min(unfinished, key=lambda racer: racer.fidelity, default=None)


def worth_extending(racers: Sequence[Racer], fidelities: int) -> list[Racer]:
    """Returns those on the front, as far as can be seen, that were trained beyond the first time.

    Whoever adds most to the hypervolume comes first.
    """
    front = _expected_front(racers, fidelities)
    return [racer for racer in front if racer.fidelity >= min(2, fidelities)]


def _expected_front(racers: Sequence[Racer], fidelities: int) -> list[Racer]:
    """Returns the front as it will be at the end, whoever adds most to the hypervolume first."""
    gains = expected_gains(racers, fidelities)
    trained = [racer for racer in racers if racer.fidelity > 0]
    expected = [racer.nme(racer.fidelity) - gains[racer.fidelity] for racer in trained]
    front = Front.of(range(len(trained)), lambda k: (expected[k], trained[k].ms.value)).points
    return _ranked([trained[k] for k in front], [expected[k] for k in front])


def expected_gains(racers: Sequence[Racer], fidelities: int) -> tuple[float, ...]:
    """Returns by how many points training from a fidelity to the last one lowers the NME.

    The median over those that went each step; a step nobody went gains nothing.
    """
    gains = [0.0] * (fidelities + 1)
    for fidelity in range(fidelities - 1, -1, -1):
        steps = [r.nme(fidelity) - r.nme(fidelity + 1) for r in racers if r.fidelity > fidelity]
        gains[fidelity] = gains[fidelity + 1] + (float(np.median(steps)) if steps else 0.0)
    return tuple(gains)


def hopeless(candidate: Racer, racers: Sequence[Racer]) -> float | None:
    """Returns the NME to be expected after the first training if that is not worth having.

    That is when even a far lower one would leave it dominated. The guess is a ridge regression on
    what is known without training: MACs, parameters, latency and the NME of the inherited weights.

    Args:
        candidate: Not yet trained.
        racers: Those that were.
    """
    known = [racer for racer in racers if racer.fidelity > 0]
    if len(known) < LEARNED:
        return None
    guess, doubt = _guess(candidate, known)
    best = min(
        (racer.nme(1) for racer in known if racer.ms.high < candidate.ms.low), default=math.inf
    )
    return guess if best < guess - SURE * doubt else None


def _guess(candidate: Racer, known: Sequence[Racer]) -> tuple[float, float]:
    """Returns the NME after the first training and its standard error, left one out."""
    rows = np.array([_traits(racer) for racer in (*known, candidate)])
    rows = (rows - rows[:-1].mean(axis=0)) / np.maximum(rows[:-1].std(axis=0), 1e-6)
    rows = np.column_stack([np.ones(len(rows)), rows])
    wanted = np.log([racer.nme(1) for racer in known])
    fitted, weight = rows[:-1], np.diag([1e-6, *[0.5] * (rows.shape[1] - 1)])
    inverse = np.linalg.inv(fitted.T @ fitted + weight)
    found = inverse @ fitted.T @ wanted
    influence = np.einsum("ij,jk,ik->i", fitted, inverse, fitted)
    residuals = (wanted - fitted @ found) / (1 - influence)
    guess = float(np.exp(rows[-1] @ found))
    return guess, guess * float(np.sqrt((residuals**2).mean()))


def _traits(racer: Racer) -> list[float]:
    return [
        math.log(max(racer.macs, 1)),
        math.log(max(racer.parameters, 1)),
        math.log(racer.ms.value),
        math.log(max(racer.nme(0), 1e-9)),
    ]


def front_volume(racers: Sequence[Racer], baseline: NDArray[np.float64]) -> Interval:
    """Returns the hypervolume that the candidates cover, with its 95 % interval.

    Its axes are the NME in percent and the binary logarithm of the latency relative to the
    baseline's; its corner is at `SLACK`. The interval comes from drawing faces and latencies anew.

    Args:
        racers: Each counts as far as it was trained.
        baseline: NME in percent of each face of the baseline, which is on the front too.
    """
    trained = [racer for racer in racers if racer.fidelity > 0]
    errors = np.array([baseline, *(racer.errors[-1] for racer in trained)])
    logs = np.log2([[1.0, 1.0, 1.0], *(list(racer.ms) for racer in trained)])
    corner = (SLACK[0] * float(baseline.mean()), math.log2(SLACK[1]))

    def volume(nme: NDArray[np.float64], speed: NDArray[np.float64]) -> float:
        return hypervolume(zip(nme.tolist(), speed.tolist(), strict=True), corner)

    draws = np.random.default_rng(errors.shape[1])
    found = []
    for _ in range(RESAMPLES):
        faces = draws.integers(errors.shape[1], size=errors.shape[1])
        spread = (logs[:, 2] - logs[:, 1]) / 3.92
        speed = logs[:, 0] + spread * draws.standard_normal(len(logs))
        found.append(volume(errors[:, faces].mean(axis=1), speed))
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(volume(errors.mean(axis=1), logs[:, 0]), float(low), float(high))


def has_settled(before: Interval, now: Interval) -> bool:
    """Returns whether the hypervolume grew by less than `GROWTH` over `PATIENCE` results."""
    return now.value - before.value < GROWTH * now.value


def _ranked(racers: Sequence[Racer], nmes: Sequence[float]) -> list[Racer]:
    """Returns racers front by front, in each the ones that add most to the hypervolume first."""
    points = [(nme, math.log2(r.ms.value)) for r, nme in zip(racers, nmes, strict=True)]
    left, ordered = list(range(len(points))), list[Racer]()
    while left:
        front = Front.of(left, lambda k: points[k]).points
        corner = (max(points[k][0] for k in front) * SLACK[0], max(points[k][1] for k in front) + 1)
        whole = hypervolume([points[k] for k in front], corner)
        adds = {k: whole - hypervolume([points[j] for j in front if j != k], corner) for k in front}
        ordered += [racers[k] for k in sorted(front, key=lambda k: (-adds[k], racers[k].number))]
        left = [k for k in left if k not in adds]
    return ordered


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
