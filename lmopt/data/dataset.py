"""Annotated faces: one face, and a named collection of them."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.scheme import LandmarkScheme
from lmopt.errors import InputError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Box = tuple[float, float, float, float]

_VALIDATION_PART = 8  # one group in eight
_SIGNED_BYTES = 4096


class Picture(Protocol):
    """An encoded picture: a file (`Path`), or what a reader finds inside of a table."""

    @property
    def name(self) -> str:
        """The file name the picture has, or would have."""

    def read_bytes(self) -> bytes:
        """Returns the encoded picture; raises OSError where there is none."""


@dataclass(frozen=True, eq=False)
class Face:
    """One annotated face in a picture.

    Attributes:
        id: Unique in its dataset, `source/file`.
        source: Name of the folder it came from.
        image: The picture, most often a file.
        landmarks: Points in picture pixels; the centre of the top-left pixel is (0, 0).
        box: The face detector's x0, y0, x1, y1 in picture pixels, where the data gives one.
        group: Faces that may show the same person or photo share a group.
        split: What the face may be used for.
        where: `file:line` of its annotation, for messages.
        labels: Categories by name, 1.0 where the face has it and 0.0 where not; a category that
            is not named is not known. Pose angles (yaw, pitch, roll) are in degrees.

    Shapes:
        landmarks: float64[n, 2] as (x, y).
    """

    id: str
    source: str
    image: Picture
    landmarks: NDArray[np.float64]
    box: Box | None
    group: str
    split: Split
    where: str
    labels: Mapping[str, float] = field(default_factory=dict)  # pickled, so no mappingproxy
    visible: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named collection of faces with one landmark scheme.

    Attributes:
        name: For people and reports.
        faces: In a fixed order.
        scheme: What the landmarks mean.
        digest: Of everything training or scoring reads, see `content_digest`.
        skipped: What was wrong with annotations that were left out when the data was read.
    """

    name: str
    faces: tuple[Face, ...]
    scheme: LandmarkScheme
    digest: str
    skipped: tuple[InputError, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        faces: Iterable[Face],
        scheme: LandmarkScheme,
        skipped: Sequence[InputError] = (),
    ) -> Dataset:
        """Returns a dataset of `faces` with its content digest.

        Raises:
            InputError: Two faces have one id, a face does not fit the scheme or has coordinates
                that are not finite, or a picture is missing.
        """
        kept = tuple(faces)
        first: dict[str, Face] = {}
        for face in kept:
            check_face(face, scheme)
            if (twin := first.setdefault(face.id, face)) is not face:
                raise given_twice(face, twin)
        return cls(name, kept, scheme, content_digest(kept, scheme), tuple(skipped))

    def __len__(self) -> int:
        return len(self.faces)

    def split(self, name: Split) -> Dataset:
        """Returns the faces of one split.

        Raises:
            InputError: No such split, or it has no faces.
        """
        if name not in SPLITS:
            raise InputError(f"unknown split '{name}'; there are {', '.join(SPLITS)}")
        part = self.keep(lambda face: face.split == name)
        if not part.faces:
            counts = ", ".join(f"{sum(f.split == s for f in self.faces)} {s}" for s in SPLITS)
            raise InputError(
                f"no face of split '{name}' among {len(self)} faces ({counts})",
                where=self.name,
                hint="give data whose roles include it",
            )
        return part

    def keep(self, wanted: Callable[[Face], bool]) -> Dataset:
        """Returns the faces for which `wanted` holds, in the same order (possibly none)."""
        return Dataset.of(self.name, (face for face in self.faces if wanted(face)), self.scheme)


@dataclass(frozen=True)
class SourceSummary:
    """Counts of one source's faces.

    Attributes:
        source: Folder name.
        train, validation, test: Faces per split.
        boxes: Faces that have a detector's box.
    """

    source: str
    train: int
    validation: int
    test: int
    boxes: int


def summary(dataset: Dataset) -> tuple[SourceSummary, ...]:
    """Returns the counts per source, in the order the sources were given."""
    by_source: dict[str, list[Face]] = {}
    for face in dataset.faces:
        by_source.setdefault(face.source, []).append(face)
    return tuple(
        SourceSummary(
            source,
            train=sum(face.split == "train" for face in faces),
            validation=sum(face.split == "validation" for face in faces),
            test=sum(face.split == "test" for face in faces),
            boxes=sum(face.box is not None for face in faces),
        )
        for source, faces in by_source.items()
    )


