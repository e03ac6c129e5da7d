"""Reader of the 300-W layout: pictures, each with a `.pts` file of the same name beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face, assign_split
from lmopt.data.readers.row import PICTURE_SUFFIXES, Row, row
from lmopt.errors import InputError

LAYOUT = "pictures, each with a .pts file of the same name beside it (300-W)"
_HEAD = re.compile(r"version\s*:\s*[\d.]+\s+n_points\s*:\s*(\d+)\s*\{(.*)\}\s*", re.DOTALL)
_COMMENT = re.compile(r"^[ \t]*(#|//).*$", re.MULTILINE)
_TEST_FOLDERS = ("test", "ibug", "01_indoor", "02_outdoor")
_PHOTO = re.compile(r"(\d{4,})_\d+")
"""AFW and HELEN number the faces of a photo: photo_1, photo_2."""


def fits(place: Path) -> bool:
    """Returns whether a folder has this layout."""
    return place.is_dir() and any(file.suffix.lower() == ".pts" for file in place.iterdir())


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of a folder, by file name.

    Coordinates count from 1 (MATLAB), so 1 is subtracted. Faces of one photo share a group. The
    layout names no roles: faces of a folder whose name begins with `test` or `ibug` are test
    faces (300-W's own convention), all others are for training and validation. Test faces carry
    300-W's subsets as labels: `common` (HELEN and LFPW), `challenging` (iBUG), `full` (both).
    """
    files = sorted(place.iterdir())
    pictures: dict[str, Path] = {}
    for suffix in PICTURE_SUFFIXES:
        for file in files:
            if file.suffix.lower() == suffix:
                pictures.setdefault(file.stem, file)
    folder = place.resolve()
    is_test = folder.name.lower().startswith(_TEST_FOLDERS)
    labels = _subsets(folder) if is_test else {}
    for file in files:
        if file.suffix.lower() == ".pts":
            yield row(_face, file, source, pictures, is_test, labels)


def _subsets(folder: Path) -> dict[str, float]:
    if folder.name.lower().startswith("ibug"):
        return {"challenging": 1.0, "full": 1.0}
    if folder.parent.name.lower() in {"helen", "lfpw"}:
        return {"common": 1.0, "full": 1.0}
    return {}


def _face(
    file: Path,
    source: str,
    pictures: Mapping[str, Path],
    is_test: bool,
    labels: Mapping[str, float],
) -> Face:
    if file.stem not in pictures:
        raise InputError(
            f"no picture beside it, wanted {file.stem} with one of {', '.join(PICTURE_SUFFIXES)}",
            where=f"{file}:1",
            hint="put the picture there, or remove the .pts file",
        )
    photo = _PHOTO.fullmatch(file.stem)
    group = photo[1] if photo else file.stem
    return Face(
        id=f"{source}/{file.stem}",
        source=source,
        image=pictures[file.stem],
        landmarks=read_points(file),
        box=None,
        group=group,
        split=assign_split(is_test, source, group),
        where=f"{file}:1",
        labels=labels,
    )


def read_points(file: Path) -> NDArray[np.float64]:
    """Returns the landmarks of a `.pts` file, counted from 0.

    Raises:
        InputError: The file cannot be understood; names it and the line.
    """
    try:
        text = _COMMENT.sub("", file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file cannot be read: {error}", where=f"{file}:1") from error
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise InputError(
            "no .pts file, wanted 'version: 1', 'n_points: N' and N lines 'x y' in braces",
            where=f"{file}:1",
            hint="correct or remove it",
        )
    count, body = int(found[1]), found[2]
    first_line = text[: text.index("{")].count("\n") + 1
    points = []
    for line, content in enumerate(body.split("\n"), first_line):
        if content.strip():
            points.append(_point(content, f"{file}:{line}"))
    if len(points) != count:
        raise InputError(
            f"{len(points)} points, wanted {count} as n_points says",
            where=f"{file}:{first_line}",
            hint="correct or remove it",
        )
    return np.array(points, np.float64).reshape(count, 2) - 1.0


def _point(text: str, where: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split())
    except ValueError:
        raise InputError(
            f"'{text.strip()}', wanted two numbers 'x y'", where=where, hint="correct it"
        ) from None
    return x, y
