"""What a phone is, and the state it is in: read through its shell, all of it optional there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lmopt.device.adb import Adb

_CPU = "/sys/devices/system/cpu/cpu*/cpufreq"
_ZONES = "/sys/class/thermal/thermal_zone*"
# One grep for many files: a phone takes milliseconds to start a program.
_SHOW = "grep -sH ."
_DESCRIBE = (
    f"getprop; grep -m 1 ^Features /proc/cpuinfo; {_SHOW} {_CPU}/cpuinfo_max_freq; "
    "dumpsys SurfaceFlinger | grep -m 1 GLES:; service list | grep neuralnetworks; "
    "timeout 5 lshal --types=b -i | grep neuralnetworks; true"
)
_HEAT = f"{_SHOW} {_ZONES}/type {_ZONES}/temp; true"
_BATTERY = "dumpsys battery | grep temperature; true"
_READ = (
    f"{_SHOW} {_CPU}/cpuinfo_max_freq {_CPU}/scaling_max_freq {_CPU}/scaling_cur_freq "
    f"{_CPU}/scaling_governor; dumpsys thermalservice | grep -m 1 'Thermal Status'; true"
)
_STAT = "head -n 1 /proc/stat; sleep 0.3; head -n 1 /proc/stat; true"
_CPU_ZONE = re.compile(r"cpu|soc|cluster|tsens|(^|[-_])(ap|big|little|mid)([-_]|\d|$)", re.I)
_TICKS_PER_S = 100.0  # of /proc/stat: USER_HZ, the same on every Android
_ACCELERATOR = re.compile(r"neuralnetworks\S*IDevice/([\w.-]+)")
_SLOW_GOVERNORS = ("powersave", "conservative")
_CAPPED = 0.95
_THROTTLED = 1
_MATTERS_C = 0.0, 150.0
"""Zones that report anything else are not in use, or count in units of their own."""


@dataclass(frozen=True)
class Phone:
    """A phone, as it describes itself.

    Attributes:
        serial: As adb calls it.
        model: Maker and model.
        soc: Its chip: what `ro.soc.model` or else the board's platform says.
        names: Everything the system calls chip and board, for finding a profile.
        android: Version of Android.
        api: API level.
        abis: Binary interfaces, the preferred one first.
        gpu: What the graphics driver calls it, or nothing.
        accelerators: Names of NNAPI drivers that the system lists.
        max_khz: Highest clock of each core, by its number.
        dot_products: Whether its cores have int8 dot products (asimddp).
    """

    serial: str
    model: str
    soc: str
    names: frozenset[str]
    android: str
    api: int
    abis: tuple[str, ...]
    gpu: str
    accelerators: tuple[str, ...]
    max_khz: Mapping[int, int]
    dot_products: bool

    def __str__(self) -> str:
        return f"{self.model} ({self.soc}, Android {self.android}, API {self.api})"

    def mask(self, threads: int) -> str | None:
        """Returns the CPUs for `taskset` in hexadecimal, or None where the clocks are unknown.

        The fastest clusters that have a core for every thread; among equals the tool's threads
        would otherwise wander to slow cores. A single cluster is left to the scheduler.
        """
        speeds = sorted(set(self.max_khz.values()), reverse=True)
        if len(speeds) < 2:
            return None
        for slowest in speeds:
            chosen = [cpu for cpu, khz in self.max_khz.items() if khz >= slowest]
            if len(chosen) >= threads:
                break
        return f"{sum(1 << cpu for cpu in chosen):x}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "serial": self.serial,
            "model": self.model,
            "soc": self.soc,
            "android": self.android,
            "api": self.api,
            "abis": list(self.abis),
            "gpu": self.gpu,
            "accelerators": list(self.accelerators),
            "max_mhz": {str(cpu): khz / 1e3 for cpu, khz in self.max_khz.items()},
        }


@dataclass(frozen=True)
class Reading:
    """The state of a phone at one moment; None where it does not tell.

    Attributes:
        temperature_c: Of the hottest zone around the CPU, else of the battery.
        thermal_status: Android's, 0 for none to 6 for shutdown.
        governors: Clock governor of each core.
        max_khz: Highest clock each core has.
        allowed_khz: Highest clock each core may now take.
        now_khz: Its clock.
    """

    temperature_c: float | None
    thermal_status: int | None
    governors: Mapping[int, str]
    max_khz: Mapping[int, int]
    allowed_khz: Mapping[int, int]
    now_khz: Mapping[int, int]

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Returns why a latency taken in this state is not what the phone can do."""
        found = []
        capped = [
            cpu for cpu, khz in self.allowed_khz.items() if khz < _CAPPED * self.max_khz.get(cpu, 0)
        ]
        if capped:
            worst = min(capped, key=lambda cpu: self.allowed_khz[cpu] / self.max_khz[cpu])
            found.append(
                f"wrongly clocked: cpu{worst} may take {self.allowed_khz[worst] / 1e3:g} of "
                f"{self.max_khz[worst] / 1e3:g} MHz"
            )
        slow = sorted({g for g in self.governors.values() if g in _SLOW_GOVERNORS})
        if slow:
            found.append(f"governor {', '.join(slow)}")
        if self.thermal_status is not None and self.thermal_status >= _THROTTLED:
            found.append(f"throttled: Android's thermal status is {self.thermal_status}")
        return tuple(found)