def assign_split(is_test: bool, source: str, group: str) -> Split:
    """Returns the split of a face whose data only says train or test.

    One group in eight of the training faces, drawn by a checksum, is for validation, so that no
    group is in two splits and the draw is the same on every machine.

    >>> assign_split(False, "afw", "0"), assign_split(False, "afw", "7"), assign_split(True, "", "")
    ('train', 'validation', 'test')
    """
    if is_test:
        return "test"
    drawn = zlib.crc32(f"{source}/{group}".encode()) % _VALIDATION_PART == 0
    return "validation" if drawn else "train"


def content_digest(faces: Sequence[Face], scheme: LandmarkScheme) -> str:
    """Returns a digest of the annotations and, by a signature, of the pictures.

    A picture is signed by its size and its first and last 4 KiB, which is quick for thousands of
    pictures and notices every ordinary change (another file, another encoding, a cut-off file).
    Folder locations and file times do not count.

    Raises:
        InputError: A picture is missing.
    """
    total = hashlib.blake2b(f"{scheme.name}/{scheme.count}".encode(), digest_size=16)
    for face in faces:
        total.update(repr((face.id, face.group, face.split, face.box)).encode())
        if face.labels:
            total.update(repr(sorted(face.labels.items())).encode())
        if face.visible is not None:
            total.update(np.packbits(face.visible).tobytes())
        total.update(np.ascontiguousarray(face.landmarks, np.float64).tobytes())
        total.update(picture_signature(face))
    return total.hexdigest()


def picture_signature(face: Face) -> bytes:
    """Returns a digest of a picture's size and ends, or raises InputError where there is none."""
    try:
        if isinstance(face.image, Path):
            with face.image.open("rb") as file:
                head = file.read(_SIGNED_BYTES)
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _SIGNED_BYTES))
                signed = b"%d" % size + head + file.read()
        else:
            data = face.image.read_bytes()
            signed = b"%d" % len(data) + data[:_SIGNED_BYTES] + data[-_SIGNED_BYTES:]
    except OSError as error:
        raise no_picture(face, error) from error
    return hashlib.blake2b(signed, digest_size=16).digest()


def no_picture(face: Face, error: OSError) -> InputError:
    """Returns the error for a face whose picture is not there."""
    return InputError(
        f"picture {face.image} cannot be read: {error.strerror or error}",
        where=face.where,
        hint="put the picture there, or remove its annotation",
    )


def given_twice(face: Face, twin: Face) -> InputError:
    """Returns the error for a face that has the id of an earlier one."""
    return InputError(
        f"face '{face.id}' was already given at {twin.where}",
        where=face.where,
        hint="name each folder once; faces that share a picture need a column 'id'",
    )


def in_two_splits(face: Face, twin: Face) -> InputError:
    """Returns the error for a face that is in another split as well."""
    return InputError(
        f"face '{face.id}' ({face.split}) is '{twin.id}' ({twin.split}) at {twin.where}: "
        "same picture and landmarks",
        where=face.where,
        hint="a face in two splits makes scores too good: remove one of the two",
    )


def wrong_count(face: Face, scheme: LandmarkScheme, hint: str) -> InputError:
    """Returns the error for a face whose landmarks are not as many as the scheme's."""
    return InputError(
        f"{len(face.landmarks)} landmarks, wanted {scheme.count} of '{scheme.name}'",
        where=face.where,
        hint=hint,
    )


def check_face(face: Face, scheme: LandmarkScheme) -> None:
    """Raises InputError unless landmarks and box are numbers and the landmarks fit the scheme."""
    hint = "correct or remove this annotation"
    if face.landmarks.shape != (scheme.count, 2):
        raise wrong_count(face, scheme, hint)
    bad = np.flatnonzero(~np.isfinite(face.landmarks).all(axis=1))
    if bad.size:
        x, y = face.landmarks[bad[0]]
        raise InputError(
            f"landmark {bad[0]} is ({x:g}, {y:g}), wanted numbers", where=face.where, hint=hint
        )
    if face.box is not None and not np.isfinite(face.box).all():
        raise InputError(f"box {face.box}, wanted numbers", where=face.where, hint=hint)
