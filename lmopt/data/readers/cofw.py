"""Reader of tables like COFW's: a picture, then 29 landmarks, with occlusion and box or without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Box, Face, assign_split
from lmopt.data.readers.row import FaceNames, Row, find_picture, is_test, row, tables
from lmopt.data.table import content_lines, first_lines, is_number, numbers
from lmopt.detector.scheme import COFW_29
from lmopt.errors import InputError

_COUNT, _BOX = COFW_29.count, 4
_SIZES = tuple(points * _COUNT + box for points in (3, 2) for box in (_BOX, 0))
LAYOUT = (
    "a .csv or .txt like COFW's phis: picture, 29 x, 29 y and, where known, 29 flags of occlusion "
    "and a box (x, y, width, height)"
)
_SUFFIXES = (".csv", ".txt")


def fits(place: Path) -> bool:
    """Returns whether a file is such a table, or a folder holds one."""
    if place.is_dir():
        return bool(tables(place, _SUFFIXES, fits))
    if place.suffix.lower() not in _SUFFIXES:
        return False
    return any(len(_cells(text)) - 1 in _SIZES for text in first_lines(place, 2))


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of a table, or of those in a folder, row by row; a header is passed over.

    Values are separated by commas, tabs or spaces. Coordinates count from 1 (MATLAB), so 1 is
    subtracted. The label `occlusion` says whether any landmark is hidden. A table with `test` in
    its name holds test faces.
    """
    names = FaceNames()
    for table in tables(place, _SUFFIXES, fits):
        for index, (line, text) in enumerate(content_lines(table)):
            if index or not _is_header(text):
                yield row(_face, table, line, _cells(text), source, names)


def _is_header(text: str) -> bool:
    return not any(map(is_number, re.split(r"[,;\s]+", text)))


def _cells(text: str) -> list[str]:
    """Returns a row's picture, whose name may hold separators, and the numbers after it."""
    separator = next((s for s in (",", "\t", ";") if s in text), None)
    cells = text.split(separator)
    count = 0
    while count < len(cells) - 1 and is_number(cells[-1 - count]):
        count += 1
    return text.rsplit(separator, count)


def _face(table: Path, line: int, cells: list[str], source: str, names: FaceNames) -> Face:
    where = f"{table}:{line}"
    picture = cells[0].strip().strip('"')
    if len(cells) - 1 not in _SIZES:
        raise InputError(
            f"{len(cells) - 1} numbers after '{picture}', wanted one of "
            f"{', '.join(map(str, sorted(_SIZES)))}",
            where=where,
            hint="correct or remove the row",
        )
    marks = meaning(numbers(cells[1:], where))
    return Face(
        id=f"{source}/{names(picture, marks.landmarks)}",
        source=source,
        image=find_picture(picture, [table.parent, table.parent / "images"], where),
        landmarks=marks.landmarks,
        box=marks.box,
        group=picture,
        split=assign_split(is_test(table), source, picture),
        where=where,
        labels=marks.labels,
        visible=marks.visible,
    )


@dataclass(frozen=True, eq=False)
class Marks:
    """What COFW's numbers say of a face, as a `Face` has it."""

    landmarks: NDArray[np.float64]
    visible: NDArray[np.bool_] | None
    box: Box | None

    @property
    def labels(self) -> dict[str, float]:
        """Returns `occlusion`, 1 where any landmark is hidden."""
        return {} if self.visible is None else {"occlusion": float(not self.visible.all())}


def meaning(values: NDArray[np.float64]) -> Marks:
    """Returns landmarks, their visibility and the box from COFW's numbers, which count from 1.

    Args:
        values: 29 x, 29 y and, where known, 29 flags of occlusion and a box (x, y, width, height).
    """
    has_box = len(values) % _COUNT == _BOX
    marks = values[:-_BOX] if has_box else values
    hidden = marks[2 * _COUNT :]
    return Marks(
        marks[: 2 * _COUNT].reshape(2, _COUNT).T - 1.0,
        hidden == 0 if hidden.size else None,
        _box(*values[-_BOX:].tolist()) if has_box else None,
    )


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - 1, y - 1, x - 1 + width, y - 1 + height
