"""Fits find the constants that made the times, and leave networks out."""

import math

import numpy as np
import pytest

from lmopt.cost.fit import Fit, Sample, _design, _minimize, fit, leave_one_out
from lmopt.cost.prices import TERMS
from lmopt.errors import BackendError

EXPECTED = {
    "rate": 20.0,
    "square": 1.0,
    "window": 0.7,
    "depthwise": 0.3,
    "dense": 0.5,
    "activations": 10.0,
    "weights": 10.0,
    "launch": 3.0,
    "thread": 1.0,
    "call": 50.0,
}
TRUTH = {
    **EXPECTED,
    "rate": 28.0,
    "square": 1.3,
    "depthwise": 0.2,
    "activations": 16.0,
    "launch": 5.0,
    "speedup_4": 3.1,
    "thread": 2.0,
}


def samples(count: int, threads: tuple[int, ...] = (1, 4)) -> list[list[Sample]]:
    rng = np.random.default_rng(5)
    groups = []
    for _ in range(count):
        work = rng.lognormal(math.log(300), 1.5, len(TERMS))
        work[-3:-1] *= 30
        work[-1] = rng.integers(10, 200)
        group = [Sample(tuple(work), n, 1.0) for n in threads]
        groups.append([Sample(s.amounts, s.threads, Fit(TRUTH).ms(s)) for s in group])
    return groups


def test_one_time_by_hand() -> None:
    work = (50.0, 0.0, 0.0, 6.0, 0.0, 320.0, 40.0, 10.0)
    us = 50e3 / 28 / 3.1 + 6e3 / (28 * 0.2) / 3.1 + 320 / 16 + 40 / 10 / 3.1 + 10 * (5 + 3 * 2) + 50
    assert Fit(TRUTH).ms(Sample(work, 4, 1.0)) == pytest.approx(us / 1e3)


def test_constants_come_back_from_times_they_made() -> None:
    found = fit([s for group in samples(60) for s in group], EXPECTED)
    for name in ("rate", "square", "depthwise", "activations", "speedup_4"):
        assert found.constants[name] == pytest.approx(TRUTH[name], rel=0.1), name


def test_left_out_networks_are_predicted() -> None:
    ratios = leave_one_out(samples(20), EXPECTED)
    assert len(ratios) == 20 and all(len(pair) == 2 for pair in ratios)
    assert np.median(np.abs(np.array(ratios) - 1)) < 0.03


def test_the_slope_is_that_of_the_times() -> None:
    flat = [s for group in samples(6) for s in group]
    names = tuple(TRUTH)
    features, powers = _design(flat, names)
    logs = np.log([TRUTH[name] for name in names])
    parts = features * np.exp(powers @ logs)
    slope = parts / parts.sum(axis=1)[:, None] @ powers
    for k in range(len(names)):
        step = np.zeros(len(names))
        step[k] = 1e-6
        moved = np.log(features @ np.exp(powers @ (logs + step)))
        assert (moved - np.log(parts.sum(axis=1))) / 1e-6 == pytest.approx(slope[:, k], abs=1e-4)
    exact = np.log([s.ms * 1e3 for s in flat])
    assert _minimize(features, powers, exact, logs, np.ones(len(names))) == pytest.approx(logs)


def test_nothing_to_fit_is_an_error() -> None:
    with pytest.raises(BackendError, match="nothing to fit"):
        fit([], EXPECTED)
