"""Who beats whom: beyond noise only, and only in everything that counts."""

from __future__ import annotations

from dataclasses import replace

from lmopt.exploration.racer import Racer, beats, is_beaten
from tests.support.racers import faces, racer


def test_dominance_wants_both_intervals_apart() -> None:
    fast, slow = racer(0, 0.5, 9, 5.0), racer(1, 0.8, 9, 5.4)
    assert beats(fast, slow, 1)
    assert not beats(slow, fast, 1)
    near = racer(2, 0.505, 9, 5.4)
    assert not beats(fast, near, 1)  # latencies within noise
    noisy = Racer(3, slow.ms, (faces(9), fast.errors[1] + faces(0.1, 1.0)), 1, 1)
    assert not beats(fast, noisy, 1)  # 0.1 points, standard error 0.16
    sure = Racer(3, slow.ms, (faces(9), fast.errors[1] + faces(0.1, 0.2)), 1, 1)
    assert beats(fast, sure, 1)  # 0.1 points, standard error 0.03


def test_another_objective_keeps_who_is_slower_and_worse() -> None:
    slow, fast = racer(0, 0.8, 9, 6.0, more=(0.9,)), racer(1, 0.4, 9, 5.0, more=(1.1,))
    assert not beats(fast, slow, 1)
    assert beats(replace(fast, more=(0.9,)), slow, 1)


def test_nobody_is_beaten_by_one_that_was_trained_less_or_before_training() -> None:
    short, full = racer(0, 0.5, 9, 5.0), racer(1, 0.8, 9, 6.0, 5.2)
    assert not is_beaten(full, (short, full))
    assert not is_beaten(racer(2, 0.9), (short, full))
    assert is_beaten(racer(3, 0.9, 9, 6.5), (short, full))
