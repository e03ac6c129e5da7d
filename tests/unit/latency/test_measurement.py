import json
from dataclasses import replace

import numpy as np
import pytest

from lmopt.errors import InputError
from lmopt.latency.measurement import Measurement, ratio


def measurement(samples, per_round=1, session="s", other_load=0.0) -> Measurement:
    return Measurement(
        target="host",
        digest="d" * 32,
        samples_ms=tuple(samples),
        per_round=per_round,
        warmup=3,
        threads=1,
        tool="LiteRT",
        where="a machine",
        session=session,
        other_load=other_load,
    )


def test_median_and_percentile_are_those_of_all_samples() -> None:
    found = measurement(range(1, 12))
    assert found.p50 == 6
    assert found.p90 == 10
    assert found.rounds == 11


def test_the_interval_holds_the_median_and_narrows_with_more_rounds() -> None:
    rng = np.random.default_rng(1)
    few, many = (measurement(rng.normal(10, 1, count)) for count in (20, 2000))
    for found in (few, many):
        low, high = found.interval
        assert low <= found.p50 <= high
    assert many.spread < few.spread / 3


def test_samples_that_share_a_round_do_not_make_the_interval_narrower() -> None:
    rounds = np.random.default_rng(2).normal(10, 1, 20)
    single = measurement(rounds)
    repeated = measurement(np.repeat(rounds, 50), per_round=50)
    assert repeated.spread == pytest.approx(single.spread, rel=0.25)


def test_samples_must_be_whole_rounds() -> None:
    with pytest.raises(InputError, match="5 latency samples are no whole rounds of 2"):
        measurement([1.0] * 5, per_round=2)
    with pytest.raises(InputError, match="0 latency samples"):
        measurement([])


def test_a_ratio_cancels_what_disturbs_both() -> None:
    disturbance = np.random.default_rng(3).uniform(1, 3, 30)
    found = ratio(measurement(2 * disturbance), measurement(disturbance))
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == (pytest.approx(1.99, abs=1e-3), pytest.approx(2.01, abs=1e-3))


def test_a_ratio_s_interval_shows_real_noise() -> None:
    rng = np.random.default_rng(4)
    found = ratio(measurement(rng.normal(10, 1, 40)), measurement(rng.normal(10, 1, 40)))
    assert found.low < 1 < found.high
    assert found.low <= found.value <= found.high


def test_a_ratio_s_interval_holds_the_truth_on_a_machine_of_two_states() -> None:
    """Both files run in the same state, which lasts for about five rounds and costs 10 %."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        state = np.cumsum(rng.random(20) < 0.2) % 2
        noise = rng.normal(0, 0.005, (2, 20)) + 0.1 * state
        found = ratio(*(measurement(np.exp(row)) for row in noise))
        held.append(found.low <= 1 <= found.high)
        assert found.high - found.low < 0.02
    assert np.mean(held) >= 0.93


def test_a_ratio_wants_one_interleaved_run() -> None:
    with pytest.raises(InputError, match="not measured interleaved"):
        ratio(measurement([1.0, 2.0]), measurement([1.0, 2.0], session="another"))
    with pytest.raises(InputError, match="not measured interleaved"):
        ratio(measurement([1.0, 2.0]), measurement([1.0]))


def test_json_says_measured_and_how() -> None:
    found = json.loads(json.dumps(measurement([1.0, 2.0, 3.0], other_load=1.5).to_json()))
    assert found["kind"] == "measured"
    assert (found["p50_ms"], found["runs"], found["threads"]) == (2.0, 3, 1)
    assert found["busy"] is True
    assert replace(measurement([1.0]), other_load=0.1).busy is False
