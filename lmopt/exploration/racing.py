"""Which candidate a search trains on, which it drops, and when it has found what it will find.

All of it is a function of what is known of the candidates, so that a search that was killed goes on
as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmopt.exploration.expectation import (
    Curve,
    expected_courses,
    expected_descent,
    learning_of,
    lowest_nme,
)
from lmopt.exploration.front import Front, hypervolume
from lmopt.exploration.racer import Interval, Racer, is_beaten

KEPT = 3.0
"""One candidate in so many goes on to the next fidelity (Li et al. 2020, arXiv:1810.05934)."""
LEAST = 0.005
"""Part of its NME that a candidate must be expected to lose in its next training."""
DRAWN = 12
"""Candidates that tell what drawing one is worth: the last ones that were drawn."""
SLACK = (1.5, 1.2, 2.0)
"""The hypervolume's corner: so many times the baseline's NME, latency, and whatever else counts."""
GAIN = 1e-9
"""Hypervolume that is more than rounding."""
RESAMPLES = 200
PATIENCE = 24
"""Results after which a search that did not gain `GROWTH` has found its front."""
GROWTH = 0.01


def next_to_train(
    racers: Sequence[Racer],
    epochs: Sequence[float],
    limit: float = math.inf,
    least: float = 0.0,
) -> Racer | None:
    """Returns who goes on to its next fidelity; None when a new candidate is wanted.

    Of the trainings that have reached a fidelity one in `KEPT` goes on: whoever gains the front
    most for its work, never one that is beaten beyond noise.

    Args:
        racers: All candidates.
        epochs: Of the training at every fidelity.
        limit: NME in percent from which on nobody is wanted.
        least: What the front has to gain for the work, as `worth_extending` tells it.
    """
    worth = _worth(racers, epochs, limit, least)
    for fidelity in range(len(epochs) - 1, 0, -1):
        here = [racer for racer in racers if racer.fidelity >= fidelity]
        beyond = [racer for racer in here if racer.fidelity > fidelity]
        if _trainings(beyond) + 1 > _trainings(here) / KEPT:
            continue
        able = [racer for racer in here if racer.fidelity == fidelity and racer.number in worth]
        if able:
            return max(able, key=lambda racer: worth[racer.number])
    return None


def _trainings(racers: Sequence[Racer]) -> int:
    return len({_training(racer) for racer in racers})


def _training(racer: Racer) -> str | int:
    return racer.number if racer.training is None else racer.training


def next_to_finish(
    racers: Sequence[Racer],
    epochs: Sequence[float],
    limit: float = math.inf,
    least: float = 0.0,
) -> Racer | None:
    """Returns who gains the front most for its time when trained on; None when nobody does.

    Args:
        racers: All candidates.
        epochs: Of the training at every fidelity.
        limit: NME in percent from which on nobody is wanted.
        least: What the front has to gain for the work, as `worth_extending` tells it.
    """
    worth = _worth(racers, epochs, limit, least)
    able = [racer for racer in racers if racer.number in worth]
    return max(able, key=lambda racer: worth[racer.number], default=None)


def worth_extending(
    racers: Sequence[Racer], epochs: Sequence[float], limit: float = math.inf
) -> dict[tuple[int, int], float]:
    """Returns what the front gains for the work of a descendant, by parent, the most first.

    A parent is a candidate's number and its fidelity. Only those are here that are on the front, as
    it will be, and whose descendant is expected to push it out. After its first training that is
    expected to be to its parent what others were to theirs, in latency and in NME, and to learn
    like all others from there, up to where the gain is most for the work.

    Args:
        racers: All candidates.
        epochs: Of the training at every fidelity.
        limit: NME in percent from which on nobody is wanted.
    """
    courses = expected_courses(racers, len(epochs))
    trained = {racer.number: racer for racer in racers if racer.number in courses}
    if not trained:
        return {}
    learning = learning_of(trained.values(), len(epochs))
    plane, corner = _plane(trained.values(), courses, limit)
    steps = expected_descent(trained)
    whole = hypervolume(plane.values(), corner)
    worth = {}
    for number in Front.of(plane, lambda number: plane[number]).points:
        racer = trained[number]
        _, *others = plane[number]
        place = np.array(others) + steps[1:]
        course = learning.course(courses[number][0] * 2 ** steps[0], 1)
        grown = [hypervolume([*plane.values(), (nme, *place)], corner) for nme in course]
        work = np.cumsum(epochs) * _work_per_epoch(racer, trained.values())
        gains = np.array(grown) - whole
        if max(gains) > GAIN:
            worth[number, racer.fidelity] = float(max(gains / work))
    return dict(sorted(worth.items(), key=lambda item: (-item[1], item[0])))


def worth_drawing(
    racers: Sequence[Racer], epochs: Sequence[float], limit: float = math.inf
) -> float:
    """Returns what the front gained for the work of the last candidates that were drawn.

    That is the hypervolume of the front as it will be less what it would be without the last
    `DRAWN` of them and their descendants, divided by the work of training all those: infinite as
    long as fewer were drawn, and never nothing.

    Args:
        racers: All candidates.
        epochs: Of the training at every fidelity.
        limit: NME in percent from which on nobody is wanted.
    """
    roots = _roots(racers)
    last = set(sorted(set(roots.values()))[-DRAWN:])
    courses = expected_courses(racers, len(epochs))
    trained = [racer for racer in racers if racer.number in courses]
    if len(last) < DRAWN or not trained:
        return math.inf
    plane, corner = _plane(trained, courses, limit)
    others = [point for number, point in plane.items() if roots[number] not in last]
    gain = hypervolume(plane.values(), corner) - hypervolume(others, corner)
    work = {
        _training(racer): sum(epochs[: max(racer.fidelity, 1)]) * _work_per_epoch(racer, trained)
        for racer in racers
        if roots[racer.number] in last
    }
    return max(gain, GAIN) / sum(work.values())


def _roots(racers: Sequence[Racer]) -> dict[int, int]:
    """Returns who was drawn, by number: itself, or whom it is a twin or a descendant of."""
    roots: dict[int, int] = {}
    first: dict[str | int, int] = {}
    for racer in sorted(racers, key=lambda racer: racer.number):
        own = racer.number if racer.parent is None else roots.get(racer.parent[0], racer.number)
        roots[racer.number] = first.setdefault(_training(racer), own)
    return roots


def _end(racer: Racer, courses: Mapping[int, Curve]) -> tuple[float, ...]:
    """Returns a point for a hypervolume: NME at the end, and logarithms of the rest."""
    return courses[racer.number][-1], *map(math.log2, (racer.ms.value, *racer.more))


def _plane(
    trained: Collection[Racer], courses: Mapping[int, Curve], limit: float
) -> tuple[dict[int, tuple[float, ...]], tuple[float, ...]]:
    """Returns points for a hypervolume, by number, and its corner."""
    points = {racer.number: _end(racer, courses) for racer in trained}
    axes = len(next(iter(points.values())))
    return points, _corner(min(SLACK[0] * lowest_nme(trained), limit), axes)


def _corner(nme_percent: float, objectives: int) -> tuple[float, ...]:
    """Returns the hypervolume's corner, whose NME is given."""
    _, latency, more = SLACK
    return nme_percent, math.log2(latency), *[math.log2(more)] * (objectives - 2)


