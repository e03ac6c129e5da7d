"""From folders and tables to a dataset: which reader fits, what can be used, what it means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lmopt.data.dataset import (
    SPLITS,
    Dataset,
    Face,
    check_face,
    given_twice,
    in_two_splits,
    picture_signature,
    wrong_count,
)
from lmopt.data.labels import with_labels
from lmopt.data.picture import picture_size
from lmopt.data.readers import READERS, Reader
from lmopt.data.readers.row import Row
from lmopt.detector.scheme import LandmarkScheme, scheme_for
from lmopt.errors import InputError

_DEPTH = 3  # of folders below a given path
_GENERIC = frozenset({"train", "test", "trainset", "testset", "training", "testing"})
_INSIDE = 0.5
"""Part of a face's landmarks that must lie in its picture: 300-W's faces have 0.89 and more."""


def load_dataset(
    paths: Sequence[Path],
    *,
    scheme: LandmarkScheme | None = None,
    labels: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Returns the faces of all folders and tables below `paths`.

    A path is a folder or table that a reader understands, or a parent of such folders, all of
    which are then read. Faces of several paths are put together in the order given. Annotations
    that cannot be used are left out and are the `skipped` of the dataset, each with its line; so
    are training faces that are validation or test faces as well (same picture and landmarks), and
    validation faces that are test faces.

    Args:
        paths: Folders or tables.
        scheme: What the landmarks mean (a contract's scheme); by default that of `scheme_for`.
        labels: A CSV of labels to add, see `with_labels`.
        strict: Refuse the first annotation that cannot be used.

    Raises:
        InputError: A path does not exist, nothing in it can be read, the number of landmarks is
            not the scheme's, or no annotation can be used; with `strict`, any is wrong.
    """
    if not paths:
        raise InputError("no data given", hint="name a folder of annotated faces with --data")
    sifted = _Sifted(scheme, strict)
    for path in paths:
        found = _readable(Path(path), _DEPTH)
        if not found:
            raise _nothing_readable(Path(path))
        for place, reader in found:
            if not sifted.add(reader.read(place, source_name(place))):
                raise InputError("no face in it", where=str(place), hint=reader.layout)
    dataset = sifted.dataset()
    return dataset if labels is None else with_labels(dataset, labels, strict=strict)


class _Sifted:
    """Faces that can be used, apart from what is wrong with the others."""

    def __init__(self, scheme: LandmarkScheme | None, strict: bool) -> None:
        self.scheme, self.strict = scheme, strict
        self.other_scheme = (
            "give faces annotated in this scheme, or a contract with the data's scheme"
        )
        self.faces: dict[str, Face] = {}
        self.skipped: list[InputError] = []
        self.sizes: dict[str, tuple[int, int]] = {}

    def add(self, rows: Iterable[Row]) -> bool:
        """Returns whether a place had any row, after having kept what can be used."""
        rows = list(rows)
        faces = [row for row in rows if isinstance(row, Face)]
        if faces:
            self._agree(faces)
        for row in rows:
            try:
                self._keep(row)
            except InputError as error:
                self._leave_out(error)
        return bool(rows)

    def _agree(self, faces: Sequence[Face]) -> None:
        """Raises InputError when most faces of a place have not the scheme's landmarks."""
        usual, _ = Counter(len(face.landmarks) for face in faces).most_common(1)[0]
        if self.scheme is None:
            self.scheme = scheme_for(usual)
            self.other_scheme = (
                f"all paths of one call share a scheme, which the first ('{faces[0].source}') "
                "fixed: read faces of another scheme in a call of their own"
            )
        if usual != self.scheme.count:
            face = next(face for face in faces if len(face.landmarks) == usual)
            raise wrong_count(face, self.scheme, self.other_scheme)

    def _keep(self, row: Row) -> None:
        if isinstance(row, InputError):
            raise row
        assert self.scheme is not None
        check_face(row, self.scheme)
        if (twin := self.faces.get(row.id)) is not None:
            raise given_twice(row, twin)
        key = str(row.image)
        if key not in self.sizes:
            self.sizes[key] = picture_size(row)
        _check_place(row, self.sizes[key])
        self.faces[row.id] = row

    def _leave_out(self, error: InputError) -> None:
        if self.strict:
            raise error
        self.skipped.append(error)

    def dataset(self) -> Dataset:
        if not self.faces or self.scheme is None:
            raise self._nothing_usable()
        for face, twin in _repeated(self.faces.values()):
            self._leave_out(in_two_splits(face, twin))
            del self.faces[face.id]
        faces = tuple(self.faces.values())
        name = ", ".join(dict.fromkeys(face.source for face in faces))
        return Dataset.of(name, faces, self.scheme, self.skipped)

    def _nothing_usable(self) -> InputError:
        first = self.skipped[0]
        if len(self.skipped) == 1:
            return first
        what = f"none of {len(self.skipped)} annotations can be used; the first: {first.what}"
        return InputError(what, where=first.where, hint=first.hint)


