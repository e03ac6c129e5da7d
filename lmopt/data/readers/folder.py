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
from lmopt.data.labels import label_of
from lmopt.data.readers.row import Row, row
from lmopt.data.table import CsvRows, is_number
from lmopt.errors import InputError

TABLE, PICTURES = "landmarks.csv", "images"
LAYOUT = (
    f"{PICTURES}/ and {TABLE} with columns file, role (train, validation or test), "
    "x0, y0, x1, y1, ... and, where known, group, id, box_x0, box_y0, box_x1, box_y1, visible0, "
    "visible1, ... (1 or 0) and labels"
)
VISIBLE = "visible"
BOX = ("box_x0", "box_y0", "box_x1", "box_y1")


def fits(place: Path) -> bool:
    """Returns whether a folder has this layout."""
    return (place / TABLE).is_file()


def read(place: Path, source: str) -> list[Row]:
    """Returns the faces of a folder; columns that mean nothing to lmopt are ignored.

    The number of landmarks is that of the columns. A table whose column `role` names no
    validation faces gets some by `assign_split`; a column `split` is taken as it is. A row
    without a group is a group of its own. Labels are the columns that `label_of` knows; where
    the cell is empty the label is not known.

    Raises:
        InputError: The table cannot be read; names file and line.
    """
    table = place / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return _Table(place, source, file).found()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the table cannot be read: {error}",
            where=str(table),
            hint="wanted comma-separated values in UTF-8",
        ) from error


class _Table:
    def __init__(self, folder: Path, source: str, file: TextIO) -> None:
        self.folder, self.source = folder, source
        self.rows = CsvRows(file)
        header = next(self.rows, [])
        self.column = {name.strip(): index for index, name in enumerate(header)}
        self.width = len(header)
        self.role = "split" if "split" in self.column else "role"
        missing = [name for name in ("file", self.role, "x0", "y0") if name not in self.column]
        if missing:
            raise self.error(f"no column '{missing[0]}'", f"wanted {LAYOUT}")
        self.points = self._point_columns()
        flags = [f"{VISIBLE}{k}" for k in range(len(self.points) // 2)]
        self.flags = [self.column[name] for name in flags if name in self.column]
        if len(self.flags) not in (0, len(flags)):
            missing = [name for name in flags if name not in self.column]
            raise self.error(f"no column '{missing[0]}'", "give every landmark's, or none")
        named = {name: label_of(name) for name in self.column}
        self.labels = {name: label for name, label in named.items() if label is not None}

    def _point_columns(self) -> list[int]:
        columns: list[int] = []
        while f"x{len(columns) // 2}" in self.column:
            index = len(columns) // 2
            if f"y{index}" not in self.column:
                raise self.error(f"column 'x{index}' without 'y{index}'", "each landmark has both")
            columns += [self.column[f"x{index}"], self.column[f"y{index}"]]
        return columns

    def error(self, what: str, hint: str) -> InputError:
        return InputError(what, where=self.where, hint=hint)

    @property
    def where(self) -> str:
        return f"{self.folder / TABLE}:{self.rows.line_num}"

    def found(self) -> list[Row]:
        rows = [row(self._face, cells) for cells in self.rows]
        if self.role == "split" or any(
            isinstance(face, Face) and face.split == "validation" for face in rows
        ):
            return rows
        return [self._drawn(face) for face in rows]

    def _drawn(self, face: Row) -> Row:
        if isinstance(face, InputError):
            return face
        return replace(face, split=assign_split(face.split == "test", face.source, face.group))

    def _face(self, cells: Sequence[str]) -> Face:
        if len(cells) != self.width:
            raise self.error(
                f"{len(cells)} values, wanted {self.width} as in the header", "correct the row"
            )
        name, role = self._text(cells, "file"), self._text(cells, self.role)
        if role not in SPLITS:
            raise self.error(
                f"{self.role} '{role}', wanted one of {', '.join(SPLITS)}", "correct it"
            )
        face_id = self._text(cells, "id") or name
        return Face(
            id=f"{self.source}/{face_id}",
            source=self.source,
            image=self.folder / PICTURES / name,
            landmarks=self._numbers(cells, self.points).reshape(-1, 2),
            box=self._box(cells),
            group=self._text(cells, "group") or face_id,
            split=role,
            where=self.where,
            labels=self._labels(cells),
            visible=self._visible(cells),
        )

    def _visible(self, cells: Sequence[str]) -> NDArray[np.bool_] | None:
        if not any(cells[index].strip() for index in self.flags):
            return None
        return self._numbers(cells, self.flags) > 0

    def _labels(self, cells: Sequence[str]) -> dict[str, float]:
        known = [name for name in self.labels if self._text(cells, name)]
        values = self._numbers(cells, [self.column[name] for name in known])
        return {self.labels[name]: float(v) for name, v in zip(known, values, strict=True)}

    def _text(self, cells: Sequence[str], name: str) -> str:
        return cells[self.column[name]].strip() if name in self.column else ""

    def _box(self, cells: Sequence[str]) -> Box | None:
        given = [self._text(cells, name) for name in BOX]
        if not any(given):
            return None
        if not all(given):
            raise self.error(f"an incomplete box {given}", "give all four sides, or none")
        return cast(Box, tuple(self._numbers(cells, [self.column[n] for n in BOX]).tolist()))

    def _numbers(self, cells: Sequence[str], columns: Sequence[int]) -> NDArray[np.float64]:
        try:
            return np.array([float(cells[index]) for index in columns])
        except ValueError:
            names: Mapping[int, str] = {index: name for name, index in self.column.items()}
            bad = next(index for index in columns if not is_number(cells[index]))
            raise self.error(
                f"{names[bad]} is '{cells[bad]}', wanted a number", "correct or remove the row"
            ) from None
