"""Range observers: which interval of a tensor's values its storage should represent."""

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

HEADROOM = 4.0
"""How far the grid of 16 bits reaches beyond the extremes: it has steps to spare.

A face unlike those of calibration is not cut off then. Measured on pfld-1.0@300w (193 validation
faces): the loss to be expected falls from 0.0166 points to 0.0022, with 2 and 4 alike; that of
pfld-0.25@300w stays at 0.0025.
"""

BINS = 8 * STEPS
"""Histogram bins in the search for the least loss: eight per step of an 8-bit grid.

Of 16 bits they show what clipping costs; what rounding costs is too little to count.
"""


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
    """Returns the exact extremes; of 16 bits `HEADROOM` times as far."""
    more = HEADROOM if storage is DType.I16 else 1.0
    return ValueRange(sample.low * more, sample.high * more)


def percentile(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the central `PERCENTILE` of the values."""
    tail = (100.0 - PERCENTILE) / 2.0
    low, high = np.percentile(sample.values, [tail, 100.0 - tail])
    return ValueRange(float(low), float(high))


def mean_squared_error(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the range whose grid has the least mean squared error on the sample."""
    return _least(sample, storage, _squared_error)


def rounding_error(found: ValueRange, sample: ActivationSample, storage: DType) -> float:
    """Returns the mean squared error of a sample on the 8-bit grid of a range."""
    grid = activation_grid(found, storage)
    real = grid.dequantize(grid.quantize(sample.values, storage))
    return float(np.mean((real - sample.values) ** 2))


def kl_divergence(sample: ActivationSample, storage: DType) -> ValueRange:
    """Returns the range whose grid keeps the distribution of the sample best.

    What a step of the grid holds is spread evenly over those of its histogram bins that hold
    anything; the Kullback-Leibler divergence of the histogram from that is made least. What is cut
    off is added to the outermost bins of the histogram, but not to what is spread.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, entropy calibration, with two ends.
    """
    return _least(sample, storage, _divergence)


_Loss = Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], float], float]
"""Of a histogram: its counts, its bins' centres, the step each falls on, the grid's scale."""


def _squared_error(
    counts: NDArray[np.int64],
    centres: NDArray[np.float64],
    steps: NDArray[np.float64],
    scale: float,
) -> float:
    return float(counts @ (steps * scale - centres) ** 2)


def _divergence(
    counts: NDArray[np.int64],
    centres: NDArray[np.float64],
    steps: NDArray[np.float64],
    scale: float,
) -> float:
    inside = np.flatnonzero(np.abs(steps * scale - centres) <= scale / 2 * (1 + 1e-9))
    first, last = inside[0], inside[-1] + 1
    kept, step = counts[first:last], (steps[first:last] - steps[first]).astype(np.int64)
    held = kept > 0
    spread = (np.bincount(step, kept) / np.maximum(np.bincount(step, held), 1))[step] * held
    kept = kept.astype(np.float64)
    kept[0] += counts[:first].sum()
    kept[-1] += counts[last:].sum()
    held = kept > 0
    wanted, got = kept[held] / kept.sum(), spread[held] / spread.sum()
    least = 0.1 / counts.sum()  # a bin that only holds what was cut off: less than one value
    return float(wanted @ np.log(wanted / np.maximum(got, least)))


def _least(sample: ActivationSample, storage: DType, loss: _Loss) -> ValueRange:
    """Returns the range with the least loss.

    Both ends shrink together first, then each end alone, over a fixed ladder of factors. The loss
    is that of a histogram of the sample.
    """
    low, high = min(sample.low, 0.0), max(sample.high, 0.0)
    if low == high:
        return ValueRange(low, high)
    counts, edges = np.histogram(sample.values, bins=BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2.0

    def error(low: float, high: float) -> float:
        grid = activation_grid(ValueRange(low, high), storage)
        least, greatest = storage.bounds
        zero, scale = grid.zero_point[0], grid.scale[0]
        steps = np.clip(np.rint(centres / scale) + zero, least, greatest) - zero
        return loss(counts, centres, steps, scale)

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
    "kl": kl_divergence,
}
