"""Fronts and hypervolumes."""

from hypothesis import given
from hypothesis import strategies as st

from lmopt.exploration.front import Front, hypervolume
from lmopt.exploration.result import verdict

POINTS = st.lists(
    st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), min_size=1, max_size=12
)


def front_of(points):
    return Front.of(points, lambda point: point)


def test_a_front_keeps_what_nothing_beats_fastest_first():
    front = front_of([(5.0, 1.0), (4.0, 2.0), (4.5, 2.5), (3.0, 9.0), (6.0, 1.0)])
    assert front.points == ((5.0, 1.0), (4.0, 2.0), (3.0, 9.0))
    assert dict(front.dominated) == {(4.5, 2.5): (4.0, 2.0), (6.0, 1.0): (5.0, 1.0)}


def test_of_equal_points_one_stays():
    front = front_of([(1.0, 1.0), (1.0, 1.0)])
    assert front.points == ((1.0, 1.0),)
    assert len(front.dominated) == 1


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(points, random):
    shuffled = list(points)
    random.shuffle(shuffled)
    assert front_of(points).points == front_of(shuffled).points


@given(POINTS)
def test_every_point_is_on_the_front_or_dominated_by_one_that_is(points):
    front = front_of(points)
    assert len(front.points) + len(front.dominated) == len(points)
    for point, by in front.dominated:
        assert by in front.points and by[0] <= point[0] and by[1] <= point[1]
    for a in front.points:
        assert not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in front.points)


def test_hypervolume_is_the_dominated_area():
    assert hypervolume([(1.0, 3.0), (2.0, 1.0)], (4.0, 4.0)) == 3 * 1 + 2 * 2
    assert hypervolume([(5.0, 0.0)], (4.0, 4.0)) == 0.0
    assert hypervolume([], (4.0, 4.0)) == 0.0


def test_hypervolume_of_three_objectives_is_a_volume():
    boxes = [(1.0, 3.0, 2.0), (2.0, 1.0, 3.0)]
    first, second, both = 3 * 1 * 2, 2 * 3 * 1, 2 * 1 * 1
    assert hypervolume(boxes, (4.0, 4.0, 4.0)) == first + second - both


@given(POINTS, st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)))
def test_a_further_point_never_shrinks_the_hypervolume(points, further):
    reference = (9.0, 9.0)
    assert hypervolume([*points, further], reference) >= hypervolume(points, reference)
    if any(p[0] <= further[0] and p[1] <= further[1] for p in points):
        assert hypervolume([*points, further], reference) == hypervolume(points, reference)


def test_verdicts_are_the_thesis_frame_budgets():
    assert verdict(15.0) == "real time (15 ms)"
    assert verdict(15.1) == "real time (30 ms)"
    assert verdict(30.1) == "not real time"
