"""Which channels go for a budget of MACs or of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.channels import ChannelGroup, ChannelMap, slice_channels
from lmopt.ir.graph import Graph
from lmopt_passes.scale_width import aligned

Array = NDArray[np.float64]
Keep = Mapping[str, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Price:
    """What a graph costs, by its shapes.

    Attributes:
        of: MACs, or milliseconds.
        least: That a channel counts as costing at least.
        shown: A cost in words.
        step: Channels whose removal shows what one of a layer costs: kernels compute several at a
            time.
        rounds: How often that is found out anew, since layers get cheaper as their neighbours
            shrink.
    """

    of: Callable[[Graph], float]
    least: float
    shown: Callable[[float], str]
    step: int = 1
    rounds: int = 1


@dataclass(frozen=True, eq=False)
class Budget:
    """The channels that may go, and what may be spent on those that stay.

    Attributes:
        shapes: The graph; it needs no weights.
        channels: Of the graph.
        groups: Those of them that may lose channels, at least one.
        price: What counts.
        min_channels: Channels that every layer keeps.
        align: Layers keep a multiple of it, or all their channels.
    """

    shapes: Graph
    channels: ChannelMap
    groups: Sequence[ChannelGroup]
    price: Price
    min_channels: int
    align: int

    def cost(self, keep: Keep) -> float:
        """Returns the price of the graph with these channels."""
        return self.price.of(slice_channels(self.shapes, keep, self.channels))

    @property
    def least(self) -> float:
        """Returns the price of the graph with as few channels as it may have."""
        order = np.concatenate([self._places(index) for index in range(len(self.groups))])
        return self.cost(self._keep(order, len(order)))

    def spend(self, importance: Sequence[Array], amount: float) -> dict[str, list[int]]:
        """Returns the positions that each group keeps when the price shrinks by `amount`, 0 to 1.

        Channels go by their importance over the square root of what they cost: importance is a
        norm, its square a harm, and harm over cost is what a knapsack goes by.

        Args:
            importance: Of each channel of each group; `least` is within the price wanted.
            amount: Part of the price.

        Source: the table of costs and its renewal as in Yang et al., "NetAdapt", 2018
            (arXiv:1804.03230), sections 3.2 and 3.3.
        """
        whole = self.cost({})
        keep: dict[str, list[int]] = {}
        for number in range(1, self.price.rounds + 1):
            wanted = whole * (1 - amount) ** (number / self.price.rounds)
            keep = self._within(wanted, self._order(importance, keep))
        return keep

    def _within(self, wanted: float, order: NDArray[np.int64]) -> dict[str, list[int]]:
        low, high = 0, len(order)
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.cost(self._keep(order, middle)) <= wanted
            low, high = (low, middle) if fits else (middle, high)
        return self._keep(order, high)

    def _order(self, importance: Sequence[Array], keep: Keep) -> NDArray[np.int64]:
        """Returns (group index, position) of every channel, least important for its cost first."""
        present = self.cost(keep)
        scores = [
            norms / math.sqrt(self._saved(group, keep, present))
            for group, norms in zip(self.groups, importance, strict=True)
        ]
        places = np.concatenate([self._places(index) for index in range(len(self.groups))])
        return places[np.argsort(np.concatenate(scores), kind="stable")]

    def _places(self, index: int) -> NDArray[np.int64]:
        size = self.groups[index].size
        return np.stack([np.full(size, index), np.arange(size)], axis=1)

    def _saved(self, group: ChannelGroup, keep: Keep, present: float) -> float:
        """Returns what one channel of a group costs, at the present width of all groups."""
        size, step = len(keep.get(group.id, group.channels)), self.price.step
        other = size - step if size > step else size + step
        if other > group.size:  # all its channels are needed
            return self.price.least
        change = self.cost({**keep, group.id: range(other)}) - present
        return max(change / (other - size), self.price.least)

    def _keep(self, order: NDArray[np.int64], removed: int) -> dict[str, list[int]]:
        keep: dict[str, list[int]] = {}
        for index, group in enumerate(self.groups):
            # Most important last; the end of the ranking always stays, whatever `removed` says.
            mine = order[order[:, 0] == index, 1]
            gone = int((order[:removed, 0] == index).sum())
            count = max(group.size - gone, min(self.min_channels, group.size))
            kept = mine[group.size - aligned(count, self.align, group.size) :]
            keep[group.id] = sorted(kept.tolist())
        return keep
