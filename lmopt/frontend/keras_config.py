"""The settings of a Keras layer, read with their types checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.ir.types import Shape

_FLOATS = {"float16", "float32", "float64", "bfloat16", "mixed_float16", "mixed_bfloat16"}


class Config:
    """A layer's settings; whatever is not as wanted is an InputError at `where`."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def fail(self, key: str, wanted: str) -> NoReturn:
        """Raises the InputError about one setting."""
        got = f"{self.raw[key]!r:.80}" if key in self.raw else "nothing"
        raise InputError(
            f"its {key} is {got}; wanted {wanted}",
            where=self.where,
            hint="rebuild the layer with a setting that lmopt reads, or cut the model before it",
        )

    def count(self, key: str, default: int | None = None) -> int:
        """Returns a whole number above 0."""
        value = self.raw.get(key, default)
        if type(value) is not int or value < 1:
            self.fail(key, "a whole number above 0")
        return value

    def pair(self, key: str, default: tuple[int, int] | None = None) -> tuple[int, int]:
        """Returns two whole numbers above 0; one stands for both."""
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        items = [value, value] if type(value) is int else value
        if not isinstance(items, list) or len(items) != 2:
            self.fail(key, "one or two whole numbers above 0")
        if any(type(item) is not int or item < 1 for item in items):
            self.fail(key, "one or two whole numbers above 0")
        return items[0], items[1]

    def flag(self, key: str, default: bool) -> bool:
        """Returns a truth value."""
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """Returns a number."""
        array = self.numbers(key, default)
        if array.size != 1:
            self.fail(key, "one number")
        return float(array.reshape(()))

    def numbers(self, key: str, default: float | None = None) -> NDArray[np.float64]:
        """Returns one or more numbers, whichever way Keras has written the array."""
        value = self.raw.get(key)
        value = default if value is None else value
        for inner in ("config", "value"):
            if isinstance(value, dict):
                value = value.get(inner, value)
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError, OverflowError):
            self.fail(key, "numbers")
        if not np.all(np.abs(array) <= np.finfo(np.float32).max):
            self.fail(key, "numbers that float32 holds")
        return array

    def padding(self) -> Literal["same", "valid"]:
        """Returns the padding of a window."""
        value = self.raw.get("padding", "valid")
        if value not in ("same", "valid"):
            self.fail("padding", "'same' or 'valid'")
        return cast(Literal["same", "valid"], value)

    def shape(self, *keys: str) -> Shape:
        """Returns an input's shape: the batch open, all else known."""
        key = next((k for k in keys if self.raw.get(k) is not None), keys[0])
        value = self.raw.get(key)
        if not isinstance(value, list) or len(value) < 2:
            self.fail(key, "a batch and at least one dimension")
        dims = value[1:]
        if any(type(d) is not int or d < 1 for d in dims):
            self.fail(key, "known dimensions after the batch, as in [null, 112, 112, 3]")
        return (None, *dims)

    def check_layout(self) -> None:
        """Raises InputError unless channels are last and arithmetic is in floats."""
        if self.raw.get("data_format") not in (None, "channels_last"):
            self.fail("data_format", "'channels_last'")
        policy = self.raw.get("dtype")
        if isinstance(policy, dict):
            settings = policy.get("config")
            policy = settings.get("name", "") if isinstance(settings, dict) else ""
        if policy is not None and (not isinstance(policy, str) or policy not in _FLOATS):
            self.fail("dtype", f"one of {', '.join(sorted(_FLOATS))}")
