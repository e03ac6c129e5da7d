"""What is expected of candidates after trainings that they have not had."""

from __future__ import annotations

import pytest

from lmopt.exploration.expectation import expected_courses, hopeless
from lmopt.exploration.racer import Interval, Racer
from tests.support.racers import faces, racer


def test_courses_follow_from_what_others_lost_and_from_the_own_last_step() -> None:
    racers = (
        racer(0, 0.5, 9, 6, 5, 4.5),
        racer(1, 0.6, 9, 7, 5.5),
        racer(2, 0.7, 12, 8),
        racer(3, 0.8, 9, 5.1, 5.0, dropped=True),
    )
    floor = 0.95 * 4.5
    prior = 0.1 * floor
    first = (1 + 1.5 + 0.1 + 0.3 * prior) / (6 + 7 + 5.1 - 3 * floor + prior)
    second = (0.5 + 0.3 * prior) / (5 - floor + prior)
    courses = expected_courses(racers, 3)
    assert [len(courses[k]) for k in range(4)] == [1, 2, 3, 1]
    ends = {number: course[-1] for number, course in courses.items()}
    assert ends == pytest.approx(
        {
            0: 4.5,
            1: floor + (5.5 - floor) * (1 - second),
            2: floor + (8 - floor) * (1 - first) * (1 - second),
            3: 5.0,
        }
    )
    slow = racer(4, 0.9, 9, 6.0, 5.9)  # no more than it lost the last time
    assert expected_courses((*racers, slow), 3)[4] == pytest.approx((5.9, 5.8))


def test_nothing_is_guessed_from_few_and_only_the_hopeless_is_told() -> None:
    known = [racer(k, 0.3 + 0.05 * k, 12 - k * 0.3, 7 - 0.2 * k) for k in range(10)]
    big_and_bad = Racer(
        99, Interval(0.9, 0.89, 0.91), (faces(30.0),), known[0].macs // 4, known[0].parameters // 4
    )
    assert hopeless(big_and_bad, known[:9]) is None
    guess = hopeless(big_and_bad, known)
    assert guess is not None and guess > 5.2
    faster = Racer(
        99, Interval(0.2, 0.19, 0.21), big_and_bad.errors, big_and_bad.macs, big_and_bad.parameters
    )
    assert hopeless(faster, known) is None  # nobody is as fast