def _repeated(faces: Iterable[Face]) -> list[tuple[Face, Face]]:
    """Returns the faces that another split has as well, each with that one: test faces stay.

    Pictures are compared where landmarks are equal, which is next to never.
    """
    by_landmarks: dict[bytes, list[Face]] = {}
    for face in faces:
        by_landmarks.setdefault(face.landmarks.tobytes(), []).append(face)
    found = []
    for alike in by_landmarks.values():
        if len({face.split for face in alike}) == 1:
            continue
        first: dict[bytes, Face] = {}
        for face in sorted(alike, key=lambda face: SPLITS.index(face.split), reverse=True):
            twin = first.setdefault(picture_signature(face), face)
            if twin.split != face.split:
                found.append((face, twin))
    return found


def _check_place(face: Face, size: tuple[int, int]) -> None:
    """Raises InputError for a face or box without area, and for a face that is not in its picture.

    Some landmarks may lie outside: faces are cut off by borders. None may lie farther away than
    the picture's larger side: one such landmark makes the face's box, and so its crop, useless.
    """
    hint = "correct or remove this annotation"
    if face.box is not None and not (face.box[2] > face.box[0] and face.box[3] > face.box[1]):
        raise InputError(
            f"box {face.box} has no area, wanted x0 < x1 and y0 < y1", where=face.where, hint=hint
        )
    if len(face.landmarks) > 1 and not np.ptp(face.landmarks, axis=0).any():
        raise InputError("all landmarks are at one place", where=face.where, hint=hint)
    points = face.landmarks
    inside = np.logical_and(points > -1, points < size).all(axis=1)
    if inside.mean() < _INSIDE:
        raise InputError(
            f"{np.count_nonzero(~inside)} of {len(points)} landmarks lie outside of the "
            f"{size[0]}x{size[1]} picture {face.image}",
            where=face.where,
            hint=f"{hint}; was the picture cut or resized?",
        )
    beyond = np.maximum(-points, points - size).max(axis=1)
    if beyond.max() > max(size):
        wild = int(beyond.argmax())
        x, y = points[wild]
        raise InputError(
            f"landmark {wild} is ({x:g}, {y:g}), farther outside of the {size[0]}x{size[1]} "
            f"picture {face.image} than its larger side is long",
            where=face.where,
            hint=hint,
        )


def source_name(place: Path) -> str:
    """Returns what the faces of a folder or table are said to come from: its name.

    A name that only tells the part (`helen/trainset`) is prefixed with its parent's.

    >>> source_name(Path("faces/afw")), source_name(Path("faces/helen/trainset"))
    ('afw', 'helen/trainset')
    """
    full = place.resolve() if place.name in {"", ".", ".."} else place
    name = full.stem if full.is_file() else full.name
    return f"{full.resolve().parent.name}/{name}" if name.lower() in _GENERIC else name


def _readable(path: Path, depth: int) -> list[tuple[Path, Reader]]:
    if not path.exists():
        raise InputError(
            "no such folder or file", where=str(path), hint="name a folder of annotated faces"
        )
    for reader in READERS.values():
        if reader.fits(path):
            return [(path, reader)]
    if path.is_file() or depth == 0:
        return []
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [found for folder_ in inner for found in _readable(folder_, depth - 1)]


def _nothing_readable(path: Path) -> InputError:
    layouts = "; or ".join(reader.layout for reader in READERS.values())
    what = "no annotated faces in this folder or below it"
    if path.is_file():
        what = "a file that is no table of annotated faces"
    elif not any(path.iterdir()):
        what = "the folder is empty"
    return InputError(what, where=str(path), hint=f"wanted {layouts}")
