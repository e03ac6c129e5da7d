"""What readers give, and what readers of tables share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face
from lmopt.errors import InputError

Row = Face | InputError
"""An annotated face, or what is wrong with an annotation that cannot be used."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_TEST = re.compile(r"(?<![a-z])test(?![a-z])|testset|testing", re.IGNORECASE)
_Given = ParamSpec("_Given")


def row(make: Callable[_Given, Face], *args: _Given.args, **named: _Given.kwargs) -> Row:
    """Returns what `make` returns, or the InputError it raises."""
    try:
        return make(*args, **named)
    except InputError as error:
        return error


def tables(place: Path, suffixes: Sequence[str], is_one: Callable[[Path], bool]) -> list[Path]:
    """Returns the tables of one format: `place` itself, or those in the folder `place`.

    Where a folder has tables for training and for test, others (which hold both) are left out.
    """
    found = [place] if place.is_file() else sorted(place.iterdir())
    found = [f for f in found if f.suffix.lower() in suffixes and f.is_file() and is_one(f)]
    parts = [file for file in found if is_test(file) or "train" in file.stem.lower()]
    return parts if len({is_test(file) for file in parts}) == 2 else found


def is_test(file: Path) -> bool:
    """Returns whether a file's name says that it holds test faces.

    >>> is_test(Path("list_98pt_test.txt")), is_test(Path("latest.csv"))
    (True, False)
    """
    return _TEST.search(file.stem) is not None


def find_picture(name: str, folders: Sequence[Path], where: str) -> Path:
    """Returns the picture of that name in the first of `folders` that has it.

    Raises:
        InputError: None has it.
    """
    for folder in folders:
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            if (folder / spelling).is_file():
                return folder / spelling
    wanted = next((f for f in folders if f.is_dir()), folders[0]) / name
    others = (wanted.with_suffix(suffix) for suffix in PICTURE_SUFFIXES if wanted.name)
    there = next((path.name for path in others if path.is_file()), None)
    raise InputError(
        f"picture {wanted} cannot be read: No such file",
        where=where,
        hint=f"there is {there}: correct the name" if there else "put it there, or remove the row",
    )


class FaceNames:
    """Tells the faces of a picture apart: `a.jpg`, `a.jpg#2`; equal landmarks are one face."""

    def __init__(self) -> None:
        self._seen: dict[str, list[bytes]] = {}

    def __call__(self, picture: str, landmarks: NDArray[np.float64]) -> str:
        """Returns the name of a face in a picture."""
        seen = self._seen.setdefault(picture, [])
        mark = landmarks.tobytes()
        if mark not in seen:
            seen.append(mark)
        place = seen.index(mark)
        return f"{picture}#{place + 1}" if place else picture
