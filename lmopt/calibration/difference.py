"""How far the values of a quantized file are from those of its float file, on faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.calibration.observe import values_on_crops
from lmopt.detector.contract import Contract
from lmopt.ir.graph import Graph, Value
from lmopt.quant.transfer import Moments

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """The error of one value over faces: quantized minus float.

    Attributes:
        largest: Of any element of any face, without sign.
        rms: Root of the mean square over elements and faces.
        squares: Mean square over faces, per element.
        float_moments: How the float value is spread.
    """

    largest: float
    rms: float
    squares: Floats
    float_moments: Moments


class _Sums:
    def __init__(self) -> None:
        self.count = 0
        self.largest = 0.0
        self.totals: list[Floats] = [np.zeros(())] * 4

    def add(self, found: NDArray[np.floating], wanted: NDArray[np.floating]) -> None:
        f = wanted.astype(np.float64)
        error = found - f
        self.count += len(f)
        self.largest = max(self.largest, float(np.abs(error).max(initial=0.0)))
        parts = (error**2, f, f**2, np.asarray(f > 0, np.float64))
        self.totals = [old + new.sum(axis=0) for old, new in zip(self.totals, parts, strict=True)]

    def done(self) -> Measured:
        squares, mean, power, positive = (total[None] / self.count for total in self.totals)
        spread = Moments(mean, np.maximum(power - mean**2, 0), positive)
        return Measured(self.largest, float(np.sqrt(squares.mean())), squares, spread)


def measured_differences(
    reference: Graph,
    quantized: Graph,
    twins: Mapping[Value, Value],
    pixels: NDArray[np.uint8],
    contract: Contract,
    *,
    threads: int = 2,
) -> dict[Value, Measured]:
    """Returns the error of values of the quantized file, by the kernels that run by default.

    Args:
        reference: Float.
        quantized: Integer or mixed.
        twins: Values of the quantized graph with those of the float graph they stand for; inputs
            and constants are left out.
        pixels: Crops.
        contract: How crops are fed.
        threads: Of the runtime.
    """
    pairs = {
        value: twin
        for value, twin in twins.items()
        if quantized.producer(value).op.kind not in ("input", "constant")
        and reference.producer(twin).op.kind not in ("input", "constant")
    }
    sums = {value: _Sums() for value in pairs}
    wanted = list(dict.fromkeys(pairs.values()))
    runs = zip(
        values_on_crops(quantized, list(pairs), pixels, contract, threads=threads),
        values_on_crops(reference, wanted, pixels, contract, threads=threads),
        strict=True,
    )
    for found, reals in runs:
        floats = dict(zip(wanted, reals, strict=True))
        for (value, twin), array in zip(pairs.items(), found, strict=True):
            sums[value].add(array, floats[twin])
    return {value: held.done() for value, held in sums.items()}
