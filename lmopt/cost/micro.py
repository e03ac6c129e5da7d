"""What kernels take on a machine whose small networks were timed: finer than `lmopt.cost.prices`.

Work is split into terms by storage and group of kernels: a launch, multiply-accumulates in whole
vectors, operands and results that pass per pixel, weights. What a model's weights take when caches
do not hold them all until the next inference is a term that all groups share. A network's time is
linear in its terms, so their prices are the non-negative solution of least squares in ratio.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.cost.kernels import Kernel
from lmopt.errors import BackendError
from lmopt.ir.types import DType

Array = NDArray[np.float64]

MODEL = "terms per storage and group of kernels, version 3"
CALL = "call"
"""The term of an inference itself."""
CHANGE = "change"
"""The term of a change between XNNPACK and the runtime's own kernels."""
LAUNCH, MACS = "launch", "macs"
VECTORS = (8, 16)
"""Channels that kernels compute together; the fit tells which, by the width of the registers."""
DEPTH = 8
"""Channels that integer kernels multiply and sum in one step."""
BROADCAST = 2.5
"""An operation on two maps as large as its result moves three; a smaller one makes it fewer."""
LARGE_KERNEL = 1 << 19
"""Bytes of a kernel that no first or second cache holds beside what it is applied to."""
CACHES = (1 << 19, 1 << 21, 1 << 23, 1 << 24, 1 << 25)
"""Sizes around which a model's weights begin to be read from farther away."""
DENSE_CACHES = (*CACHES, 1 << 26)
"""The same for dense layers, which do nothing but wait for them."""
FOLDS = 5
COVERED = 0.95
"""Part of the networks that a stated interval is to hold."""
TRUSTED = 0.05
"""Error in ratio below which a network counts fully in the fit."""
REPEATS = 8
MIXED_COUNTS = 4.0
"""Weight of a mixed network, that of a chain being 1: from 3 on left-out ones err about alike."""


@dataclass(frozen=True)
class Timed:
    """A network whose time is known.

    Attributes:
        kernels: In execution order.
        us: Time of an inference.
        mixed: Whether it is a network of different kernels, not a chain of equal ones.
    """

    kernels: tuple[Kernel, ...]
    us: float
    mixed: bool


def group_of(kernel: Kernel) -> str:
    """Returns the storage and the group by which a kernel's terms are named."""
    return f"{kernel.storage}/{_group(kernel)}"


def terms(kernel: Kernel, model_bytes: float) -> dict[str, float]:
    """Returns a kernel's work by term.

    Args:
        kernel: Any.
        model_bytes: Of all weights of the model that it is part of.

    Units:
        Millions of multiply-accumulates and of elements, thousands of pixels, launches.
    """
    channels = kernel.result[-1] if kernel.result else 1
    pixels = math.prod(kernel.result[:-1])
    read = math.prod(kernel.operand) / 1e6
    written = math.prod(kernel.result) / 1e6
    found = {LAUNCH: float(kernel.launches), "pixels": pixels / 1e3, "results": written}
    fan_in = kernel.macs / max(pixels * channels, 1)
    if kernel.work == "memory":
        found["operands"] = read
    elif kernel.work == "depthwise":
        for width in VECTORS:
            found[_macs_by(width)] = pixels * _padded(channels, width) * fan_in / 1e6
        found |= {"operands": read, "channels": channels / 1e3}
    else:
        taps = math.prod(kernel.window)
        deep = _padded(fan_in / taps, 1 if kernel.storage == "f32" else DEPTH)
        for width in VECTORS:
            padded = _padded(channels / kernel.groups, width) * kernel.groups
            found[_macs_by(width)] = pixels * padded * deep * taps / 1e6
        found |= {"rows": pixels * fan_in / 1e6, "weights": fan_in * channels / 1e6}
        if kernel.groups > 1:
            found["groups"] = kernel.groups
        if kernel.weight_bytes > LARGE_KERNEL:
            found["macs of large kernels"] = found[_macs_by(VECTORS[0])]
        if kernel.work in ("square", "window"):
            found["operands"] = read
            if kernel.operand[-1] < DEPTH:
                found["macs of images"] = kernel.macs / 1e6
    group = group_of(kernel)
    named = {f"{group}/{term}": amount for term, amount in found.items()}
    if kernel.resumes:
        named[CHANGE] = 1.0
    dense = kernel.work == "dense"
    for size in DENSE_CACHES if dense else CACHES:
        named[f"cold {'dense ' if dense else ''}beyond {size >> 10} KiB"] = (
            kernel.weight_bytes / 1e6 * _cold(model_bytes, size)
        )
    return named


def is_priced(kernel: Kernel, prices: Mapping[str, float]) -> bool:
    """Returns whether kernels of its group were among those that prices were fitted on."""
    return f"{group_of(kernel)}/{LAUNCH}" in prices


