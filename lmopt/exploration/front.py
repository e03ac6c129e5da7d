"""Pareto fronts of minimised objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

T = TypeVar("T")


@dataclass(frozen=True)
class Front(Generic[T]):
    """The points no other point beats in every objective, ordered by the last objective.

    Attributes:
        points: The front, fastest first.
        dominated: Every other point with the front point that dominates it.
    """

    points: tuple[T, ...]
    dominated: tuple[tuple[T, T], ...]

    @classmethod
    def of(cls, points: Iterable[T], objectives: Callable[[T], Sequence[float]]) -> Front[T]:
        """Returns the front of `points`; of points with equal objectives the first one stays."""
        rows = [(point, tuple(objectives(point))) for point in points]
        front: list[tuple[T, tuple[float, ...]]] = []
        beaten: list[tuple[T, tuple[float, ...]]] = []
        for position, (point, values) in enumerate(rows):
            if any(
                _dominates(other, values) or (other == values and k < position)
                for k, (_, other) in enumerate(rows)
            ):
                beaten.append((point, values))
            else:
                front.append((point, values))
        front.sort(key=lambda row: tuple(reversed(row[1])))
        pairs = tuple(
            (point, next(p for p, v in front if v == values or _dominates(v, values)))
            for point, values in beaten
        )
        return cls(tuple(point for point, _ in front), pairs)


def _dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True)) and tuple(left) != tuple(right)


def hypervolume(points: Iterable[ArrayLike], reference: Sequence[float]) -> float:
    """Returns the volume between a front and a reference point, all objectives minimised."""
    import moocore

    rows = np.array(list(points), np.float64)
    return float(moocore.hypervolume(rows, ref=reference)) if len(rows) else 0.0
