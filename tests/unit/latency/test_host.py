import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lmopt.errors import BackendError
from lmopt.latency import host

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys
from pathlib import Path
from lmopt.latency import host
host.lock_path = lambda: Path(sys.argv[1])
with host.exclusive("training"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setattr(host, "lock_path", lambda: path)
    return path


def test_the_fingerprint_follows_what_decides_speed() -> None:
    machine = host.describe()
    assert len(machine.fingerprint) == 16
    assert machine.fingerprint == replace(machine).fingerprint
    assert machine.fingerprint != replace(machine, litert="0.0").fingerprint
    assert machine.fingerprint != replace(machine, cores=machine.cores + 1).fingerprint
    assert f"LiteRT {machine.litert}" in str(machine)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["sse2", "avx2", "avx512f", "avx512_vnni"], "A CPU (AVX-512 VNNI)"),
        (["sse2", "avx2"], "A CPU (AVX2)"),
        (["fp", "asimd", "asimddp"], "A CPU (dot products)"),
        ([], "A CPU"),
    ],
)
def test_a_cpu_is_told_with_what_it_computes_integers_with(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_cpu", lambda: ("A CPU", tuple(flags)))
    assert host.describe.__wrapped__().cpu == told


def test_another_process_waits_and_is_told_who_holds_the_machine(lock) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BackendError, match=rf"process {holder.pid}: training: .* not free"),
            host.exclusive("measuring", wait_s=0.1),
        ):
            pass
    with host.exclusive("measuring", wait_s=10):
        assert "measuring" in lock.read_text()
    assert lock.read_text() == ""


def test_it_nests_within_a_thread_and_other_threads_wait(lock) -> None:
    order: list[str] = []

    def other() -> None:
        with host.exclusive("other"):
            order.append("other")

    with host.exclusive("outer"):
        with host.exclusive("inner"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("outer")
    thread.join()
    assert order == ["outer", "other"]


SHARER = """
import sys, time
from pathlib import Path
from lmopt.latency import host
host.lock_path = lambda: Path(sys.argv[1])
with host.Beside() as turn:
    while True:
        print(time.monotonic(), flush=True)
        time.sleep(0.02)
        turn.give_way()
"""


def test_sharers_work_at_once_and_stand_still_while_somebody_measures(lock) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SHARER, str(lock)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    sharers = [start(), start()]
    try:
        for sharer in sharers:  # both have begun, so neither waits for the other
            assert sharer.stdout is not None
            assert float(sharer.stdout.readline()) > 0
        with host.exclusive("measuring", wait_s=30):
            begun = time.monotonic()
            time.sleep(0.3)
            ended = time.monotonic()
        time.sleep(0.3)
    finally:
        for sharer in sharers:
            sharer.kill()
    for sharer in sharers:
        moments = [float(line) for line in sharer.communicate()[0].splitlines()]
        assert not [moment for moment in moments if begun < moment < ended]
        assert max(moments) > ended


def test_sharing_nests_and_gives_way_from_within(lock) -> None:
    turn = host.Beside(wait_s=5)
    with turn, turn:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(_measure, 5.0)
            while not waiting.done():
                turn.give_way()
        assert waiting.result()
        with pytest.raises(BackendError):
            _measure(0.0)
    assert _measure(0.0)


def test_who_shares_the_machine_is_waited_for(lock) -> None:
    with host.Beside() as turn:
        with pytest.raises(BackendError, match=r"another process: .* not free"):
            _measure(0.1)
        turn.give_way()
    with host.exclusive("measuring", wait_s=0.0):
        pass


def _measure(wait_s: float) -> bool:
    with host.exclusive("measuring", wait_s=wait_s):
        return True


def test_a_lock_behind_a_link_is_not_followed(lock, tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock.symlink_to(victim)
    with pytest.raises(OSError), host.exclusive("measuring"):
        pass
    assert victim.read_text() == "precious"


def test_load_is_what_others_spent_per_second(monkeypatch) -> None:
    # In 10 s all CPUs together worked for 14 s, of which 6 s were ours and our worker's.
    clock = {"now": 100.0, "all": 50.0, "own": 2.0}

    class Process:
        def __init__(self, pid: int) -> None:
            assert pid in (os.getpid(), 7)

        def cpu_times(self) -> SimpleNamespace:
            return SimpleNamespace(user=clock["own"], system=0.0)

    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=clock["all"], idle=1e6))
    monkeypatch.setattr(host.time, "monotonic", lambda: clock["now"])
    meter = host.LoadMeter([7])
    clock.update(now=110.0, all=64.0, own=5.0)
    assert meter.cores() == pytest.approx((14 - 6) / 10)
