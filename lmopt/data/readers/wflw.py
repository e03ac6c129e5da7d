"""Reader of WFLW's lists: 98 landmarks, a box, six attributes and a picture per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from lmopt.data.dataset import Box, Face, assign_split
from lmopt.data.readers.row import FaceNames, Row, find_picture, is_test, row, tables
from lmopt.data.table import content_lines, first_lines, is_number, numbers
from lmopt.errors import InputError

LAYOUT = (
    "lists of WFLW (list_98pt_rect_attr_train.txt: 196 coordinates, box, 6 attributes, picture) "
    "with WFLW_images/ beside them or above"
)
ATTRIBUTES = ("pose", "expression", "lighting", "make-up", "occlusion", "blur")
"""WFLW's attributes in its order; what it calls illumination is `lighting` here."""
_COORDINATES, _BOX = 196, 4
_NUMBERS = _COORDINATES + _BOX + len(ATTRIBUTES)
_LISTS = "list_98pt_rect_attr_*.txt"
_PLACES = ("", "list_98pt_rect_attr_train_test", "WFLW_annotations/list_98pt_rect_attr_train_test")


def fits(place: Path) -> bool:
    """Returns whether a file is such a list, or a folder holds the two that cover WFLW."""
    if place.is_dir():
        return bool(_lists(place))
    if place.suffix.lower() != ".txt":
        return False
    cells = "".join(first_lines(place, 1)).split(maxsplit=_COORDINATES)
    return len(cells) == _COORDINATES + 1 and all(map(is_number, cells[:-1]))


def _lists(folder: Path) -> list[Path]:
    return next((f for p in _PLACES if (f := sorted((folder / p).glob(_LISTS)))), [])


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of a list, or of the lists of a folder, line by line.

    Coordinates count from 0. Lists of 196 coordinates and a picture are read as well. Attributes
    become labels. A list with `test` in its name holds test faces.
    """
    names = FaceNames()
    for table in tables(place, (".txt",), fits) if place.is_file() else _lists(place):
        for line, text in content_lines(table):
            yield row(_face, table, line, text, source, names)


def _face(table: Path, line: int, text: str, source: str, names: FaceNames) -> Face:
    where = f"{table}:{line}"
    found = len(text.split())
    count = _NUMBERS if found > _NUMBERS else _COORDINATES
    cells = text.split(maxsplit=count)
    # Names of pictures may hold blanks: one that begins with a number tells a wrong count.
    if found <= count or is_number(cells[-1].split()[0]):
        raise InputError(
            f"{found} values, wanted {_NUMBERS + 1}: {_COORDINATES} coordinates, {_BOX} sides of "
            f"a box, {len(ATTRIBUTES)} attributes and a picture",
            where=where,
            hint="correct or remove the line",
        )
    values = numbers(cells[:-1], where)
    landmarks = values[:_COORDINATES].reshape(-1, 2)
    picture = cells[-1]
    box, attributes = np.split(values[_COORDINATES:], [_BOX])
    return Face(
        id=f"{source}/{names(picture, landmarks)}",
        source=source,
        image=find_picture(picture, _folders(table), where),
        landmarks=landmarks,
        box=cast(Box, tuple(box.tolist())) if box.size else None,
        group=picture,
        split=assign_split(is_test(table), source, picture),
        where=where,
        labels=dict(zip(ATTRIBUTES, attributes.tolist(), strict=False)),
    )


def _folders(table: Path) -> Sequence[Path]:
    near = table.resolve().parents[:4]
    return [*(folder / "WFLW_images" for folder in near), near[0] / "images", near[0]]
