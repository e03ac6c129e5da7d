"""Range observers: which interval of a tensor's values eight bits should represent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.types import DType, ValueRange
from lmopt.quant.grid import STEPS, activation_grid

PERCENTILE = 99.99
"""Share of values (in percent) the percentile observer keeps, half of the rest cut at each end."""


BINS_PER_STEP = 8
"""Histogram bins per step of the grid in the search for the least squared error."""


@dataclass(frozen=True, eq=False)
class ActivationSample:
    """What is known of a tensor's values.

    Attributes:
        low, high: Exact extremes over everything seen.
        values: An even sample, 1-D.
    """

    low: float
    high: float
    values: NDArray[np.floating]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise GraphError("an activation is not finite; the float model is broken")


def min_max(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the exact extremes."""
    return ValueRange(sample.low, sample.high)


def percentile(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the central `PERCENTILE` of the values."""
    tail = (100.0 - PERCENTILE) / 2.0
    low, high = np.percentile(sample.values, [tail, 100.0 - tail])
    return ValueRange(float(low), float(high))


def mean_squared_error(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the range whose 8-bit grid has the least mean squared error on the sample.

    Both ends shrink together first, then each end alone, over a fixed ladder of factors. The error
    is taken over a histogram of the sample, `BINS_PER_STEP` times finer than the grid.
    """
    low, high = min(sample.low, 0.0), max(sample.high, 0.0)
    if low == high:
        return ValueRange(low, high)
    counts, edges = np.histogram(sample.values, bins=BINS_PER_STEP * STEPS, range=(low, high))
    values = (edges[:-1] + edges[1:]) / 2.0

    def error(low: float, high: float) -> float:
        grid = activation_grid(ValueRange(low, high), storage)
        least, greatest = storage.bounds
        zero, scale = grid.zero_point[0], grid.scale[0]
        stored = np.clip(np.rint(values / scale) + zero, least, greatest)
        return float(counts @ ((stored - zero) * scale - values) ** 2)

    ladder = np.linspace(1.0, 0.4, 31)
    both = min(ladder, key=lambda factor: error(low * factor, high * factor))
    low, high = low * both, high * both
    for _ in range(2):
        low *= min(ladder[:16], key=lambda factor: error(low * factor, high))
        high *= min(ladder[:16], key=lambda factor: error(low, high * factor))
    return ValueRange(float(low), float(high))


OBSERVERS: Mapping[str, Callable[[ActivationSample, DType], ValueRange]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
}