def parts_us(
    kernel: Kernel, prices: Mapping[str, float], model_bytes: float
) -> tuple[float, float, float]:
    """Returns arithmetic, memory and launch of a kernel whose group has prices.

    Units:
        Microseconds.
    """
    arithmetic = memory = launch = 0.0
    for name, amount in terms(kernel, model_bytes).items():
        spent = amount * prices.get(name, 0.0)
        term = name.rpartition("/")[2]
        if term in (LAUNCH, CHANGE):
            launch += spent
        elif term.startswith(MACS):
            arithmetic += spent
        else:
            memory += spent
    return arithmetic, memory, launch


def fit_prices(samples: Sequence[Timed]) -> dict[str, float]:
    """Returns the microseconds per unit of every term that samples hold, none below 0.

    Raises:
        BackendError: There are no samples, or a time is not positive.
    """
    if not samples or any(not sample.us > 0 for sample in samples):
        raise BackendError("nothing to fit: wanted networks with times above 0")
    rows = [_row(sample) for sample in samples]
    names = sorted({name for row in rows for name in row})
    return dict(zip(names, _solve(_matrix(rows, names), samples).tolist(), strict=True))


def fold_errors(samples: Sequence[Timed]) -> Array:
    """Returns |log ratio| of estimate to time for mixed networks, each left out of its fit.

    Raises:
        BackendError: There are fewer of them than folds, or a time is not positive.
    """
    mixed = np.flatnonzero([sample.mixed for sample in samples])
    if len(mixed) < FOLDS:
        raise BackendError(
            f"{len(mixed)} mixed networks were timed; wanted at least {FOLDS}, to leave some out",
            hint="the runtime refused the others: lmopt measure tells whether it runs at all",
        )
    rows = [_row(sample) for sample in samples]
    matrix = _matrix(rows, sorted({name for row in rows for name in row}))
    us = np.array([sample.us for sample in samples])
    errors = []
    for fold in range(FOLDS):
        out = mixed[fold::FOLDS]
        rest = np.setdiff1d(np.arange(len(samples)), out)
        prices = _solve(matrix[rest], [samples[k] for k in rest])
        errors.append(np.abs(np.log(np.maximum(matrix[out] @ prices, 1e-9) / us[out])))
    return np.concatenate(errors)


def stated_error(errors: Array) -> float:
    """Returns the part of an estimate within which `COVERED` of the left-out networks lie."""
    return math.expm1(float(np.quantile(errors, COVERED)))


def _group(kernel: Kernel) -> str:
    match kernel.work:
        case "memory":
            return _moving_group(kernel)
        case "depthwise":
            taps = math.prod(kernel.window)
            return f"{'wide ' if taps > 9 else ''}{'slow ' if taps > 25 else ''}depthwise"
        case work if kernel.groups > 1:
            return "grouped pointwise" if work == "pointwise" else "grouped"
        case "square" | "window":
            return "window"
        case other:
            return other


def _moving_group(kernel: Kernel) -> str:
    """Returns an op's kind, and how its elements lie where that makes it another kernel."""
    result_bytes = math.prod(kernel.result) * DType(kernel.storage).numpy.itemsize
    passes = kernel.moved_bytes / max(result_bytes, 1)
    match kernel.kind:
        case "add" | "mul" if passes < BROADCAST:
            return f"broadcast {kernel.kind}"
        case "quantize" if passes <= 2:
            return "requantize"
        case "transpose" if kernel.operand[-1] != kernel.result[-1]:
            return "transpose of channels"
        case kind:
            return kind


def _macs_by(width: int) -> str:
    return f"{MACS} by {width}"


def _padded(count: float, width: int) -> int:
    return math.ceil(count / width) * width


def _cold(model_bytes: float, size: int) -> float:
    """Returns which part of the weights a cache has lost when the next inference wants them."""
    return min(max(math.log2(max(model_bytes, 1.0) / size) + 0.5, 0.0), 1.0)


def _row(sample: Timed) -> dict[str, float]:
    model_bytes = float(sum(kernel.weight_bytes for kernel in sample.kernels))
    row = Counter({CALL: 1.0})
    for kernel in sample.kernels:
        row.update(terms(kernel, model_bytes))
    return dict(row)


def _matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    return np.array([[row.get(name, 0.0) for name in names] for row in rows])


def _solve(matrix: Array, samples: Sequence[Timed]) -> Array:
    """Returns prices of least error in ratio; what no prices explain counts less and less."""
    from scipy.optimize import nnls

    us = np.array([sample.us for sample in samples])
    # Mixed networks are what estimates are made for: how kernels follow each other shows there.
    trust = np.array([MIXED_COUNTS if sample.mixed else 1.0 for sample in samples])
    weight = trust
    prices = np.zeros(matrix.shape[1])
    for _ in range(REPEATS):
        prices, _ = nnls(matrix * (weight / us)[:, None], weight, maxiter=100 * matrix.shape[1])
        weight = trust / np.sqrt(np.maximum(np.abs(matrix @ prices / us - 1), TRUSTED))
    return prices
