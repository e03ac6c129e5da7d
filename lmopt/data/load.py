"""From folders to a dataset: which reader fits, and what the landmarks mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmopt.data import folder, pts
from lmopt.data.dataset import Dataset, Face
from lmopt.detector.scheme import LandmarkScheme, scheme_for
from lmopt.errors import InputError

_DEPTH = 3  # of folders below a given path
_GENERIC = frozenset({"train", "test", "trainset", "testset", "training", "testing"})


@dataclass(frozen=True)
class Reader:
    """One way faces are kept in a folder.

    Attributes:
        layout: What the folder looks like, for messages.
        fits: Whether a folder looks like that; cheap.
        read: The faces of such a folder, given the name of their source.
    """

    layout: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, str], list[Face]]


READERS: dict[str, Reader] = {
    "folder": Reader(folder.LAYOUT, folder.fits, folder.read),
    "300-W": Reader(pts.LAYOUT, pts.fits, pts.read),
}


def load_dataset(paths: Sequence[Path], *, scheme: LandmarkScheme | None = None) -> Dataset:
    """Returns the faces of all folders below `paths`.

    A path is a folder that a reader understands, or a parent of such folders, all of which are
    then read. Faces of several paths are put together in the order given.

    Args:
        paths: Folders.
        scheme: What the landmarks mean (a contract's scheme); by default iBUG's for 68 points
            and a scheme without eyes for any other number.

    Raises:
        InputError: A path is no folder, nothing in it can be read, a row is wrong, a picture is
            missing, or the number of landmarks is not the scheme's.
    """
    if not paths:
        raise InputError("no data given", hint="name a folder of annotated faces with --data")
    faces: list[Face] = []
    for path in paths:
        found = _readable(Path(path), _DEPTH)
        if not found:
            raise _nothing_readable(Path(path))
        for place, reader in found:
            read = reader.read(place, source_name(place))
            if not read:
                raise InputError("no face in this folder", where=str(place), hint=reader.layout)
            faces += read
    chosen = scheme if scheme is not None else scheme_for(len(faces[0].landmarks))
    name = ", ".join(dict.fromkeys(face.source for face in faces))
    return Dataset.of(name, faces, chosen)


def source_name(place: Path) -> str:
    """Returns what the faces of a folder are said to come from: its name.

    A name that only tells the part (`helen/trainset`) is prefixed with its parent's.

    >>> source_name(Path("faces/afw")), source_name(Path("faces/helen/trainset"))
    ('afw', 'helen/trainset')
    """
    full = place.resolve() if place.name in {"", ".", ".."} else place
    generic = full.name.lower() in _GENERIC
    if not generic:
        return full.name
    return f"{full.resolve().parent.name}/{full.name}"


def _readable(path: Path, depth: int) -> list[tuple[Path, Reader]]:
    if not path.is_dir():
        raise InputError(
            "no such folder" if not path.exists() else "a file, wanted a folder",
            where=str(path),
            hint="name a folder of annotated faces",
        )
    for reader in READERS.values():
        if reader.fits(path):
            return [(path, reader)]
    if depth == 0:
        return []
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [found for folder_ in inner for found in _readable(folder_, depth - 1)]


def _nothing_readable(path: Path) -> InputError:
    layouts = "; or ".join(reader.layout for reader in READERS.values())
    empty = not any(path.iterdir())
    return InputError(
        "the folder is empty" if empty else "no annotated faces in this folder or below it",
        where=str(path),
        hint=f"wanted {layouts}",
    )
