"""Reader of tables that hold the pictures: coordinates, then all gray pixels in the last cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face, assign_split
from lmopt.data.readers.row import Row, is_test, row, tables
from lmopt.data.table import is_number, numbers
from lmopt.errors import InputError

LAYOUT = (
    "a .csv of coordinates x0,y0,x1,y1,... and, in the last cell, the gray pixels of a square "
    "picture (96x96) separated by spaces"
)
_BOM = b"\xef\xbb\xbf"
_FEWEST = 64
"""Pixels from which a cell is taken for a picture."""


@dataclass(frozen=True)
class CellPicture:
    """A picture in a cell of a table, read when it is asked for.

    Attributes:
        table: The file.
        line: The row, counted from 1.
        offset, length: The cell's bytes in the file.
    """

    table: Path
    line: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        """The file name the picture would have."""
        return f"{self.table.stem}-{self.line}.pgm"

    def read_bytes(self) -> bytes:
        """Returns the picture as a PGM file; raises OSError where the cell holds none."""
        with self.table.open("rb") as file:
            file.seek(self.offset)
            pixels = _pixels(file.read(self.length))
        if isinstance(pixels, str):
            raise OSError(f"the cell holds {pixels}")
        return b"P5 %d %d 255\n" % pixels.shape[::-1] + pixels.tobytes()

    def __str__(self) -> str:
        return f"{self.table}:{self.line}"


def fits(place: Path) -> bool:
    """Returns whether a file is such a table, or a folder holds one."""
    if place.is_dir():
        return bool(tables(place, (".csv",), fits))
    if place.suffix.lower() != ".csv":
        return False
    rows = (cells for _, _, cells in islice(_rows(place), 2))
    return any(len(c) > 2 and isinstance(_pixels(c[-1]), np.ndarray) for c in rows)


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of a table, or of those in a folder, row by row; a header is passed over.

    Coordinates are pixels counted from 0. A table with `test` in its name holds test faces.
    """
    for table in tables(place, (".csv",), fits):
        for index, (line, offset, cells) in enumerate(_rows(table)):
            if index or any(is_number(_text(cell)) for cell in cells[:-1]):
                yield row(_face, table, line, offset, cells, source)


def _text(cell: bytes) -> str:
    return cell.decode(errors="replace").strip(' "')


def _rows(table: Path) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yields line, offset of the last cell, and the cells of every row that is not blank."""
    try:
        with table.open("rb") as file:
            offset = 0
            for line, text in enumerate(file, 1):
                start = len(_BOM) if line == 1 and text.startswith(_BOM) else 0
                kept = text[start:].rstrip()
                if kept and not kept.startswith(b"#"):
                    before = kept.rfind(b",") + 1
                    yield line, offset + start + before, kept.split(b",")
                offset += len(text)
    except OSError as error:
        raise InputError(f"the table cannot be read: {error}", where=str(table)) from error


def _pixels(cell: bytes) -> NDArray[np.uint8] | str:
    """Returns the square picture in a cell, or what the cell holds instead."""
    texts = cell.strip(b' "').split()
    side = math.isqrt(len(texts))
    if side * side != len(texts) or len(texts) < _FEWEST:
        return f"{len(texts)} pixels, wanted a square (9216 for 96x96)"
    try:
        values = np.array(texts, np.float64)
    except ValueError:
        return "pixels that are no numbers"
    if not ((values >= 0) & (values <= 255) & (values == values.round())).all():
        return "pixels that are not whole numbers from 0 to 255"
    return values.astype(np.uint8).reshape(side, side)


def _face(table: Path, line: int, offset: int, cells: list[bytes], source: str) -> Face:
    where = f"{table}:{line}"
    texts = [_text(cell) for cell in cells[:-1]]
    hint = "correct or remove the row"
    if not texts or len(texts) % 2:
        raise InputError(
            f"{len(texts)} coordinates, wanted x and y of each landmark", where=where, hint=hint
        )
    # An empty cell is a landmark that nobody marked.
    values = numbers([text or "nan" for text in texts], where)
    pixels = _pixels(cells[-1])
    if isinstance(pixels, str):
        raise InputError(f"the last cell holds {pixels}", where=where, hint=hint)
    name = f"{table.stem}:{line}"
    return Face(
        id=f"{source}/{name}",
        source=source,
        image=CellPicture(table, line, offset, len(cells[-1])),
        landmarks=values.reshape(-1, 2),
        box=None,
        group=name,
        split=assign_split(is_test(table), source, name),
        where=where,
    )
