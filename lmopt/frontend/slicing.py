"""Python's ranges as the IR's slices."""

from __future__ import annotations

from collections.abc import Sequence

from lmopt.errors import GraphError
from lmopt.ir import ops


def slice_of(pieces: Sequence[range], dims: Sequence[int | None]) -> ops.Slice:
    """Returns the slice that takes `pieces` of the dimensions after the batch.

    Raises:
        GraphError: A piece is empty, or a dimension unknown.
    """
    if any(len(piece) == 0 for piece in pieces):
        raise GraphError("it takes nothing")
    size = tuple(
        -1 if len(piece) == -(-(dim - piece.start) // piece.step) else len(piece)
        for piece, dim in zip(pieces, known_dims(dims), strict=True)
    )
    return ops.Slice(tuple(p.start for p in pieces), size, tuple(p.step for p in pieces))


def known_dims(dims: Sequence[int | None]) -> tuple[int, ...]:
    """Returns the dimensions, or raises GraphError when one is unknown."""
    known = tuple(d for d in dims if d is not None)
    if len(known) != len(dims):
        raise GraphError(f"its operand has the open shape {list(dims)}")
    return known
