"""What stands in the brackets of `x[...]`, as Keras 2 and Keras 3 write it."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from lmopt.errors import InputError

Item = slice | int | EllipsisType | None

WANTED = "slices with steps above 0 and whole numbers, the batch whole, as in x[:, ::2, 1:-1, :16]"
"""What lmopt reads of an index, for messages."""


@dataclass(frozen=True)
class Index:
    """What stands in the brackets of `x[...]`.

    Attributes:
        items: One for each dimension, or an ellipsis for several; None adds one.
    """

    items: tuple[Item, ...]

    def __str__(self) -> str:
        return f"[{', '.join(map(_text, self.items))}]"

    def spread(self, rank: int) -> tuple[Item, ...]:
        """Returns the items with whole slices for the dimensions that none of them names."""
        at = self.items.index(...) if ... in self.items else len(self.items)
        before, behind = self.items[:at], self.items[at + 1 :]
        return (*before, *[slice(None)] * (rank - len(before) - len(behind)), *behind)


def read_index(raw: Any, where: str) -> Index:
    """Returns the index that a file holds, or raises InputError about the layer at `where`."""
    items = raw if isinstance(raw, list) else [raw]
    return Index(tuple(_item(item, where) for item in items))


def _item(raw: Any, where: str) -> Item:
    if raw is None or type(raw) is int:
        return raw
    if isinstance(raw, dict) and raw.get("class_name") == "__ellipsis__":
        return ...
    ends = raw.get("config", raw) if isinstance(raw, dict) else None
    if isinstance(ends, dict) and set(ends) == {"start", "stop", "step"}:
        numbers = [ends[key] for key in ("start", "stop", "step")]
        if all(number is None or type(number) is int for number in numbers):
            return slice(*numbers)
    raise InputError(
        f"its index holds {raw!r:.80}; wanted {WANTED}",
        where=where,
        hint="write it in another way, or cut the model before this layer",
    )


def _text(item: Item) -> str:
    if isinstance(item, slice):
        ends = [item.start, item.stop] + ([] if item.step is None else [item.step])
        return ":".join("" if end is None else str(end) for end in ends)
    if item is None:
        return "newaxis"
    return "..." if item is ... else str(item)
