"""What the model of time is: amounts of work times what each costs on a target, added up.

Every kernel takes a launch, its multiplications at the rate of its class, and the bytes that it
moves at the rate of memory. The parts add up, they do not overlap: on 33 networks of Snapdragon 855
that fits better than the longer of the two, and it makes small kernels slow by itself.

A network's time is linear in its amounts, so rates are found by the fit in `lmopt.cost.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmopt.cost.kernels import CLASSES, Kernel
from lmopt.errors import BackendError
from lmopt.target.profile import Target
from lmopt.target.threads import speedup

Array = NDArray[np.float64]

ARITHMETIC = tuple(name for name in CLASSES if name != "memory")
TERMS = (*ARITHMETIC, "activations", "weights", "launches")
"""Columns of amounts: multiply-accumulates by class, bytes, bytes, launches."""
SHARES = {
    "pointwise": "pointwise_share",
    "square": "square_share",
    "window": "window_share",
    "depthwise": "depthwise_share",
    "dense": "dense_share",
}
"""Quantity that says which part of the peak a class reaches; `conv_share` where it is missing."""
INTEGERS = ("i8", "u8", "i16")


def amounts(found: Sequence[Kernel]) -> Array:
    """Returns the work of every kernel, one row each, in the columns of `TERMS`.

    Units:
        Millions of multiply-accumulates, thousands of bytes, launches.
    """
    rows = np.zeros((len(found), len(TERMS)))
    for row, kernel in zip(rows, found, strict=True):
        if kernel.work != "memory":
            row[ARITHMETIC.index(kernel.work)] = kernel.macs / 1e6
        row[-3:] = kernel.moved_bytes / 1e3, kernel.weight_bytes / 1e3, kernel.launches
    return rows


def prices(target: Target, storage: str, threads: int) -> Array:
    """Returns the microseconds that one unit of every term costs.

    Threads divide arithmetic and the reading of weights; activations pass through what the cores
    share, and every further thread makes a launch longer. Kernels beside the engine have one.

    Raises:
        BackendError: The target has no rate for the storage.
    """
    numbers = target.quantities
    peak = numbers.get(f"peak_{storage}")
    if peak is None:
        raise BackendError(
            f"'{target.name}' has no rate for {storage}",
            hint=f"end the pipeline in one of: {', '.join(target.storage)}",
        )
    beside = storage not in target.storage
    integer = storage in INTEGERS and not beside
    gain = 1.0 if beside else speedup(target, threads)
    rate = peak.value * gain
    if integer and "integer_share" in numbers:
        rate *= numbers["integer_share"].value
    shares = [
        1.0 if beside else numbers.get(SHARES[name], numbers["conv_share"]).value
        for name in ARITHMETIC
    ]
    if f"depthwise_{storage}" in numbers:
        depthwise = numbers[f"depthwise_{storage}"].value * gain
        shares[ARITHMETIC.index("depthwise")] = depthwise / rate
    bandwidth = numbers.get(f"bandwidth_{storage}", numbers["bandwidth"]).value
    weights = numbers.get("weight_bandwidth", numbers["bandwidth"]).value * gain
    if integer and "integer_bandwidth" in numbers:
        # What limits it is rounding, which threads share: published 8-bit networks gain as much
        # from four threads as float ones on the same eight processors.
        bandwidth = numbers["integer_bandwidth"].value * gain
    launch = numbers["kernel_overhead"].value
    if "thread_overhead" in numbers:
        launch += numbers["thread_overhead"].value * (threads - 1)
    # A thousand multiplications at one GMAC/s, like a thousand bytes at one GB/s, take one us.
    arithmetic = [1e3 / (rate * share) for share in shares]
    return np.array([*arithmetic, 1 / bandwidth, 1 / weights, launch])


def times_us(found: Sequence[Kernel], work: Array, target: Target, threads: int) -> Array:
    """Returns the microseconds of every kernel by term: rows kernels, columns `TERMS`.

    Args:
        found: Kernels that the target runs.
        work: Their `amounts`.
        target: The device.
        threads: CPU threads.

    Raises:
        BackendError: The target has no rate for a kernel's storage.
    """
    storages = np.array([kernel.storage for kernel in found])
    times = np.empty_like(work)
    for storage in dict.fromkeys(kernel.storage for kernel in found):
        rows = storages == storage
        times[rows] = work[rows] * prices(target, storage, threads)
    return times
