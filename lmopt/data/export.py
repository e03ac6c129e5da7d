"""Any faces, written as the plain layout that `readers.folder` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

from lmopt.data.dataset import Dataset, Face
from lmopt.data.labels import column_of
from lmopt.data.picture import picture_bytes
from lmopt.data.readers.folder import BOX, PICTURES, TABLE, VISIBLE
from lmopt.files import whole_folder


def write_dataset(
    dataset: Dataset, out: Path, *, on_progress: Callable[[int], None] | None = None
) -> None:
    """Writes faces as one plain folder per source below `out`, whole or not at all.

    Nothing is lost: pictures are copied byte for byte, numbers keep every digit, and ids, groups,
    splits, boxes, labels and visibility are those of the faces, so that what is read back has
    their digest.

    Args:
        dataset: The faces.
        out: A folder that does not exist yet, or is empty.
        on_progress: Called with the number of faces written.

    Raises:
        InputError: The folder has something in it or cannot be written; nothing is left there.
    """
    by_source: dict[str, list[Face]] = {}
    for face in dataset.faces:
        by_source.setdefault(face.source, []).append(face)
    done = 0
    with whole_folder(out) as folder:
        for source, faces in by_source.items():
            pictures = folder / source / PICTURES
            pictures.mkdir(parents=True)
            names = _Names()
            for face in faces:
                name, is_new = names.of(face)
                if is_new:
                    (pictures / name).write_bytes(picture_bytes(face))
                done += 1
                if on_progress is not None:
                    on_progress(done)
            table = _table(faces, [names.of(face)[0] for face in faces])
            (folder / source / TABLE).write_text(table, encoding="utf-8", newline="")


class _Names:
    """File names for pictures: their own, numbered where two differ in nothing but case."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, face: Face) -> tuple[str, bool]:
        """Returns the file name of a face's picture and whether it is given for the first time."""
        key = str(face.image)
        if key in self._given:
            return self._given[key], False
        own = Path(face.image.name.strip())
        extras = chain([""], (f"-{k}" for k in count(2)))
        names = (f"{own.stem}{extra}{own.suffix}" for extra in extras)
        name = next(name for name in names if name.lower() not in self._taken)
        self._taken.add(name.lower())
        self._given[key] = name
        return name, True


def _table(faces: Sequence[Face], files: Sequence[str]) -> str:
    labels = sorted({label for face in faces for label in face.labels})
    points = [f"{axis}{k}" for k in range(len(faces[0].landmarks)) for axis in "xy"]
    told = any(face.visible is not None for face in faces)
    flags = [f"{VISIBLE}{k}" for k in range(len(faces[0].landmarks))] if told else []
    header = ["file", "id", "split", "group", *map(column_of, labels), *BOX, *points, *flags]
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(header)
    for face, file in zip(faces, files, strict=True):
        numbers = [face.labels.get(label, "") for label in labels]
        numbers += [*(face.box or [""] * len(BOX)), *face.landmarks.reshape(-1).tolist()]
        unknown = [""] * len(flags)
        numbers += unknown if face.visible is None else face.visible.astype(int).tolist()
        own_id = face.id.removeprefix(f"{face.source}/")
        table.writerow([file, own_id, face.split, face.group, *numbers])
    return written.getvalue()
