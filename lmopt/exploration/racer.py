"""What is known of the candidates of a search, and who of them beats whom beyond noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SURE = 2.0
"""Standard errors from which on a difference counts."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, eq=False)
class Racer:
    """What is known of one candidate.

    Attributes:
        number: In the order of asking.
        ms: Latency and its 95 % interval, relative to the baseline's: 0.5 is twice as fast.
        errors: NME in percent of each validation face, after no training and after each fidelity.
        macs, parameters: Of its graph.
        dropped: Whether it is not to be trained on.
        training: Those with the same are trained once for all of them; its own by default.
        parent: Number and fidelity of the one whose weights it began with, if any.
        more: What else is to be small, after its last training, relative to the baseline's.
    """

    number: int
    ms: Interval
    errors: tuple[NDArray[np.float64], ...]
    macs: int
    parameters: int
    dropped: bool = False
    training: str | None = None
    parent: tuple[int, int] | None = None
    more: tuple[float, ...] = ()

    @property
    def fidelity(self) -> int:
        """Returns up to where it was trained; 0 is not at all."""
        return len(self.errors) - 1

    def nme(self, fidelity: int) -> float:
        """Returns the NME in percent after a fidelity."""
        return float(self.errors[fidelity].mean())


def beats(left: Racer, right: Racer, fidelity: int) -> bool:
    """Returns whether `left` dominates `right` beyond the noise of both, at one fidelity.

    The NME are compared face by face; latencies differ where their intervals are apart.
    """
    if not is_faster(left, right):
        return False
    worse = right.errors[fidelity] - left.errors[fidelity]
    return float(worse.mean()) > SURE * standard_error(worse)


def is_faster(left: Racer, right: Racer) -> bool:
    """Returns whether `left` is faster, and nothing else about it is larger but for its NME."""
    pairs = zip(left.more, right.more, strict=True)
    return left.ms.high < right.ms.low and all(own <= other for own, other in pairs)


def is_beaten(racer: Racer, racers: Sequence[Racer]) -> bool:
    """Returns whether anyone that was trained as long beats it, at the longest fidelity it has."""
    last = racer.fidelity
    return last > 0 and any(beats(other, racer, last) for other in racers if other.fidelity >= last)


def standard_error(values: NDArray[np.float64]) -> float:
    """Returns the standard error of the mean; that of a single value is infinite."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
