"""Measuring on a phone: what is found, what is doubted, and what happens when it goes wrong."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from lmopt.device.adb import DeviceLostError
from lmopt.device.phone import describe
from lmopt.device.rig import ROOT, Rig
from lmopt.device.tool import Setting
from lmopt.errors import BackendError, InputError
from lmopt.latency.measurement import ratio
from lmopt.latency.phone import KEPT_ROUNDS, Cooling, PhoneBench, Visit
from lmopt.runtime.runner import Runner, file_digest
from tests.support import benchmark_model, phones
from tests.support.android_device import Device
from tests.support.phones import PLAIN, connected, requires_adb, tool_saying
from tests.support.tiny_tflite import dense_model

pytestmark = requires_adb
SMALL, LARGE = bytes(1000), bytes(3000)
QUICK = Visit(runs=3, seconds=0.0, warmup_s=0.0)
SHORT = Visit(runs=3, seconds=0.0, warmup_s=0.0, limit_s=1.0)


def bench_on(
    device: Device,
    tmp_path: Path,
    script: str = PLAIN,
    *,
    return_s: float = 20.0,
    **options: object,
) -> tuple[Rig, PhoneBench]:
    """A rig to enter, and the bench within it."""
    adb, tool = connected(device, tmp_path, script)
    rig = Rig(adb, tool, return_s=return_s)
    return rig, PhoneBench(rig, describe(adb), tool, Setting(), **options)


def model(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return dense_model(
        rng.normal(size=(6, 12)).astype(np.float32),
        rng.normal(size=6).astype(np.float32),
        input_shape=[1, 2, 2, 3],
    )


def test_the_real_runtime_measures_answers_and_profiles(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path, benchmark_model.script(), visit=QUICK)
    data = model()
    image = np.random.default_rng(1).random((1, 2, 2, 3)).astype(np.float32)
    with rig:
        run = bench.compare({"m": data, "broken": b"no model"}, min_rounds=1, max_seconds=0)
        (answer,) = bench.answers(data, image)
        profile = bench.profile(data)
    found = run.measurements["m", 1]
    assert (found.digest, found.threads, found.per_round) == (file_digest(data), 1, 1)
    assert 0 < found.p50 < 1000 and found.conditions.inferences == 3
    assert found.conditions.memory_mb == 9.25 and found.conditions.mask == "c0"
    assert set(run.failures) == {("broken", 1)}
    assert "not a valid Flatbuffer" in str(run.failures["broken", 1])
    with Runner(data) as runner:
        here = runner.run({runner.inputs[0].name: image})
    assert answer == b"".join(array.tobytes() for array in here.values())
    assert [op.kind for op in profile.operators] == ["FULLY_CONNECTED", "DELEGATE"]
    assert phone.left == []


def test_files_are_measured_in_paired_rounds(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path, target="p30-cpu")
    with rig:
        run = bench.compare({"a": SMALL, "b": LARGE}, threads=(1, 4), min_rounds=2)
    small, large = run.measurements["a", 4], run.measurements["b", 4]
    assert small.samples_ms == (1.0,) * 2 and large.samples_ms == (3.0,) * 2
    assert ratio(large, small).value == pytest.approx(3)
    assert small.target == "p30-cpu" and small.where.startswith("HUAWEI VOG-L29 (kirin980")
    assert small.tool.startswith("benchmark_model ") and "median" in small.tool
    conditions = small.conditions
    assert (conditions.init_ms, conditions.first_ms, conditions.memory_mb) == (4.0, 9.0, 2.5)
    assert conditions.governors == ("schedutil",) and conditions.doubts == ()
    assert (conditions.temperature_before_c, conditions.temperature_after_c) == (35.0, 35.0)
    assert sorted(set(phones.masks(phone))) == ["c0", "f0"]
    pushed = [command for command in phone.commands if "--num_threads=4" in command]
    assert len(pushed) == 4 and all("--use_xnnpack=true" in command for command in pushed)
    assert phone.left == []
    document = small.to_json()
    assert document["conditions"]["device"]["soc"] == "kirin980"


def test_a_tool_without_medians_gives_means(phone: Device, tmp_path: Path) -> None:
    script = tool_saying(
        'echo "count=2 first=9 curr=9 min=9 max=9 avg=9 std=0"\n'
        'echo "count=50 first=1 curr=2 min=1 max=2 avg=1500 std=0"\n'
        'echo "Average inference timings in us: Warmup: 9, Init: 4, Inference: 1500"'
    )
    rig, bench = bench_on(phone, tmp_path, script)
    with rig:
        run = bench.compare({"a": SMALL}, min_rounds=1, max_seconds=0)
        assert bench.answers(SMALL, np.zeros((1, 2), np.float32)) is None
    found = run.measurements["a", 1]
    assert found.samples_ms == (1.5,) and "mean of each run" in found.tool
    assert found.conditions.first_ms is None and found.warmup == 2


FAULTS = {
    "kill -9 $$": "killed with SIGKILL",
    "kill -SEGV $$": "killed with SIGSEGV",
    "head -c 3000 /dev/urandom": "no timings that lmopt knows",
    'echo "count=3 curr=??"; echo "count=3 first=. curr=,"': "garbled",
    "echo 'ERROR: Failed to allocate tensors!'; exit 1": "Failed to allocate tensors!",
}


def test_a_file_that_fails_does_not_stop_the_others(phone: Device, tmp_path: Path) -> None:
    body = PLAIN.partition("\nsize=")[2].partition("\n")[2]
    cases = "\n".join(
        f"if [ $size = {place} ]; then {fault}; exit $?; fi"
        for place, fault in enumerate(FAULTS, start=1)
    )
    rig, bench = bench_on(phone, tmp_path, tool_saying(f"{cases}\n{body}"))
    files = {fault: bytes(place) for place, fault in enumerate(FAULTS, start=1)}
    with rig:
        run = bench.compare({**files, "good": SMALL}, min_rounds=1, max_seconds=0)
    assert set(run.measurements) == {("good", 1)}
    for fault, reason in FAULTS.items():
        assert reason in str(run.failures[fault, 1])
    assert phone.left == []


def test_a_tool_that_hangs_is_ended_on_the_phone(phone: Device, tmp_path: Path) -> None:
    script = tool_saying('trap "" HUP\necho $$ > $(dirname "$graph")/../me\nwhile :; do :; done')
    rig, bench = bench_on(phone, tmp_path, script, visit=SHORT)
    with rig:
        run = bench.compare({"a": SMALL})
        pid = int(phone.place(f"{ROOT}/me").read_text())
        assert subprocess.run(["kill", "-0", str(pid)], check=False, capture_output=True).returncode
    assert "the tool hung" in str(run.failures["a", 1]) and not run.measurements
    assert phone.left == ["me"]


def test_a_full_phone_is_an_error_and_leaves_nothing(phone: Device, tmp_path: Path) -> None:
    rig, _ = bench_on(phone, tmp_path)
    phone.full = True
    with pytest.raises(BackendError, match="no space left"), rig:
        pass
    assert phone.left == []


def pull_at(phone: Device, visit: int, *, back_after: float | None) -> None:
    """Pulls the cable when a visit begins, and plugs it in again later if at all."""
    visits = iter(range(1, 1000))

    def watch(command: str) -> None:
        if "--graph=" in command and next(visits) == visit:
            phone.pull_cable()
            if back_after is not None:
                threading.Timer(back_after, phone.plug).start()

    phone.on_shell = watch


def test_a_phone_that_comes_back_is_measured_to_the_end(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path)
    with rig:
        pull_at(phone, 2, back_after=0.1)
        run = bench.compare({"a": SMALL, "b": LARGE}, min_rounds=2)
    assert [len(m.samples_ms) for m in run.measurements.values()] == [2, 2]
    assert all(m.doubts == () for m in run.measurements.values())
    assert phone.left == []


def test_a_phone_that_stays_away_keeps_its_whole_rounds(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path, return_s=0.1)
    with rig:
        pull_at(phone, 2 * KEPT_ROUNDS + 2, back_after=None)
        run = bench.compare({"a": SMALL, "b": LARGE}, min_rounds=9)
    assert [len(m.samples_ms) for m in run.measurements.values()] == [KEPT_ROUNDS] * 2
    found = run.measurements["a", 1]
    assert found.doubts == (f"the phone went away after {KEPT_ROUNDS} rounds",)
    assert found.conditions.temperature_after_c is None
    assert ratio(run.measurements["b", 1], found).value == pytest.approx(3)


def test_a_phone_that_leaves_at_once_is_an_error(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path, return_s=0.1)
    pull_at(phone, 1, back_after=None)
    with pytest.raises(DeviceLostError, match="the phone went away"), rig:
        bench.compare({"a": SMALL})
    assert len(phone.left) == 1  # nobody can clean up there now


def test_what_lost_runs_left_is_removed_by_the_next(phone: Device, tmp_path: Path) -> None:
    rig, _ = bench_on(phone, tmp_path)
    prefix = rig.folder.removesuffix(str(os.getpid()))
    gone = subprocess.Popen(["true"])
    gone.wait()
    phone.file(f"{prefix}{gone.pid}/benchmark_model", "old")
    phone.file(f"{prefix}{os.getppid()}/benchmark_model", "of another run")
    phone.file(f"{ROOT}/somebody/file", "else's")
    with rig:
        pass
    assert phone.left == [f"{Path(prefix).name}{os.getppid()}", "somebody"]


def test_a_hot_phone_is_waited_for(phone: Device, tmp_path: Path) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            phones.heat(phone, 40.0)

    rig, bench = bench_on(phone, tmp_path, wait=wait, cooling=Cooling(rise_c=10))
    phone.on_shell = lambda command: phones.heat(phone, 60) if "--graph=" in command else None
    with rig:
        run = bench.compare({"a": SMALL}, min_rounds=2, max_seconds=0)
    assert waits == [1.0] * 3
    assert run.measurements["a", 1].conditions.temperature_after_c == 60.0
    assert run.measurements["a", 1].doubts == ()


def test_a_phone_that_stays_hot_is_measured_and_doubted(phone: Device, tmp_path: Path) -> None:
    waits: list[float] = []
    limits = Cooling(rise_c=10, visit_s=2, total_s=3, poll_s=1)
    rig, bench = bench_on(phone, tmp_path, wait=waits.append, cooling=limits)
    phone.on_shell = lambda command: phones.heat(phone, 60) if "--graph=" in command else None
    with rig:
        run = bench.compare({"a": SMALL}, min_rounds=3, max_seconds=0)
    assert sum(waits) == 3
    assert run.measurements["a", 1].doubts == ("hot: 60 C, and it did not cool down in time",)


def test_a_phone_that_slows_down_is_clocked_down_or_busy_is_doubted(
    phone: Device, tmp_path: Path
) -> None:
    body = PLAIN.partition("\nsize=")[2].partition("\n")[2]
    slower = "echo >> ../count; size=$((size + 500 * $(wc -l < ../count)))"
    rig, bench = bench_on(phone, tmp_path, tool_saying(f"{slower}\n{body}"))
    phones.clock(phone, 7, 2_600_000, 1_300_000)
    phones.work(phone)
    with rig:
        run = bench.compare({"a": SMALL}, min_rounds=2, max_seconds=0)
    found = run.measurements["a", 1]
    assert found.samples_ms == (1.5, 2.0)
    busy, clocked, slowed = found.doubts
    assert busy == "busy: other work took 2.0 cores" and found.busy
    assert clocked == "wrongly clocked: cpu7 may take 1300 of 2600 MHz"
    assert slowed == "slower by 33% in the second half of the run: it throttles"


def test_more_threads_than_cores_are_refused(phone: Device, tmp_path: Path) -> None:
    rig, bench = bench_on(phone, tmp_path)
    with rig, pytest.raises(InputError, match="9 threads; the phone offers 1 to 8"):
        bench.compare({"a": SMALL}, threads=(9,))
