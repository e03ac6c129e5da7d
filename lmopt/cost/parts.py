"""What a target takes for kernels: from the prices of its calibration, else from its rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmopt.cost import micro
from lmopt.cost.kernels import Kernel
from lmopt.cost.prices import ARITHMETIC, amounts, times_us
from lmopt.target.profile import Target


class Parts(NamedTuple):
    """What a kernel takes, in microseconds; the parts add up."""

    arithmetic_us: float
    memory_us: float
    launch_us: float


def parts_us(
    found: Sequence[Kernel], target: Target, threads: int, *, model_bytes: int | None = None
) -> list[Parts]:
    """Returns what every kernel takes.

    Args:
        found: Kernels that the target runs.
        target: The device.
        threads: CPU threads.
        model_bytes: Of all weights of the model; by default of these kernels.

    Raises:
        BackendError: The target has no rate for a kernel's storage.
    """
    priced = target.kernel_prices.get(threads)
    if priced is None:
        return _rated(found, target, threads)
    total = sum(kernel.weight_bytes for kernel in found) if model_bytes is None else model_bytes
    parts: list[Parts] = []
    for kernel in found:
        if micro.is_priced(kernel, priced.us):
            parts.append(Parts(*micro.parts_us(kernel, priced.us, total)))
        else:
            parts += _rated([kernel], target, threads)
    return parts


def call_us(target: Target, threads: int) -> float:
    """Returns what an inference takes besides its kernels."""
    priced = target.kernel_prices.get(threads)
    return target.quantities["invoke_overhead"].value if priced is None else priced.us[micro.CALL]


def stated_error(target: Target, threads: int) -> float:
    """Returns the part of an estimate from it to the upper end of its interval."""
    priced = target.kernel_prices.get(threads)
    return target.quantities["error"].value if priced is None else priced.error


def _rated(found: Sequence[Kernel], target: Target, threads: int) -> list[Parts]:
    rows = times_us(found, amounts(found), target, threads)
    split = len(ARITHMETIC)
    return [Parts(sum(row[:split]), sum(row[split:-1]), row[-1]) for row in rows.tolist()]
