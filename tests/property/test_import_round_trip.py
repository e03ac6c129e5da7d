"""What is imported and read again is what was there, to the last bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.data import Dataset, Face, load_dataset
from lmopt.data.export import write_dataset
from lmopt.data.readers.pixels import CellPicture
from lmopt.detector.scheme import scheme_for

SIDE = 8
NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"), exclude_characters="/\\."),
    min_size=1,
    max_size=8,
).filter(lambda text: text == text.strip())
NUMBERS = st.floats(-0.9, SIDE - 0.1, allow_subnormal=False)
ASIDE = 2**-9
LABELS = st.dictionaries(
    st.one_of(st.sampled_from(["occlusion", "yaw", "full"]), NAMES),
    st.floats(-90, 90),
    max_size=3,
)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float] | None:
    if draw(st.booleans()):
        return None
    x, y = draw(NUMBERS), draw(NUMBERS)
    return x, y, x + draw(st.floats(1, 99)), y + draw(st.floats(1, 99))


@st.composite
def sources(draw: st.DrawFn) -> list[dict]:
    count = draw(st.integers(2, 4))
    faces = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.casefold)):
        # Twins are moved a little; what differs by less would then be at one place.
        apart = st.lists(
            NUMBERS, min_size=2 * count, max_size=2 * count, unique_by=lambda mark: mark + ASIDE
        )
        marks = draw(apart)
        face = {
            "name": name,
            "landmarks": np.array(marks).reshape(-1, 2),
            "box": draw(boxes()),
            "group": draw(NAMES),
            "split": draw(st.sampled_from(["train", "validation", "test"])),
            "labels": draw(LABELS),
            "visible": draw(
                st.none() | st.lists(st.booleans(), min_size=count, max_size=count).map(np.array)
            ),
            "suffix": draw(st.sampled_from([".png", ".PGM", ".jpg"])),
            "faces": draw(st.integers(1, 2)),
            "in_table": draw(st.booleans()),
        }
        faces.append(face)
    return faces


def made(root: Path, drawn: list[dict], source: str) -> Dataset:
    faces = []
    for place, entry in enumerate(drawn):
        pixels = np.random.default_rng(place).integers(0, 256, (SIDE, SIDE), np.uint8)
        # Pictures of one name in two folders, as WFLW has them.
        image = root / str(place % 2) / f"{entry['name']}{entry['suffix']}"
        image.parent.mkdir(exist_ok=True, parents=True)
        image.write_bytes(cv2.imencode(image.suffix.lower(), pixels)[1].tobytes())
        cell = CellPicture(root / "cells.csv", place + 1, place * SIDE * SIDE * 4, SIDE * SIDE * 4)
        with (root / "cells.csv").open("ab") as file:
            file.write(b" ".join(b"%3d" % value for value in pixels.flat) + b"\n")
        for twin in range(entry["faces"]):
            face = Face(
                id=f"{source}/{entry['name']}{place}#{twin}",
                source=source,
                image=cell if entry["in_table"] else image,
                landmarks=entry["landmarks"] + twin * ASIDE,
                box=entry["box"],
                group=entry["group"],
                split=entry["split"],
                where=f"made:{place}",
                labels=entry["labels"],
                visible=entry["visible"],
            )
            faces.append(face)
    return Dataset.of(source, faces, scheme_for(len(faces[0].landmarks)))


@settings(max_examples=25, deadline=None)
@given(sources(), st.sampled_from(["afw", "helen/testset", "faces of mine"]))
def test_an_imported_folder_reads_as_what_it_was_made_of(drawn: list[dict], source: str):
    with tempfile.TemporaryDirectory() as folder:
        dataset = made(Path(folder) / "from", drawn, source)
        out = Path(folder) / "out"
        write_dataset(dataset, out)
        again = load_dataset([out], strict=True)
        for was, now in zip(dataset.faces, again.faces, strict=True):
            assert (now.id, now.source, now.group, now.split) == (
                *(was.id, was.source, was.group, was.split),
            )
            assert np.array_equal(now.landmarks, was.landmarks)
            assert (now.box, dict(now.labels)) == (was.box, dict(was.labels))
            assert now.image.read_bytes() == was.image.read_bytes()
        assert again.digest == dataset.digest
