"""What rounding does to a tensor: range, clipping and signal-to-noise, over many items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.types import TensorType
from lmopt.quant.grid import range_of


@dataclass
class Distortion:
    """Running sums over a tensor in float and the same tensor in an integer graph.

    Attributes:
        type: The tensor's type in the integer graph, with its grid.
        low, high: Extremes of the float values.
        clipped, count: Float values beyond the grid's range, and all.
        signal: Sum of squares of the float values.
        noise: Sum of squares of what the integer graph differs by.
        rounding: The same for the float values put on the grid, whatever came before.
    """

    type: TensorType
    low: float = math.inf
    high: float = -math.inf
    clipped: int = 0
    count: int = 0
    signal: float = 0.0
    noise: float = 0.0
    rounding: float = 0.0

    def add(self, real: NDArray[np.floating], stored: NDArray[np.floating]) -> None:
        """Takes in float values and what the integer graph has in their place, as real numbers."""
        grid = self.type.quant
        assert grid is not None
        ends = range_of(grid, self.type.dtype)
        exact = np.asarray(real, np.float64)
        rounded = grid.dequantize(grid.quantize(exact, self.type.dtype))
        self.low, self.high = min(self.low, float(exact.min())), max(self.high, float(exact.max()))
        half = grid.scale[0] / 2  # what still rounds to the last step is not cut off
        self.clipped += int(((exact < ends.low - half) | (exact > ends.high + half)).sum())
        self.count += exact.size
        self.signal += float((exact**2).sum())
        self.noise += float(((stored - exact) ** 2).sum())
        self.rounding += float(((rounded - exact) ** 2).sum())

    @property
    def clipped_percent(self) -> float:
        """Returns the share of float values that the grid cuts off."""
        return 100.0 * self.clipped / max(self.count, 1)

    @property
    def snr_db(self) -> float:
        """Returns the signal-to-noise ratio in the integer graph, in decibels."""
        return decibels(self.signal, self.noise)

    @property
    def own_snr_db(self) -> float:
        """Returns that of the tensor's own grid alone."""
        return decibels(self.signal, self.rounding)


def decibels(signal: float, noise: float) -> float:
    """Returns 10 log10 of a ratio of powers; infinite without noise.

    >>> decibels(100.0, 1.0)
    20.0
    """
    if noise == 0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0 else -math.inf
