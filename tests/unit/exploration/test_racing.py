"""Racing: who is trained on, who is dropped beyond noise, what a front is worth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lmopt.exploration import racing
from lmopt.exploration.racer import Interval, Racer
from tests.support.racers import faces, racer

EPOCHS = (1.0, 3.0, 12.0)
ONCE = (1.0,)


def test_descendants_may_gain_in_another_objective_alone() -> None:
    parent = racer(0, 0.5, 9, 5.0, more=(0.8,))
    child = replace(racer(1, 0.5, 9, 5.0, more=(0.4,)), parent=(0, 1))
    slower = replace(racer(1, 0.8, 9, 5.0, more=(0.8,)), parent=(0, 1))
    # The front is what the child is; one is seen of what is between it and `DESCENDANT`.
    assert [number for number, _ in racing.worth_extending((parent, child), ONCE)] == [1]
    assert [number for number, _ in racing.worth_extending((parent, *[slower] * 9), ONCE)] == []


def test_one_in_three_goes_on_whoever_gains_most_first() -> None:
    few = (racer(0, 0.5, 9, 6.0), racer(1, 0.7, 9, 5.0))
    assert racing.next_to_train(few, EPOCHS) is None
    three = (*few, racer(2, 0.9, 9, 8.0))
    # floor 4.75, so 0 ends at 5.36 and 1 at 4.87: 0 gains 0.64 x log2(.7 / .5) = 0.31,
    # 1 gains 0.13 x log2(1.2 / .7) = 0.10
    first = racing.next_to_train(three, EPOCHS)
    assert first is not None and first.number == 0
    gone_on = tuple(
        Racer(r.number, r.ms, (*r.errors, faces(4.5)), r.macs, r.parameters)
        if r.number == first.number
        else r
        for r in three
    )
    assert racing.next_to_train(gone_on, EPOCHS) is None


def test_what_is_trained_once_counts_once() -> None:
    twins = [racer(k, 0.5 + 0.1 * k, 9, 6 - k, training="same") for k in range(2)]
    assert racing.next_to_train((*twins, racer(2, 0.9, 9, 8.0)), EPOCHS) is None
    three = (*twins, racer(2, 0.9, 9, 8.0), racer(3, 0.95, 9, 8.0))
    assert racing.next_to_train(three, EPOCHS) is not None


def test_whoever_was_dropped_or_beaten_does_not_go_on() -> None:
    racers = (
        racer(0, 0.5, 9, 5.0, dropped=True),
        racer(1, 0.7, 9, 5.5),
        racer(2, 0.9, 9, 5.9),
    )
    assert racing.next_to_train(racers, EPOCHS) is None


def test_whoever_learns_no_more_is_not_trained_on() -> None:
    flat, steep = racer(0, 1.0, 4.4, 4.4, 4.4), racer(1, 0.25, 9, 6, 5)
    chosen = racing.next_to_finish((flat, steep), EPOCHS)
    assert chosen is not None and chosen.number == 1
    assert racing.next_to_finish((flat,), EPOCHS) is None
    assert racing.next_to_finish((racer(0, 1.0, 0.0, 0.0),), EPOCHS) is None  # nothing left
    assert racing.next_to_train((flat, flat, flat, flat), EPOCHS) is None


def test_beyond_the_limit_nothing_is_gained() -> None:
    racers = (racer(0, 0.1, 9, 7.0), racer(1, 0.5, 9, 6.0), racer(2, 0.9, 5.0, 5.0))
    for limit, wanted in ((math.inf, 0), (5.7, 1), (5.4, 2)):
        chosen = racing.next_to_finish(racers, (1.0, 3.0), limit)
        assert (chosen and chosen.number) == wanted, limit


def test_of_equal_gains_the_one_with_less_work_comes_first() -> None:
    ms = Interval(0.5, 0.49, 0.51)
    light, heavy = (Racer(1, ms, (faces(9), faces(6)), macs, 1) for macs in (10**7, 10**8))
    other = Racer(0, Interval(1.0, 0.99, 1.01), (faces(9), faces(5), faces(5)), 10**8, 1)
    worth = [racing._worth((other, each), EPOCHS, math.inf, 0.0)[1] for each in (light, heavy)]
    assert worth[0] == pytest.approx(worth[1] * 125 / 35)  # a quarter of the largest is for faces


def test_the_front_is_trained_to_its_end_by_what_it_will_be() -> None:
    # 1 is behind 0 now, yet in front once trained as long
    racers = (racer(0, 0.5, 9, 7.0, 5.0), racer(1, 0.5, 9, 5.8))
    chosen = racing.next_to_finish(racers, (1.0, 3.0))
    assert chosen is not None and chosen.number == 1
    assert racing.next_to_finish(racers[:1], (1.0, 3.0)) is None
    assert racing.next_to_finish((), (1.0, 3.0)) is None


def test_whose_descendants_push_the_front_out_is_worth_extending() -> None:
    # 2 is behind 0; what comes of 1 is past the corner, one and a half times the lowest
    racers = (racer(0, 0.5, 9, 5.0), racer(1, 0.25, 9, 7.49), racer(2, 0.6, 9, 5.5))
    assert [number for number, _ in racing.worth_extending(racers, ONCE)] == [0]
    assert [number for number, _ in racing.worth_extending(racers[1:], ONCE)] == [2, 1]
    assert [number for number, _ in racing.worth_extending(racers[1:], ONCE, 6.0)] == [2]
    assert racing.worth_extending((), ONCE) == {}


def test_a_descendant_is_worth_what_it_gains_for_its_trainings() -> None:
    parent = racer(0, 0.5, 9, 6.0, 5.0)
    # It takes 0.8 of the time, is 1.05 times as bad at first and learns as its parent did.
    ahead, work, floor, prior = math.log2(1 / 0.8), parent.macs * 1.25, 0.95 * 5, 0.1 * 0.95 * 5
    first = 1.05 * 5
    second = first - (1 + 0.3 * prior) / (6 - floor + prior) * (first - floor)
    found = racing.worth_extending((parent,), (1.0, 3.0))
    assert found == {(0, 2): pytest.approx((7.5 - first) * ahead / work)}
    # After its first training it is not wanted yet, after the second it beats its parent.
    gain = (5.1 - second) * math.log2(1.2 / 0.4) - (5.1 - 5.0) * math.log2(1.2 / 0.5)
    found = racing.worth_extending((parent,), (1.0, 3.0), 5.1)
    assert found == {(0, 2): pytest.approx(gain / (4 * work))}


def test_descendants_of_the_better_trained_are_expected_to_be_better() -> None:
    parent = racer(0, 0.5, 9, 6.0, 5.0)
    # One of 0 as it was after its first training, not what is expected of one of it now.
    child = replace(racer(1, 0.4, 9, 6.3), parent=(0, 1))
    found = racing.worth_extending((parent, child), EPOCHS[:2], 5.4)
    assert next(iter(found)) == (0, 2)


def test_nobody_goes_on_who_gains_less_than_something_else() -> None:
    racers = (racer(0, 0.5, 9, 6.0), racer(1, 0.7, 9, 5.0), racer(2, 0.9, 9, 8.0))
    worth = racing._worth(racers, EPOCHS, math.inf, 0.0)
    most = max(worth.values())
    for choose in (racing.next_to_train, racing.next_to_finish):
        chosen = choose(racers, EPOCHS, least=0.99 * most)
        assert chosen is not None and worth[chosen.number] == most
        assert choose(racers, EPOCHS, least=1.01 * most) is None


def test_descendants_that_gain_more_for_their_work_come_first() -> None:
    heavy, light = racer(0, 0.8, 9, 5.0), racer(1, 0.2, 9, 6.4)
    equal = replace(light, macs=heavy.macs)
    assert [number for number, _ in racing.worth_extending((heavy, equal), ONCE)] == [0, 1]
    assert [number for number, _ in racing.worth_extending((heavy, light), ONCE)] == [1, 0]


def test_a_descendant_is_expected_to_be_what_others_were_to_their_parents() -> None:
    racers = (racer(0, 0.8, 9, 5.0), racer(1, 0.2, 9, 5.5))
    assert len(racing.worth_extending(racers, ONCE)) == 2
    # Those of 0 came to lose so much that nothing is expected of another one.
    losers = [replace(racer(2 + k, 0.5, 9, 7.4), parent=(0, 1)) for k in range(5)]
    assert racing.worth_extending((*racers, *losers), ONCE) == {}


def test_the_hypervolume_has_the_baseline_and_the_corner_of_the_task() -> None:
    baseline = faces(4.0)
    alone = racing.front_volume((), baseline)
    assert alone.value == pytest.approx((6.0 - 4.0) * math.log2(1.2))
    with_one = racing.front_volume((racer(0, 0.25, 9, 5.0),), baseline)
    assert with_one.value == pytest.approx(alone.value + (6.0 - 5.0) * 2.0)
    assert with_one.low <= with_one.value <= with_one.high
    untrained = racing.front_volume((racer(0, 0.25, 3.0),), baseline)
    assert untrained.value == pytest.approx(alone.value)


def test_the_hypervolume_has_an_axis_for_every_objective() -> None:
    alone = (6.0 - 4.0) * math.log2(1.2) * 1.0
    own, common = (6.0 - 5.0) * (math.log2(1.2) + 2.0) * 2.0, (6.0 - 5.0) * math.log2(1.2) * 1.0
    volume = racing.front_volume((racer(0, 0.25, 9, 5.0, more=(0.5,)),), faces(4.0))
    assert volume.value == pytest.approx(alone + own - common)


def test_a_search_settles_when_the_volume_hardly_grows() -> None:
    before = Interval(5.0, 4.8, 5.2)
    assert racing.has_settled(before, Interval(5.04, 4.8, 5.2))
    assert not racing.has_settled(before, Interval(5.06, 4.8, 5.2))


def test_drawing_is_worth_what_the_last_drawn_and_their_descendants_gained() -> None:
    slow = [racer(number, 0.9, 9, 5.0) for number in range(racing.DRAWN)]
    assert racing.worth_drawing(slow[1:], ONCE) == math.inf  # too few to tell
    twins = [replace(r, number=r.number + 50, training="one") for r in slow]
    assert racing.worth_drawing(twins, ONCE) == math.inf  # drawn once
    assert racing.worth_drawing([racer(20, 0.1, 9, 5.0), *slow[1:]], ONCE) > 1e-8
    fruitless = [racer(-1, 0.5, 9, 4.5), *slow]
    least = racing.GAIN / (12 * 0.9e6 + 12 * 0.9e6 / 4)
    assert racing.worth_drawing(fruitless, ONCE) == pytest.approx(least)
    child = replace(racer(30, 0.25, 9, 5.0), parent=(slow[3].number, 1))
    # 5 of 6.75 %, twice as fast: (6.75 - 5) x log2(.5 / .25), for 13 trainings of one epoch
    work = 1e6 * (12 * 0.9 + 0.25 + 13 * 0.9 / 4)
    assert racing.worth_drawing([*fruitless, child], ONCE) == pytest.approx(1.75 / work)
    mine = replace(child, parent=(-1, 1))
    assert racing.worth_drawing([*fruitless, mine], ONCE) == pytest.approx(least)


def test_what_was_drawn_long_ago_is_not_what_drawing_is_worth_now() -> None:
    good = racer(0, 0.25, 9, 5.0)
    later = [racer(1 + k, 0.9, 9, 5.0) for k in range(racing.DRAWN)]
    assert racing.worth_drawing([good, *later[:-1]], ONCE) > 1e-8
    assert racing.worth_drawing([good, *later], ONCE) < 1e-12
