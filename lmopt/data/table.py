"""Tables as people and tools write them: byte-order marks, comments, any separator, lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError


def content_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines that say something: not blank, no comment (#).

    Raises:
        InputError: The file cannot be read as UTF-8.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield number, text
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the table cannot be read: {error}", where=str(file), hint="wanted text in UTF-8"
        ) from error


def first_lines(file: Path, count: int) -> list[str]:
    """Returns the first lines that say something, none of a file that is no text."""
    try:
        return [text for _, text in islice(content_lines(file), count)]
    except InputError:
        return []


class CsvRows:
    """Yields the rows of a CSV file that say something; the separator is that of the first one."""

    def __init__(self, file: TextIO) -> None:
        start = file.tell()
        first = next((line for line in file if line.strip() and not line.startswith("#")), "")
        file.seek(start)
        self._rows = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
        self._width = 0

    @property
    def line_num(self) -> int:
        """Returns the number of the line that was read last, 1 before any was."""
        return max(self._rows.line_num, 1)

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        cells = next(cells for cells in self._rows if not self._says_nothing(cells))
        self._width = self._width or len(cells)
        return cells

    def _says_nothing(self, cells: Sequence[str]) -> bool:
        if not any(cell.strip() for cell in cells):
            return True
        # A whole row that begins with # is a picture of such a name.
        return cells[0].startswith("#") and len(cells) != self._width


def numbers(texts: Sequence[str], where: str) -> NDArray[np.float64]:
    """Returns texts as numbers, or raises InputError that names the first that is none."""
    for text in texts:
        if not is_number(text):
            raise InputError(
                f"'{text.strip()}', wanted a number", where=where, hint="correct or remove the row"
            )
    return np.array([float(text) for text in texts])


def is_number(text: str) -> bool:
    """Returns whether a text is a number, NaN included."""
    try:
        float(text)
    except ValueError:
        return False
    return True
