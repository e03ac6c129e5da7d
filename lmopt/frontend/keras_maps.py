"""Keras layers that join, pool, reshape, pad and cut, as IR nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lmopt.frontend.keras_index import WANTED, Index, Item
from lmopt.frontend.keras_site import Converter, Site
from lmopt.frontend.slicing import known_dims, slice_of
from lmopt.ir import ops
from lmopt.ir.graph import Value


def concatenate(site: Site) -> Value:
    """Converts Concatenate."""
    values = [value for value in site.operands if isinstance(value, Value)]
    axis = site.config.raw.get("axis", -1)
    if type(axis) is not int:
        site.config.fail("axis", "a whole number")
    return site.add(ops.Concat(axis), *values)


def pool(make: Callable[[Any, Any, Any], ops.Op]) -> Converter:
    """Returns the converter of MaxPooling2D or AveragePooling2D."""

    def convert(site: Site) -> Value:
        size = site.config.pair("pool_size", (2, 2))
        op = make(size, site.config.pair("strides", size), site.config.padding())
        return site.add(op, site.x)

    return convert


def global_average(site: Site) -> Value:
    """Converts GlobalAveragePooling2D."""
    return site.add(ops.Mean(site.config.flag("keepdims", False)), site.x)


def global_max(site: Site) -> Value:
    """Converts GlobalMaxPooling2D to a window as large as the map."""
    height, width = site.type(site.x).shape[1:3]
    size = (height or 1, width or 1)
    op = ops.MaxPool2D(size, size)
    if site.config.flag("keepdims", False):
        return site.add(op, site.x)
    return site.add(ops.Reshape((-1,)), site.add(op, site.x, part="largest"))


def flatten(site: Site) -> Value:
    """Converts Flatten."""
    return site.add(ops.Reshape((-1,)), site.x)


def reshape(site: Site) -> Value:
    """Converts Reshape."""
    shape = site.config.raw.get("target_shape")
    if not isinstance(shape, list) or any(type(d) is not int or d < -1 or d == 0 for d in shape):
        site.config.fail("target_shape", "whole numbers above 0, or -1")
    return site.add(ops.Reshape(tuple(shape)), site.x)


def permute(site: Site) -> Value:
    """Converts Permute, whose dimensions count from 1 behind the batch."""
    dims = site.config.raw.get("dims")
    rank = site.type(site.x).rank
    if not isinstance(dims, list) or sorted(map(str, dims)) != sorted(map(str, range(1, rank))):
        site.config.fail("dims", f"1 to {rank - 1} in some order")
    return site.add(ops.Transpose((0, *dims)), site.x)


def zero_padding(site: Site) -> Value:
    """Converts ZeroPadding2D."""
    return site.add(ops.Pad(*_borders(site, "padding")), site.x)


def pad(site: Site) -> Value:
    """Converts Pad, the function of Keras 3, of height and width."""
    mode, widths = site.config.raw.get("mode", "constant"), site.config.raw.get("pad_width")
    if not isinstance(widths, list) or len(widths) != 4 or [widths[0], widths[3]] != [[0, 0]] * 2:
        site.config.fail("pad_width", "[[0, 0], [top, bottom], [left, right], [0, 0]]")
    (top, bottom), (left, right) = (_two(site, "pad_width", pair) for pair in widths[1:3])
    if any(type(d) is not int or d < 0 for d in (top, bottom, left, right)):
        site.config.fail("pad_width", "whole numbers")
    if mode == "constant":
        return site.add(ops.Pad(top, bottom, left, right), site.x)
    if mode not in ("reflect", "symmetric"):
        site.config.fail("mode", "'constant', 'reflect' or 'symmetric'")
    return site.add(ops.MirrorPad(top, bottom, left, right, mode), site.x)


def cropping(site: Site) -> Value:
    """Converts Cropping2D."""
    top, bottom, left, right = _borders(site, "cropping")
    height, width = site.type(site.x).shape[1:3]
    size = (
        (height or 0) - top - bottom if bottom else -1,
        (width or 0) - left - right if right else -1,
        -1,
    )
    if 0 in size or min(size) < -1:
        site.config.fail("cropping", "less than the map")
    return site.add(ops.Slice((top, left, 0), size, (1, 1, 1)), site.x)


def get_item(site: Site) -> Value:
    """Converts `x[...]` to a slice, and to a reshape behind it where numbers drop dimensions."""
    if len(site.operands) != 2:
        raise site.error(f"it is called with {len(site.operands)} operands; wanted x[...]")
    x, index = site.operands
    if not isinstance(x, Value) or not isinstance(index, Index):
        raise site.error(f"it takes {index} of {x}; wanted {WANTED}")
    shape = site.type(x).shape
    batch, *items = index.spread(len(shape))
    if not _is_whole(batch) or len(items) != len(shape) - 1:
        raise site.error(f"it takes {index} of {list(shape)}; wanted {WANTED}")
    pieces = [
        _piece(site, index, item, dim)
        for item, dim in zip(items, known_dims(shape[1:]), strict=True)
    ]
    op = slice_of(pieces, shape[1:])
    kept = tuple(len(p) for p, item in zip(pieces, items, strict=True) if isinstance(item, slice))
    if len(kept) == len(items):
        return site.add(op, x)
    return site.add(ops.Reshape(kept), site.add(op, x, part="part"))


def _is_whole(item: Item) -> bool:
    if not isinstance(item, slice):
        return False
    return item.start in (None, 0) and item.stop is None and item.step in (None, 1)


def _piece(site: Site, index: Index, item: Item, dim: int) -> range:
    if isinstance(item, slice) and (item.step is None or item.step > 0):
        return range(*item.indices(dim))
    if isinstance(item, int) and -dim <= item < dim:
        return range(item % dim, item % dim + 1)
    raise site.error(f"it takes {index}; wanted {WANTED}")


def _borders(site: Site, key: str) -> tuple[int, int, int, int]:
    """Returns rows at top and bottom, columns at left and right."""
    value = site.config.raw.get(key, 1)
    rows, columns = (value, value) if type(value) is int else _two(site, key, value)
    top, bottom = (rows, rows) if type(rows) is int else _two(site, key, rows)
    left, right = (columns, columns) if type(columns) is int else _two(site, key, columns)
    if any(type(d) is not int or d < 0 for d in (top, bottom, left, right)):
        site.config.fail(key, "whole numbers")
    return top, bottom, left, right


def _two(site: Site, key: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) != 2:
        site.config.fail(key, "a number, two of them or two pairs")
    return value
