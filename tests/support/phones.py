"""A phone on loopback and the real adb server it hangs on, for tests of everything about phones."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lmopt.device.adb import Adb, connect
from lmopt.device.phone import describe
from lmopt.device.tool import Tool, find_tool
from tests.support.android_device import Device

PORT = "ANDROID_ADB_SERVER_PORT"
SAMPLES = Path(
    os.environ.get("LMOPT_BENCHMARK_SAMPLES")
    or Path(__file__).parents[3] / "shared/facts/devices/benchmark_samples"
)

requires_adb = pytest.mark.skipif(
    shutil.which("adb") is None, reason="no adb: install Android's platform tools (apt install adb)"
)
requires_samples = pytest.mark.skipif(
    not SAMPLES.is_dir(),
    reason="no logs of benchmark_model: clone next to a folder shared/facts, or set "
    "LMOPT_BENCHMARK_SAMPLES",
)

P30 = {
    "ro.product.manufacturer": "HUAWEI",
    "ro.product.model": "VOG-L29",
    "ro.board.platform": "kirin980",
    "ro.hardware": "kirin980",
    "ro.build.version.release": "10",
    "ro.build.version.sdk": "29",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}
P30_KHZ = (1_804_000,) * 4 + (1_920_000,) * 2 + (2_600_000,) * 2


@contextmanager
def adb_server(home: Path) -> Iterator[None]:
    """An adb server of its own, on a port and with keys of its own; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    before = os.environ.get(PORT)
    os.environ[PORT] = port
    try:
        _adb("start-server", home=home)
        yield
    finally:
        _adb("kill-server")
        os.environ.pop(PORT)
        if before is not None:
            os.environ[PORT] = before


def plug_in(device: Device) -> None:
    """Connects a device to the server, as a cable would."""
    _adb("connect", device.serial)


def unplug(device: Device) -> None:
    _adb("disconnect", device.serial)


def p30(folder: Path, **options: str) -> Device:
    """A Huawei P30 Pro at rest."""
    device = Device(folder, **options)
    device.properties(P30)
    for cpu, khz in enumerate(P30_KHZ):
        clock(device, cpu, khz, khz)
    heat(device, 35.0)
    device.file("/proc/stat", "cpu  100 0 50 9000 0 0 0 0 0 0\n")
    device.file("/proc/cpuinfo", "Features\t: fp asimd aes asimdhp asimddp\n")
    device.program(
        "dumpsys", "echo '  temperature: 301'; echo 'GLES: ARM, Mali-G76, OpenGL ES 3.2'"
    )
    device.program("sleep", 'case "$1" in 0.3) ;; *) exec /bin/sleep "$1" ;; esac')
    device.program("lshal", "true")
    device.program("service", "true")
    device.program("taskset", 'echo "$1" >> "$(dirname "$0")/masks"; shift; exec "$@"')
    return device


def clock(device: Device, cpu: int, highest: int, allowed: int) -> None:
    place = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
    device.file(f"{place}/cpuinfo_max_freq", f"{highest}\n")
    device.file(f"{place}/scaling_max_freq", f"{allowed}\n")
    device.file(f"{place}/scaling_cur_freq", f"{allowed}\n")
    device.file(f"{place}/scaling_governor", "schedutil\n")


def heat(device: Device, degrees: float) -> None:
    zones = "/sys/class/thermal/thermal_zone"
    for zone, kind, value in ((0, "battery", 90_000), (1, "cluster0", int(degrees * 1000))):
        device.file(f"{zones}{zone}/type", f"{kind}\n")
        device.file(f"{zones}{zone}/temp", f"{value}\n")


def work(device: Device) -> None:
    """Keeps two of the eight cores busy: 60 of 240 ticks while lmopt waits for 0.3 s."""
    later = "cpu  160 0 50 9180 0 0 0 0 0 0"
    device.program("sleep", f"echo '{later}' > {device.place('/proc/stat')}")


def masks(device: Device) -> list[str]:
    """CPU masks that the tool was started with."""
    return (device.bin / "masks").read_text().split()


def tool_saying(body: str) -> str:
    """A shell script in place of the tool; its model `$graph` has `$size` bytes."""
    return (
        '#!/bin/sh\nfor a; do case "$a" in --graph=*) graph=${a#--graph=};; '
        "--output_filepath=*) output=${a#--output_filepath=};; esac; done\n"
        f'size=$(wc -c < "$graph")\n{body}\n'
    )


PLAIN = tool_saying(
    'echo "INFO: count=30 first=$size curr=$size min=$size max=$size avg=$size std=0 '
    'p5=$size median=$size p95=$size"\n'
    'echo "INFO: count=20 first=$size curr=$size min=$size max=$size avg=$size std=0 '
    'p5=$size median=$size p95=$size"\n'
    'echo "INFO: Inference timings in us: Init: 4000, First inference: 9000, '
    'Warmup (avg): $size, Inference (avg): $size"\n'
    'echo "INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5"'
)
"""A tool that takes a microsecond for each byte of the model."""


def connected(device: Device, folder: Path, script: str = PLAIN) -> tuple[Adb, Tool]:
    """The way to a device, and a tool for it."""
    path = folder / "benchmark_model"
    path.write_text(script)
    adb = connect(device.serial)
    return adb, find_tool(describe(adb), path)


def _adb(*arguments: str, home: Path | None = None) -> None:
    # Not through a pipe: the server would keep it open.
    env = os.environ if home is None else {**os.environ, "HOME": str(home)}
    null = subprocess.DEVNULL
    subprocess.run(["adb", *arguments], check=False, env=env, stdout=null, stderr=null, timeout=30)