def describe(adb: Adb) -> Phone:
    """Returns what a phone is.

    Raises:
        BackendError: It went away, or does not answer.
    """
    text = adb.shell(_DESCRIBE).output
    props = dict(re.findall(r"^\[([^]]+)\]: \[([^]]*)\]", text, re.MULTILINE))

    def prop(*names: str) -> str:
        return next((props[name] for name in names if props.get(name)), "")

    platforms = ("ro.soc.model", "ro.board.platform", "ro.mediatek.platform", "ro.hardware")
    gles = re.search(r"GLES:\s*(.+)", text)
    features = re.search(r"^Features\s*:(.*)", text, re.MULTILINE)
    return Phone(
        serial=adb.serial,
        model=f"{prop('ro.product.manufacturer')} {prop('ro.product.model')}".strip(),
        soc=prop(*platforms) or "unknown chip",
        names=frozenset(props[name].lower() for name in platforms if props.get(name)),
        android=prop("ro.build.version.release") or "?",
        api=int(prop("ro.build.version.sdk") or 0),
        abis=tuple(prop("ro.product.cpu.abilist", "ro.product.cpu.abi").split(",")),
        gpu=gles.group(1).strip() if gles else "",
        accelerators=tuple(dict.fromkeys(_ACCELERATOR.findall(text))),
        max_khz=_per_cpu(text, "cpuinfo_max_freq"),
        dot_products="asimddp" in (features.group(1).split() if features else ()),
    )


def read(adb: Adb) -> Reading:
    """Returns the state a phone is in.

    Raises:
        BackendError: It went away, or does not answer.
    """
    heat = temperature(adb)
    text = adb.shell(_READ).output
    status = re.search(r"Thermal Status:\s*(\d+)", text)
    return Reading(
        temperature_c=heat,
        thermal_status=int(status.group(1)) if status else None,
        governors=dict(_entries(text, "scaling_governor")),
        max_khz=_per_cpu(text, "cpuinfo_max_freq"),
        allowed_khz=_per_cpu(text, "scaling_max_freq"),
        now_khz=_per_cpu(text, "scaling_cur_freq"),
    )


def temperature(adb: Adb) -> float | None:
    """Returns degrees of the hottest zone around the CPU, the battery's where no zone can be read.

    Raises:
        BackendError: The phone went away, or does not answer.
    """
    text = adb.shell(_HEAT).output
    kinds = dict(re.findall(r"thermal_zone(\d+)/type:(.+)$", text, re.MULTILINE))
    found = []
    for zone, value in re.findall(r"thermal_zone(\d+)/temp:(-?\d+)$", text, re.MULTILINE):
        # Thousandths by the kernel's convention; some vendors report whole degrees.
        degrees = int(value) / (1000 if abs(int(value)) >= _MATTERS_C[1] else 1)
        if _CPU_ZONE.search(kinds.get(zone, "")) and _MATTERS_C[0] < degrees < _MATTERS_C[1]:
            found.append(degrees)
    if found:
        return max(found)
    battery = re.search(r"temperature:\s*(\d+)", adb.shell(_BATTERY).output)
    return int(battery.group(1)) / 10 if battery else None


def busy_cores(adb: Adb) -> float | None:
    """Returns how many cores work now, when lmopt lets the phone rest; None if it does not tell.

    Raises:
        BackendError: It went away, or does not answer.
    """
    lines = re.findall(r"^cpu +([\d ]+)", adb.shell(_STAT).output, re.MULTILINE)
    if len(lines) != 2:
        return None
    before, after = ([int(field) for field in line.split()] for line in lines)
    spent = [late - early for early, late in zip(before, after, strict=True)]
    # user nice system idle iowait irq softirq steal; guest is part of user.
    idle = sum(spent[3:5])
    busy = sum(spent[:3]) + sum(spent[5:8])
    cores = max(1, round((busy + idle) / (0.3 * _TICKS_PER_S)))
    return cores * busy / (busy + idle) if busy + idle > 0 else 0.0


def _per_cpu(text: str, name: str) -> dict[int, int]:
    return {cpu: int(value) for cpu, value in _entries(text, name) if value.isdecimal()}


def _entries(text: str, name: str) -> list[tuple[int, str]]:
    found = re.findall(rf"/cpu(\d+)/cpufreq/{name}:(\S+)$", text, re.MULTILINE)
    return sorted((int(cpu), value) for cpu, value in found)
