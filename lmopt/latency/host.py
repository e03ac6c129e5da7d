"""The machine lmopt runs on: its description, its fingerprint, and the right to measure on it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Self

from lmopt.errors import BackendError

VECTORS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX2 VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "int8 matrices",
    "asimddp": "dot products",
}
"""Instruction sets by the kernel's names of their flags, the fastest on 8 bits first."""


@dataclass(frozen=True)
class Host:
    """What decides how fast models run here.

    Attributes:
        cpu: Model name of the CPU, and what it computes vectors with: one name may stand for
            machines of which only some have fast 8-bit arithmetic.
        cores: Logical CPUs this process may use.
        flags: 8 hex digits over the CPU's instruction-set flags.
        litert: Version of the LiteRT runtime.
        system: Operating system and architecture.
    """

    cpu: str
    cores: int
    flags: str
    litert: str
    system: str

    @property
    def fingerprint(self) -> str:
        """Returns 16 hex digits: equal fingerprints, comparable latencies."""
        return hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        return f"{self.cpu}, {cores}, {self.system}, LiteRT {self.litert}"


@cache
def describe() -> Host:
    """Returns the machine this process runs on."""
    name, flags = _cpu()
    return Host(
        cpu=f"{name}{_vectors(flags)}",
        cores=usable_cores(),
        flags=hashlib.blake2b(" ".join(sorted(flags)).encode(), digest_size=4).hexdigest(),
        litert=version("ai-edge-litert"),
        system=f"{platform.system()} {platform.machine()}",
    )


def usable_cores() -> int:
    """Returns how many logical CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu() -> tuple[str, tuple[str, ...]]:
    info = Path("/proc/cpuinfo")
    entries: dict[str, str] = {}
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    name = entries.get("model name") or platform.processor() or platform.machine()
    flags = entries.get("flags") or entries.get("Features") or ""
    return name, tuple(flags.split())


def _vectors(flags: Collection[str]) -> str:
    """Returns the fastest vector instructions as an appendix to a CPU's name; may be empty."""
    return next((f" ({told})" for flag, told in VECTORS.items() if flag in flags), "")


class LoadMeter:
    """Tells how busy everything else keeps the CPU from its creation on."""

    def __init__(self, own: Sequence[int]) -> None:
        """Starts metering.

        Args:
            own: Process ids whose work does not count, besides this process.
        """
        self._own = (os.getpid(), *own)
        self._start = time.monotonic()
        self._spent = self._others()

    def cores(self) -> float:
        """Returns the mean number of cores that other work took so far."""
        elapsed = time.monotonic() - self._start
        return max(0.0, self._others() - self._spent) / elapsed if elapsed > 0 else 0.0

    def _others(self) -> float:
        import psutil

        total = psutil.cpu_times()
        # `guest` is already part of `user`, and `steal` is what the hypervisor gave to others.
        counted = ("user", "nice", "system", "irq", "softirq", "steal")
        busy = sum(getattr(total, name, 0.0) for name in counted)
        own = 0.0
        for pid in self._own:
            spent = psutil.Process(pid).cpu_times()
            own += spent.user + spent.system
        return float(busy - own)


_holders = threading.RLock()
_held: list[IO[str]] = []


def lock_path() -> Path:
    """Returns the lock file that everything measuring on this machine for this user shares."""
    return Path(tempfile.gettempdir()) / f"lmopt-{os.getuid()}.lock"


@contextmanager
def exclusive(purpose: str, *, wait_s: float = 600.0) -> Iterator[None]:
    """Holds the machine for one job: a measurement.

    It may be nested within a thread; other threads and processes wait their turn. Those that hold
    it with `Beside` give way.

    Args:
        purpose: Shown to whoever waits in vain.
        wait_s: How long to wait for another process.

    Raises:
        BackendError: Another process kept the machine for longer than `wait_s`.
    """
    with _holders:
        if _held:
            yield
            return
        with _opened(lock_path()) as file:
            _take_turn(file, fcntl.LOCK_EX, wait_s)
            file.truncate(0)
            file.write(f"process {os.getpid()}: {purpose}")
            file.flush()
            _held.append(file)
            try:
                yield
            finally:
                _held.clear()
                file.truncate(0)


class Beside:
    """Holds the machine together with other work of its kind, but never beside a measurement.

    A context manager that may be nested. Work that lasts calls `give_way` about once a second.
    """

    def __init__(self, *, wait_s: float = 3600.0) -> None:
        """Prepares nothing.

        Args:
            wait_s: How long to wait for measurements of other processes.
        """
        self._wait_s = wait_s
        self._file: IO[str] | None = None
        self._depth = 0

    def __enter__(self) -> Self:
        """Waits until nobody measures; raises BackendError when that takes too long."""
        if not self._depth:
            self._take()
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._release()

    def give_way(self) -> None:
        """Lets whoever waits to measure do so, and returns when that is over."""
        with _opened(_queue_path()) as queue:
            is_wanted = not _taken(queue, fcntl.LOCK_SH)
        if is_wanted:
            self._release()
            self._take()

    def _take(self) -> None:
        file = _opened(lock_path())
        try:
            _take_turn(file, fcntl.LOCK_SH, self._wait_s)
        except BaseException:
            file.close()
            raise
        self._file = file

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _queue_path() -> Path:
    """Returns the file that is held by who is next, so that sharers cannot starve a measurement."""
    return lock_path().with_suffix(".queue")


def _opened(path: Path) -> IO[str]:
    # Not through a link: in a shared folder somebody else may have put one there.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _take_turn(file: IO[str], kind: int, wait_s: float) -> None:
    """Takes the machine's lock after all that asked before."""
    deadline = time.monotonic() + wait_s
    with _opened(_queue_path()) as queue:
        for lock in (queue, file):
            while not _taken(lock, kind):
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read() or "another process"
                    raise BackendError(
                        f"the machine was not free for measuring within {wait_s:g} s",
                        where=holder,
                        hint="wait until that lmopt run is done, or end it",
                    )
                time.sleep(0.05)


def _taken(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
