"""Category labels from a table of their own: a column `file` or `id`, then one per category."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

from lmopt.data.dataset import Dataset, Face
from lmopt.errors import InputError

_KEYS = ("id", "file")


def with_labels(dataset: Dataset, table: Path) -> Dataset:
    """Returns the faces with the labels of a CSV file, which replace those they have.

    `id` is a face's id (`source/name`), `file` the name of its picture, with or without its
    source before it. An empty cell says nothing; rows of faces that are not in the dataset are
    passed over.

    Raises:
        InputError: The table cannot be read, a cell is no number, a file name fits faces of
            several sources, or no row fits any face; names file and line.
    """
    rows = _rows(table)
    used: set[str] = set()
    names = Counter(face.image.name for face in dataset.faces)

    def labelled(face: Face) -> Face:
        for key in (face.id, f"{face.source}/{face.image.name}", face.image.name):
            if key not in rows:
                continue
            line, labels = rows[key]
            if key == face.image.name and names[key] > 1:
                raise InputError(
                    f"'{key}' is the picture of {names[key]} faces",
                    where=f"{table}:{line}",
                    hint="write its source before it, or give a column 'id'",
                )
            used.add(key)
            return replace(face, labels={**face.labels, **labels})
        return face

    faces = tuple(labelled(face) for face in dataset.faces)
    if not used:
        raise InputError(
            f"none of its {len(rows)} rows is about one of the {len(faces)} faces",
            where=str(table),
            hint=f"name faces as the data does, like {dataset.faces[0].id}" if faces else None,
        )
    return replace(dataset, faces=faces)


def _rows(table: Path) -> dict[str, tuple[int, dict[str, float]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            key = next((name for name in _KEYS if name in header), None)
            if key is None or len(header) < 2:
                raise InputError(
                    f"columns {', '.join(header) or 'none'}",
                    where=f"{table}:1",
                    hint="wanted 'file' or 'id', then a column per category (1 has it, 0 has not)",
                )
            found = {}
            for row in reader:
                if row:
                    where = f"{table}:{reader.line_num}"
                    cells = _cells(header, row, where)
                    name = cells.pop(key)
                    labels = {c: _number(text, c, where) for c, text in cells.items() if text}
                    found[name] = (reader.line_num, labels)
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the labels cannot be read: {error}",
            where=str(table),
            hint="wanted comma-separated values in UTF-8",
        ) from error


def _cells(header: list[str], row: list[str], where: str) -> dict[str, str]:
    if len(row) != len(header):
        raise InputError(
            f"{len(row)} values, wanted {len(header)} as in the header",
            where=where,
            hint="correct the row",
        )
    return {name: text.strip() for name, text in zip(header, row, strict=True)}


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise InputError(
        f"{column} is '{text}', wanted a number",
        where=where,
        hint="1 where the face has the category, 0 where not, empty where it is not known",
    )
