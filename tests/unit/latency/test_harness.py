from dataclasses import replace

import numpy as np
import pytest

from lmopt.errors import BackendError, InputError
from lmopt.latency import harness, host
from lmopt.latency.harness import best, compare, sustain
from lmopt.runtime.runner import file_digest
from tests.support.tiny_tflite import crashing_model, dense_model


def model(units: int) -> bytes:
    return dense_model(np.ones((units, 4), np.float32), np.zeros(units, np.float32))


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(host, "lock_path", lambda: tmp_path / "lock")


def test_every_model_is_measured_at_every_thread_count_in_paired_rounds() -> None:
    models = {"small": model(2), "large": model(3)}
    found = compare(models, min_runs=20, max_seconds=0.5, warmup=1)
    assert set(found) == {("small", 1), ("large", 1)}
    for (label, threads), measurement in found.items():
        assert measurement.digest == file_digest(models[label])
        assert measurement.threads == threads
        assert measurement.target == "host"
        assert measurement.rounds >= harness.MIN_ROUNDS
        assert measurement.where == str(host.describe())
    small, large = found.values()
    assert small.session == large.session
    assert small.rounds == large.rounds


def test_loading_and_the_first_inference_are_told() -> None:
    large = dense_model(np.ones((4096, 2048), np.float32), np.zeros(4096, np.float32))
    found = compare({"small": model(2), "large": large}, min_runs=1, max_seconds=0.0)
    small, big = found["small", 1].start, found["large", 1].start
    assert small is not None and big is not None
    assert small.load_ms > 0 and big.first_ms > small.first_ms > 0
    assert big.memory_mb is not None and small.memory_mb is not None
    assert big.memory_mb - small.memory_mb > 30  # 32 MiB of weights
    assert found["large", 1].to_json()["start"]["load_ms"] == big.load_ms


def test_a_model_runs_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "STRETCH_MS", 5.0)
    heard: list[tuple[float, float]] = []
    found = sustain(model(64), seconds=0.2, on_stretch=lambda now, ms: heard.append((now, ms)))
    assert list(zip(found.seconds, found.stretches_ms, strict=True)) == heard
    assert found.seconds[-2] < 0.2 <= found.seconds[-1]
    assert found.start_ms == heard[0][1]
    late = [ms for _, ms in heard[-max(1, len(heard) // 4) :]]
    assert found.sustained_ms == np.median(late)
    assert found.slowdown == found.sustained_ms / found.start_ms
    with pytest.raises(InputError, match="0 s to sustain"):
        sustain(model(2), seconds=0)


def test_the_time_limit_wins_over_the_wished_number_of_runs() -> None:
    found = compare({"a": model(2)}, min_runs=10**9, max_seconds=0.0, warmup=0)
    assert found["a", 1].rounds == harness.MIN_ROUNDS


def test_best_is_the_thread_count_with_the_lowest_median() -> None:
    found = compare({"a": model(2)}, min_runs=1, max_seconds=0.0)["a", 1]
    doubled = tuple(2 * sample for sample in found.samples_ms)
    slower = replace(found, threads=2, samples_ms=doubled)
    assert best({("a", 2): slower, ("a", 1): found}, "a").threads == 1
    with pytest.raises(InputError, match="no measurement of 'b'"):
        best({("a", 1): found}, "b")


def test_wrong_requests_are_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="nothing to measure"):
        compare({})
    with pytest.raises(InputError, match=r"cannot measure with 100000 threads; this machine"):
        compare({"a": model(2)}, threads=(1, 100000))


def test_a_crashing_model_is_an_error_and_the_machine_is_free_again() -> None:
    with pytest.raises(BackendError, match="SIGSEGV"):
        compare({"good": model(2), "bad": crashing_model()})
    assert compare({"good": model(2)}, min_runs=1, max_seconds=0.0)
