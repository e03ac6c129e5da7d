"""Reader of the 300-W layout: pictures, each with a `.pts` file of the same name beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face, assign_split
from lmopt.errors import InputError

LAYOUT = "pictures, each with a .pts file of the same name beside it (300-W)"
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
_HEAD = re.compile(r"version:\s*\d+\s+n_points:\s*(\d+)\s*\{(.*)\}\s*", re.DOTALL)


def fits(folder: Path) -> bool:
    """Returns whether a folder has this layout."""
    return any(folder.glob("*.pts"))


def read(folder: Path, source: str) -> list[Face]:
    """Returns the faces of a folder, by file name.

    Coordinates count from 1 (MATLAB), so 1 is subtracted. A face's group is its file stem. The
    layout names no roles: faces of a folder whose name begins with `test` or `ibug` are test
    faces (300-W's own convention), all others are for training and validation.

    Raises:
        InputError: A file cannot be understood or has no picture; names it.
    """
    name = folder.resolve().name.lower()
    is_test = name.startswith(("test", "ibug"))
    return [
        Face(
            id=f"{source}/{file.stem}",
            source=source,
            image=_picture(file),
            landmarks=read_points(file),
            box=None,
            group=file.stem,
            split=assign_split(is_test, source, file.stem),
            where=f"{file}:1",
        )
        for file in sorted(folder.glob("*.pts"))
    ]


def read_points(file: Path) -> NDArray[np.float64]:
    """Returns the landmarks of a `.pts` file, counted from 0.

    Raises:
        InputError: The file cannot be understood; names it and the line.
    """
    try:
        text = file.read_text(encoding="utf-8")
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


def _picture(file: Path) -> Path:
    for suffix in _PICTURES:
        for candidate in (file.with_suffix(suffix), file.with_suffix(suffix.upper())):
            if candidate.is_file():
                return candidate
    raise InputError(
        f"no picture beside it, wanted {file.stem} with one of {', '.join(_PICTURES)}",
        where=f"{file}:1",
        hint="put the picture there, or remove the .pts file",
    )
