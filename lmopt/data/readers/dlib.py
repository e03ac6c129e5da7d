"""Reader of dlib's XML, as imglab writes it: pictures, boxes and their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from lmopt.data.dataset import Box, Face, assign_split
from lmopt.data.readers.row import FaceNames, Row, find_picture, is_test, row, tables
from lmopt.data.table import numbers
from lmopt.errors import InputError

LAYOUT = "an .xml of dlib's imglab: <dataset>, <image file=...>, <box>, <part name= x= y=/>"
_START = 2048


@dataclass
class _Marked:
    """One <box> with the line it stands in."""

    line: int
    picture: str
    box: Mapping[str, str]
    parts: list[Mapping[str, str]] = field(default_factory=list)


def fits(place: Path) -> bool:
    """Returns whether a file is such an XML, or a folder holds one."""
    if place.is_dir():
        return bool(tables(place, (".xml",), fits))
    if place.suffix.lower() != ".xml":
        return False
    with place.open("rb") as file:
        return b"<dataset" in file.read(_START)


def read(place: Path, source: str) -> Iterator[Row]:
    """Yields the faces of an XML, or of those in a folder, box by box.

    Coordinates count from 0; parts are taken in the order of their names. Boxes marked `ignore`
    are left out. A file with `test` in its name holds test faces.

    Raises:
        InputError: A file is no well-formed XML; names file and line.
    """
    names = FaceNames()
    for table in tables(place, (".xml",), fits):
        for marked in _boxes(table):
            if marked.box.get("ignore", "0") in {"0", "false"}:
                yield row(_face, table, marked, source, names)


def _boxes(table: Path) -> list[_Marked]:
    parser = expat.ParserCreate()
    found: list[_Marked] = []
    picture = ""

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal picture
        if tag == "image":
            picture = attributes.get("file", "")
        elif tag == "box":
            found.append(_Marked(parser.CurrentLineNumber, picture, attributes))
        elif tag == "part" and found:
            found[-1].parts.append(attributes)

    parser.StartElementHandler = start
    try:
        parser.Parse(table.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(
            f"no well-formed XML: {expat.ErrorString(error.code)}",
            where=f"{table}:{error.lineno}",
            hint="correct it, or save it again with imglab",
        ) from error
    except OSError as error:
        raise InputError(f"the file cannot be read: {error}", where=str(table)) from error
    return found


def _face(table: Path, marked: _Marked, source: str, names: FaceNames) -> Face:
    where = f"{table}:{marked.line}"
    picture = marked.picture.strip()
    if not picture or not marked.parts:
        raise InputError(
            "a box without landmarks" if picture else "an <image> without file=",
            where=where,
            hint="mark its parts, or remove it (or set ignore='1')",
        )
    parts = sorted(marked.parts, key=lambda part: _rank(part.get("name", "")))
    texts = [part.get(axis, "") for part in parts for axis in ("x", "y")]
    landmarks = numbers(texts, where).reshape(-1, 2)
    return Face(
        id=f"{source}/{names(picture, landmarks)}",
        source=source,
        image=find_picture(picture, [table.parent, table.parent / "images"], where),
        landmarks=landmarks,
        box=_box(marked.box, where),
        group=picture,
        split=assign_split(is_test(table), source, picture),
        where=where,
    )


def _rank(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else -1, name)


def _box(attributes: Mapping[str, str], where: str) -> Box:
    sides = [attributes.get(name, "") for name in ("left", "top", "width", "height")]
    left, top, width, height = numbers(sides, where).tolist()
    return left, top, left + width, top + height
