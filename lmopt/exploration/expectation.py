"""What NME may be expected of candidates, after trainings that they have not had."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmopt.exploration.racer import SURE, Racer, is_faster, standard_error

AHEAD = 0.3
"""Part of what is above the floor that a training takes away, as long as nobody had it."""
DOUBT = 0.1
"""What that counts for, as a part of the floor: as much as one who was so far above it."""
HOPE = 0.95
"""The floor, as a part of the lowest NME known: nobody is expected to come below."""
DESCENDANT = (1.05, 0.8)
"""How many times its parent's NME a descendant has after one training, and how many times its
latency, as long as nobody was seen."""
LEARNED = 10
"""Candidates from which on a candidate's NME is guessed before it is trained."""
Curve = tuple[float, ...]
"""NME in percent, now and as expected after every training to come."""


def expected_courses(racers: Sequence[Racer], fidelities: int) -> dict[int, Curve]:
    """Returns the NME in percent of trained candidates, now and as expected further on, by number.

    One that is dropped stays where it is. One that was trained twice or more loses no more in a
    step than it lost the last time, within a standard error, for learning curves flatten.
    """
    trained = [racer for racer in racers if racer.fidelity > 0]
    if not trained:
        return {}
    learning = learning_of(trained, fidelities)
    courses = {}
    for racer in trained:
        last, gain = racer.fidelity, math.inf
        if last > 1:
            fell = racer.errors[last - 1] - racer.errors[last]
            gain = max(float(fell.mean()), 0.0) + standard_error(fell)
        now = racer.nme(last)
        courses[racer.number] = (now,) if racer.dropped else learning.course(now, last, gain)
    return courses


class Learning(NamedTuple):
    """What a training takes away: a part of what is above a floor, by the fidelity before it."""

    floor: float
    parts: tuple[float, ...]

    def course(self, nme: float, fidelity: int, most: float = math.inf) -> Curve:
        """Returns the NME from a fidelity on, where no step takes away more than `most`."""
        course = [nme]
        for part in self.parts[fidelity:]:
            most = min(most, part * (course[-1] - self.floor))
            course.append(course[-1] - most)
        return tuple(course)


def learning_of(trained: Iterable[Racer], fidelities: int) -> Learning:
    """Returns what others lost of what they were above the floor, step by step."""
    known = tuple(trained)
    floor = HOPE * lowest_nme(known)
    parts = [0.0] * fidelities
    for step in range(1, fidelities):
        went = [racer for racer in known if racer.fidelity > step]
        lost = DOUBT * AHEAD * floor + sum(r.nme(step) - r.nme(step + 1) for r in went)
        above = DOUBT * floor + sum(r.nme(step) - floor for r in went)
        parts[step] = min(max(lost / above, 0.0), 1.0) if above > 0 else 0.0
    return Learning(floor, tuple(parts))


def lowest_nme(trained: Iterable[Racer]) -> float:
    """Returns the lowest NME in percent that anyone had at any time."""
    return min(racer.nme(step) for racer in trained for step in range(racer.fidelity + 1))


def expected_descent(trained: Mapping[int, Racer]) -> NDArray[np.float64]:
    """Returns what a descendant has over its parent, as far as seen, as binary logarithms.

    That is the NME after its first training over the one that it began with, the latency, and
    whatever else counts.
    """
    some = next(iter(trained.values()))
    seen = [np.log2([*DESCENDANT, *[1.0] * len(some.more)])]
    for racer in trained.values():
        if racer.parent is not None and racer.parent[0] in trained:
            parent, fidelity = trained[racer.parent[0]], racer.parent[1]
            nme = racer.nme(1) / parent.nme(fidelity)
            rest = np.array([racer.ms.value, *racer.more]) / [parent.ms.value, *parent.more]
            seen.append(np.log2([nme, *rest]))
    return np.asarray(np.mean(seen, axis=0), np.float64)


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
    best = min((racer.nme(1) for racer in known if is_faster(racer, candidate)), default=math.inf)
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
