"""Reader of the plain layout: `images/` and one `landmarks.csv`, a row per face."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, cast

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import SPLITS, Box, Face, assign_split
from lmopt.errors import InputError

TABLE, PICTURES = "landmarks.csv", "images"
LAYOUT = (
    f"{PICTURES}/ and {TABLE} with columns file, role (train, validation or test), "
    "x0, y0, x1, y1, ... and, where known, group, id, box_x0, box_y0, box_x1, box_y1"
)
_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")


def fits(folder: Path) -> bool:
    """Returns whether a folder has this layout."""
    return (folder / TABLE).is_file()


def read(folder: Path, source: str) -> list[Face]:
    """Returns the faces of a folder; unknown columns are ignored.

    The number of landmarks is that of the columns. A table that names no validation faces gets
    some by `assign_split`. A row without a group is a group of its own.

    Raises:
        InputError: The table cannot be read; names file and line.
    """
    table = folder / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return _Table(folder, source, file).faces()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the table cannot be read: {error}",
            where=str(table),
            hint="wanted comma-separated values in UTF-8",
        ) from error


class _Table:
    def __init__(self, folder: Path, source: str, file: TextIO) -> None:
        self.folder, self.source = folder, source
        self.rows = csv.reader(file, strict=True)
        header: list[str] = next(self.rows, [])
        self.column = {name.strip(): index for index, name in enumerate(header)}
        self.width = len(header)
        missing = [name for name in ("file", "role", "x0", "y0") if name not in self.column]
        if missing:
            raise self.error(f"no column '{missing[0]}'", f"wanted {LAYOUT}")
        self.points = self._point_columns()

    def _point_columns(self) -> list[int]:
        columns: list[int] = []
        while f"x{len(columns) // 2}" in self.column:
            index = len(columns) // 2
            if f"y{index}" not in self.column:
                raise self.error(f"column 'x{index}' without 'y{index}'", "each landmark has both")
            columns += [self.column[f"x{index}"], self.column[f"y{index}"]]
        return columns

    def error(self, what: str, hint: str) -> InputError:
        line = max(self.rows.line_num, 1)
        return InputError(what, where=f"{self.folder / TABLE}:{line}", hint=hint)

    def faces(self) -> list[Face]:
        faces = [self._face(row) for row in self.rows if row]
        if any(face.split == "validation" for face in faces):
            return faces
        return [
            replace(face, split=assign_split(face.split == "test", face.source, face.group))
            for face in faces
        ]

    def _face(self, row: Sequence[str]) -> Face:
        if len(row) != self.width:
            raise self.error(
                f"{len(row)} values, wanted {self.width} as in the header", "correct the row"
            )
        name, role = self._text(row, "file"), self._text(row, "role")
        if role not in SPLITS:
            raise self.error(f"role '{role}', wanted one of {', '.join(SPLITS)}", "correct it")
        face_id = self._text(row, "id") or name
        return Face(
            id=f"{self.source}/{face_id}",
            source=self.source,
            image=self.folder / PICTURES / name,
            landmarks=self._numbers(row, self.points).reshape(-1, 2),
            box=self._box(row),
            group=self._text(row, "group") or face_id,
            split=role,
            where=f"{self.folder / TABLE}:{self.rows.line_num}",
        )

    def _text(self, row: Sequence[str], name: str) -> str:
        return row[self.column[name]].strip() if name in self.column else ""

    def _box(self, row: Sequence[str]) -> Box | None:
        given = [self._text(row, name) for name in _BOX]
        if not any(given):
            return None
        if not all(given):
            raise self.error(f"an incomplete box {given}", "give all four sides, or none")
        return cast(Box, tuple(self._numbers(row, [self.column[n] for n in _BOX]).tolist()))

    def _numbers(self, row: Sequence[str], columns: Sequence[int]) -> NDArray[np.float64]:
        try:
            return np.array([float(row[index]) for index in columns])
        except ValueError:
            names: Mapping[int, str] = {index: name for name, index in self.column.items()}
            bad = next(index for index in columns if not _is_number(row[index]))
            raise self.error(
                f"{names[bad]} is '{row[bad]}', wanted a number", "correct or remove the row"
            ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
