"""What faces are said to be: categories and pose angles, and tables that add them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lmopt.data.dataset import Dataset, Face
from lmopt.data.table import CsvRows, is_number
from lmopt.errors import InputError

LABELS = frozenset(
    {
        *("yaw", "pitch", "roll"),
        *("occlusion", "expression", "pose", "lighting", "blur", "make-up", "glasses"),
        *("male", "female", "young", "old", "dark-skin", "light-skin"),
        *("common", "challenging", "full"),
    }
)
"""Labels known by their names: angles in degrees, categories of the studies and of WFLW, subsets
of 300-W. In tables others begin with `label_`."""
PREFIX = "label_"
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


def label_of(column: str) -> str | None:
    """Returns the label that a column of a table of faces holds, or None.

    >>> label_of("occlusion"), label_of("label_beard"), label_of("orig_w")
    ('occlusion', 'beard', None)
    """
    if column in LABELS:
        return column
    return column.removeprefix(PREFIX) if column.startswith(PREFIX) else None


def column_of(label: str) -> str:
    """Returns the column that holds a label; the inverse of `label_of`."""
    return label if label in LABELS else PREFIX + label


def having(dataset: Dataset, label: str) -> Dataset:
    """Returns the faces that have a label.

    Raises:
        InputError: None has.
    """
    part = dataset.keep(lambda face: face.labels.get(label) == 1.0)
    if not part.faces:
        known = sorted({name for face in dataset.faces for name in face.labels})
        raise InputError(
            f"no face has the label '{label}'",
            where=dataset.name,
            hint=f"there are {', '.join(known)}" if known else "these faces have no labels",
        )
    return replace(part, skipped=dataset.skipped)


def with_labels(dataset: Dataset, table: Path, *, strict: bool = False) -> Dataset:
    """Returns the faces with the labels of a CSV added.

    The table has a column `id` (with or without the source) or `file` (the picture's name), and
    one column per label: a number, true, false, yes or no; empty where it is not known. A row
    that fits no face, or faces of several sources, is left out and joins `skipped`.

    Args:
        dataset: The faces.
        table: The CSV.
        strict: Refuse the first row that cannot be used.

    Raises:
        InputError: The table cannot be read; with `strict`, or where no row can be used, a row.
    """
    by_key = _faces_by_key(dataset)
    added: dict[str, dict[str, float]] = {}
    skipped: list[InputError] = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = CsvRows(file)
            header = [name.strip() for name in next(rows, [])]
            key = next((name for name in ("id", "file") if name in header), None)
            if key is None:
                raise InputError("no column 'file' or 'id'", where=f"{table}:1", hint=_WANTED)
            for cells in rows:
                where = f"{table}:{rows.line_num}"
                try:
                    named = _named(header, cells, where)
                    faces = _meant(by_key[key], named[key], where)
                    labels = _labels(named, where)
                except InputError as error:
                    if strict:
                        raise
                    skipped.append(error)
                    continue
                for face in faces:
                    added.setdefault(face.id, {}).update(labels)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"the table cannot be read: {error}", where=str(table), hint=_WANTED
        ) from error
    if skipped and not added:
        raise skipped[0]
    faces_ = [
        replace(face, labels={**face.labels, **added.get(face.id, {})}) for face in dataset.faces
    ]
    return Dataset.of(dataset.name, faces_, dataset.scheme, (*dataset.skipped, *skipped))


_WANTED = "wanted comma-separated values in UTF-8: file (or id) and one column per label"
_KEYS = ("id", "file")


def _faces_by_key(dataset: Dataset) -> Mapping[str, Mapping[str, list[Face]]]:
    found: dict[str, dict[str, list[Face]]] = {"id": {}, "file": {}}
    for face in dataset.faces:
        for name in (face.id, face.id.removeprefix(f"{face.source}/")):
            found["id"].setdefault(name, []).append(face)
        found["file"].setdefault(face.image.name, []).append(face)
    return found


def _named(header: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise InputError(
            f"{len(cells)} values, wanted {len(header)} as in the header",
            where=where,
            hint="correct the row",
        )
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _meant(by_name: Mapping[str, list[Face]], name: str, where: str) -> list[Face]:
    faces = by_name.get(name) or by_name.get(name.replace("\\", "/").rpartition("/")[2], [])
    if not faces:
        raise InputError(f"no face '{name}'", where=where, hint="correct or remove the row")
    if len(sources := sorted({face.source for face in faces})) > 1:
        raise InputError(
            f"'{name}' is a face of {' and of '.join(sources)}",
            where=where,
            hint="name it in a column 'id' as source/name",
        )
    return faces


def _labels(named: Mapping[str, str], where: str) -> dict[str, float]:
    labels = {}
    for column, text in named.items():
        if column in _KEYS or not text:
            continue
        value = _WORDS.get(text.lower())
        if value is None and not is_number(text):
            raise InputError(
                f"{column} is '{text}', wanted a number, true or false",
                where=where,
                hint="correct or empty it",
            )
        labels[label_of(column) or column] = float(text) if value is None else value
    return labels
