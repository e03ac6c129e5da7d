"""Which candidate a search trains on, which it drops, and when it has found what it will find.

All of it is a function of what is known of the candidates, so that a search that was killed goes on
as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmopt.exploration.front import Front, hypervolume

KEPT = 3.0
"""One candidate in so many goes on to the next fidelity (Li et al. 2020, arXiv:1810.05934)."""
SURE = 2.0
"""Standard errors from which on a difference counts."""
AHEAD = 0.3
"""Part of what is above the floor that a training takes away, as long as nobody had it."""
DOUBT = 0.1
"""What that counts for, as a part of the floor: as much as one who was so far above it."""
HOPE = 0.95
"""The floor, as a part of the lowest NME known: nobody is expected to come below."""
LEAST = 0.005
"""Part of its NME that a candidate must be expected to lose in its next training."""
DESCENDANT = (1.05, 0.8)
"""How many times its parent's NME a descendant has after one training, and how many times its
latency, as long as nobody was seen."""
DRAWN = 12
"""Candidates that tell what drawing one is worth: the last ones that were drawn."""
LEARNED = 10
"""Candidates from which on a candidate's NME is guessed before it is trained."""
SLACK = (1.5, 1.2, 2.0)
"""The hypervolume's corner: so many times the baseline's NME, latency, and whatever else counts."""
GAIN = 1e-9
"""Hypervolume that is more than rounding."""
RESAMPLES = 200
PATIENCE = 24
"""Results after which a search that did not gain `GROWTH` has found its front."""
GROWTH = 0.01


Curve = tuple[float, ...]
"""NME in percent, now and as expected after every training to come."""


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
        training: Those with the same are trained once for all of them; its own by default.
        parent: Number and fidelity of the one whose weights it began with, if any.
        more: What else is to be small, after its last training, relative to the baseline's.
    """

    number: int
    ms: Interval
    errors: tuple[NDArray[np.float64], ...]
    macs: int
    parameters: int
    dropped: bool = False
    training: str | None = None
    parent: tuple[int, int] | None = None
    more: tuple[float, ...] = ()

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
    if not _is_faster(left, right):
        return False
    worse = right.errors[fidelity] - left.errors[fidelity]
    return float(worse.mean()) > SURE * _standard_error(worse)


def _is_faster(left: Racer, right: Racer) -> bool:
    """Returns whether `left` is faster, and nothing else about it is larger but for its NME."""
    pairs = zip(left.more, right.more, strict=True)
    return left.ms.high < right.ms.low and all(own <= other for own, other in pairs)


def is_beaten(racer: Racer, racers: Sequence[Racer]) -> bool:
    """Returns whether anyone that was trained as long beats it, at the longest fidelity it has."""
    last = racer.fidelity
    return last > 0 and any(beats(other, racer, last) for other in racers if other.fidelity >= last)


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
    learning = _learning(trained.values(), len(epochs))
    plane, corner = _plane(trained.values(), courses, limit)
    steps = _descent(trained)
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


def _descent(trained: Mapping[int, Racer]) -> NDArray[np.float64]:
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


def _end(racer: Racer, courses: Mapping[int, Curve]) -> tuple[float, ...]:
    """Returns a point for a hypervolume: NME at the end, and logarithms of the rest."""
    return courses[racer.number][-1], *map(math.log2, (racer.ms.value, *racer.more))


def _plane(
    trained: Collection[Racer], courses: Mapping[int, Curve], limit: float
) -> tuple[dict[int, tuple[float, ...]], tuple[float, ...]]:
    """Returns points for a hypervolume, by number, and its corner."""
    points = {racer.number: _end(racer, courses) for racer in trained}
    axes = len(next(iter(points.values())))
    return points, _corner(min(SLACK[0] * _lowest(trained), limit), axes)


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


def expected_courses(racers: Sequence[Racer], fidelities: int) -> dict[int, Curve]:
    """Returns the NME in percent of trained candidates, now and as expected further on, by number.

    One that is dropped stays where it is. One that was trained twice or more loses no more in a
    step than it lost the last time, within a standard error, for learning curves flatten.
    """
    trained = [racer for racer in racers if racer.fidelity > 0]
    if not trained:
        return {}
    learning = _learning(trained, fidelities)
    courses = {}
    for racer in trained:
        last, gain = racer.fidelity, math.inf
        if last > 1:
            fell = racer.errors[last - 1] - racer.errors[last]
            gain = max(float(fell.mean()), 0.0) + _standard_error(fell)
        now = racer.nme(last)
        courses[racer.number] = (now,) if racer.dropped else learning.course(now, last, gain)
    return courses


class _Learning(NamedTuple):
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


def _learning(trained: Iterable[Racer], fidelities: int) -> _Learning:
    """Returns what others lost of what they were above the floor, step by step."""
    known = tuple(trained)
    floor = HOPE * _lowest(known)
    parts = [0.0] * fidelities
    for step in range(1, fidelities):
        went = [racer for racer in known if racer.fidelity > step]
        lost = DOUBT * AHEAD * floor + sum(r.nme(step) - r.nme(step + 1) for r in went)
        above = DOUBT * floor + sum(r.nme(step) - floor for r in went)
        parts[step] = min(max(lost / above, 0.0), 1.0) if above > 0 else 0.0
    return _Learning(floor, tuple(parts))


def _lowest(trained: Iterable[Racer]) -> float:
    return min(racer.nme(step) for racer in trained for step in range(racer.fidelity + 1))


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
    best = min((racer.nme(1) for racer in known if _is_faster(racer, candidate)), default=math.inf)
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


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
