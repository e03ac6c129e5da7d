"""Units used at the borders of rooms, as types a checker can tell apart."""

from __future__ import annotations

from typing import NewType

Ms = NewType("Ms", float)
Bytes = NewType("Bytes", int)
Percent = NewType("Percent", float)


def human_bytes(size: int) -> str:
    """Returns a byte count in KiB or MiB.

    >>> human_bytes(2048)
    '2.0 KiB'
    >>> human_bytes(1024**2 - 1)
    '1.0 MiB'
    """
    if size < 1024:
        return f"{size} B"
    if round(size / 1024, 1) < 1024:
        return f"{size / 1024:.1f} KiB"
    return f"{size / 1024**2:.1f} MiB"
