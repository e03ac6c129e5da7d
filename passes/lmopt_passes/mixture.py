"""Which storage every part of a graph has: the fastest mixture that loses no more than allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from lmopt.ir.types import DType

Mixture = tuple[DType, ...]
"""A storage for each part."""


@dataclass(frozen=True)
class MixtureSearch:
    """Seeks the fastest mixture of storages.

    What parts cost alone adds up to what they cost together, times one factor: small independent
    moves of a landmark add in their squares, and so does what they cost. So mixtures are sought by
    sums, and only those found are made and looked at. Measured on pfld-0.25@300w (int8 and uint8,
    12 random sets of 16 parts): what a set costs is 0.75 to 0.98 times the sum.

    Sixteen bits are looked at only where they are faster than float32, which loses nothing.

    Attributes:
        storages: What a part may have, the most precise last: float32.
        parts: How many.
        alone: Expected loss when a part alone is not float32; infinite where there is no time to
            find out.
        loss: Expected loss of a mixture.
        cost: Time of a mixture, or what stands for it.
        limit: Points that may be lost.
        in_time: Returns whether more than one mixture may still be looked at.
    """

    storages: tuple[DType, ...]
    parts: int
    alone: Callable[[int, DType], float]
    loss: Callable[[Mixture], float]
    cost: Callable[[Mixture], float]
    limit: float
    in_time: Callable[[], bool] = lambda: True

    def best(self) -> Mixture:
        """Returns the fastest mixture found whose loss is within the limit.

        When the time is over, what was not looked at alone stays in float32, and the sums decide.
        """
        here = self._faster((self.storages[0],) * self.parts)
        self._look(here)
        budget = self._sum(here)
        while self.in_time() and not self._is_within(here):
            budget = min(budget, self._sum(here)) * self.limit / self.loss(here)
            found = self._within(budget)
            if self._sum(found) >= self._sum(here):
                found = self._faster(self._raised(here))
            here = found
        if self._sum(here) < math.inf and self._is_within(here):
            return here
        here = self._within(self.limit)
        while not self._is_within(here):
            here = self._faster(self._raised(here))
        return here

    def _look(self, start: Mixture) -> None:
        """Finds out what parts lose alone, those first that save most time."""
        real = (DType.F32,) * self.parts
        narrow = [k for k in range(self.parts) if start[k] is not DType.F32]
        for k in sorted(narrow, key=lambda k: self.cost(_with(real, k, start[k]))):
            self.alone(k, start[k])

    def _is_within(self, mixture: Mixture) -> bool:
        return set(mixture) <= {DType.F32} or self.loss(mixture) <= self.limit

    def _sum(self, mixture: Mixture) -> float:
        return sum(self._lost(k, storage) for k, storage in enumerate(mixture))

    def _lost(self, part: int, storage: DType) -> float:
        return 0.0 if storage is DType.F32 else self.alone(part, storage)

    def _within(self, budget: float) -> Mixture:
        """Returns a fast mixture whose parts lose at most `budget`, one by one."""
        here = self._faster((self.storages[0],) * self.parts)
        while self._sum(here) > budget and set(here) != {DType.F32}:
            here = self._faster(self._raised(here))
        saved = {move: self.cost(here) - self.cost(_with(here, *move)) for move in self._down(here)}
        for move in sorted(saved, key=saved.__getitem__, reverse=True):
            found = _with(here, *move)
            if self.cost(found) < self.cost(here) and self._sum(found) <= budget:
                here = found
        return here

    def _raised(self, here: Mixture) -> Mixture:
        """Returns the mixture with the part more precise that loses most per time it then costs."""
        now = self.cost(here)
        least = 1e-6 * max(now, 1e-9)

        def gain(move: tuple[int, DType]) -> float:
            part, storage = move
            left = self._lost(part, storage)
            if left == math.inf:
                return -math.inf
            return (self._lost(part, here[part]) - left) / max(
                self.cost(_with(here, *move)) - now, least
            )

        return _with(here, *max(self._up(here), key=gain))

    def _faster(self, here: Mixture) -> Mixture:
        """Returns the mixture with parts more precise while that saves time."""
        while True:
            more = [_with(here, *move) for move in self._up(here)]
            best = min(more, key=self.cost, default=here)
            if self.cost(best) >= self.cost(here):
                return here
            here = best

    def _up(self, here: Mixture) -> Iterator[tuple[int, DType]]:
        for k, storage in enumerate(here):
            for other in self.storages[self.storages.index(storage) + 1 :]:
                if other is DType.F32 or self._pays(here, k, other):
                    yield k, other

    def _down(self, here: Mixture) -> Iterator[tuple[int, DType]]:
        for k, storage in enumerate(here):
            for other in self.storages[: self.storages.index(storage)]:
                if other is self.storages[0] or self._pays(here, k, other):
                    yield k, other

    @cached_property
    def _hopeful(self) -> frozenset[int]:
        """Returns the parts that are faster than float32 in 16 bits when all others have 16."""
        wide = (DType.I16,) * self.parts
        return frozenset(k for k in range(self.parts) if self._is_faster(wide, k, DType.I16))

    def _pays(self, here: Mixture, part: int, storage: DType) -> bool:
        return part in self._hopeful and self._is_faster(here, part, storage)

    def _is_faster(self, here: Mixture, part: int, storage: DType) -> bool:
        return self.cost(_with(here, part, storage)) < self.cost(_with(here, part, DType.F32))


def _with(mixture: Mixture, part: int, storage: DType) -> Mixture:
    return (*mixture[:part], storage, *mixture[part + 1 :])