def _work_per_epoch(racer: Racer, trained: Iterable[Racer]) -> float:
    """Returns what an epoch costs: faces are varied and weights stepped however few MACs."""
    return racer.macs + max(other.macs for other in trained) / 4


def _worth(
    racers: Sequence[Racer], epochs: Sequence[float], limit: float, least: float
) -> dict[int, float]:
    """Returns what the front gains for the work of training candidates on, by number.

    That is the hypervolume of the front as it will be less what it would be without that training,
    divided by the training's work, up to the fidelity where this is most. Whoever cannot be trained
    on, learns next to nothing, or gains less than `least`, is left out.
    """
    courses = expected_courses(racers, len(epochs))
    trained = [racer for racer in racers if racer.number in courses]
    if not trained:
        return {}
    plane, corner = _plane(trained, courses, limit)
    found = {}
    for racer in trained:
        now, *later = courses[racer.number]
        if not later or now - later[0] < LEAST * now or is_beaten(racer, racers):
            continue
        others = [point for number, point in plane.items() if number != racer.number]
        _, *rest = plane[racer.number]
        without, *grown = (hypervolume([*others, (nme, *rest)], corner) for nme in (now, *later))
        work = np.cumsum(epochs[racer.fidelity :]) * _work_per_epoch(racer, trained)
        gains = np.array(grown) - without
        if max(gains) > GAIN and max(gains / work) >= least:
            found[racer.number] = float(max(gains / work))
    return found


def front_volume(racers: Sequence[Racer], baseline: NDArray[np.float64]) -> Interval:
    """Returns the hypervolume that the candidates cover, with its 95 % interval.

    Its axes are the NME in percent and the binary logarithms of the latency, and of what else
    counts, relative to the baseline's; its corner is at `SLACK`. The interval comes from drawing
    faces and latencies anew.

    Args:
        racers: Each counts as far as it was trained.
        baseline: NME in percent of each face of the baseline, which is on the front too.
    """
    trained = [racer for racer in racers if racer.fidelity > 0]
    errors = np.array([baseline, *(racer.errors[-1] for racer in trained)])
    logs = np.log2([[1.0, 1.0, 1.0], *(list(racer.ms) for racer in trained)])
    others = len(trained[0].more) if trained else 0
    more = np.log2([[1.0] * others, *(racer.more for racer in trained)])
    corner = _corner(SLACK[0] * float(baseline.mean()), 2 + others)

    def volume(nme: NDArray[np.float64], speed: NDArray[np.float64]) -> float:
        return hypervolume(np.column_stack([nme, speed, more]), corner)

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
