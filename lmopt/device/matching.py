"""Which target profile a phone is: the one of its chip, or else the most alike."""

from __future__ import annotations

import math

from lmopt.device.phone import Phone
from lmopt.errors import InputError, UsageError
from lmopt.target.catalog import installed, load_target
from lmopt.target.profile import Engine, Target

_DOT_PRODUCTS = 2.0
"""int8 over float32 peak above which a profile's cores have dot products."""
_MACS_PER_CLOCK = 8.0  # float32, two 128-bit pipes: big Arm cores since the Cortex-A76
_UNLIKE = math.log(2.0)
"""What different instructions count, against a factor of two in speed."""


def is_of(target: Target, phone: Phone) -> bool:
    """Returns whether a profile is about the chip of a phone."""
    return target.device is not None and not target.device.names.isdisjoint(phone.names)


def matching(phone: Phone, engine: Engine = "cpu") -> Target:
    """Returns the installed profile of a phone's chip.

    Raises:
        UsageError: There is none; the most alike is proposed.
    """
    phones = [t for t in (load_target(name) for name in sorted(installed())) if t.device]
    found = next((t for t in phones if t.engine == engine and is_of(t, phone)), None)
    if found is not None:
        return found
    near = min(
        (t for t in phones if t.engine == engine), key=lambda t: _unlikeness(t, phone), default=None
    )
    proposal = "" if near is None else f"the most alike is {near.name} ({near.title}): --target "
    raise UsageError(
        f"no {engine} profile is about {phone.soc}",
        where="--target",
        hint=f"{proposal}{'' if near is None else near.name}; or write one: lmopt targets p30-cpu",
    )


def accelerator_of(target: Target, phone: Phone) -> str | None:
    """Returns the NNAPI driver to name to the tool.

    Raises:
        InputError: The phone lists its drivers, and the profile's is not among them.
    """
    wanted = None if target.device is None else target.device.accelerator
    if wanted is None or not phone.accelerators or wanted in phone.accelerators:
        return wanted
    raise InputError(
        f"the phone has no NNAPI driver '{wanted}', but {', '.join(phone.accelerators)}",
        where=f"{target.name}: device.accelerator",
        hint="name one of these in a copy of the profile: --target ./mine.toml",
    )


def _unlikeness(target: Target, phone: Phone) -> float:
    """Returns how far apart a profile's and a phone's big cores are; 0 is alike."""
    peaks = target.quantities
    if "peak_f32" not in peaks or not phone.max_khz:
        return _UNLIKE
    rate = max(phone.max_khz.values()) / 1e6 * _MACS_PER_CLOCK
    apart = abs(math.log(peaks["peak_f32"].value / rate))
    dots = "peak_i8" in peaks and (peaks["peak_i8"].value / peaks["peak_f32"].value > _DOT_PRODUCTS)
    return apart + (_UNLIKE if dots != phone.dot_products else 0.0)
