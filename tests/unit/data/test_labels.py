"""Labels from a table reach their faces, or say what is wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.labels import with_labels
from lmopt.errors import InputError
from tests.support.annotated import row, write_folder


@pytest.fixture
def faces(tmp_path: Path) -> Dataset:
    rows = [row(f"{k}.png", role="test") for k in range(3)]
    return load_dataset([write_folder(tmp_path / "set", rows)])


def test_labels_are_matched_by_file_and_id(faces: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file, pose ,old\n0.png,1,0\nset/2.png,0,\nother.png,1,1\n")
    labelled = with_labels(faces, table)
    assert [dict(f.labels) for f in labelled.faces] == [{"pose": 1, "old": 0}, {}, {"pose": 0}]
    assert labelled.digest == faces.digest
    table.write_text("id,pose\nset/1.png,1\n")
    assert [dict(f.labels) for f in with_labels(labelled, table).faces][1] == {"pose": 1}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("name,pose\n0.png,1\n", ":1", "columns name, pose"),
        ("file,pose\n0.png,1\n1.png\n", ":3", "1 values, wanted 2"),
        ("file,pose\n0.png,yes\n", ":2", "pose is 'yes', wanted a number"),
        ("file,pose\n0.png,nan\n", ":2", "pose is 'nan', wanted a number"),
        ("file,pose\nx.png,1\n", "labels.csv", "none of its 1 rows is about one of the 3 faces"),
    ],
)
def test_wrong_labels_are_named(
    faces: Dataset, tmp_path: Path, text: str, place: str, reason: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        with_labels(faces, table)
    assert caught.value.where is not None and caught.value.where.endswith(place)


def test_a_file_name_of_two_sources_needs_its_source(faces: Dataset, tmp_path: Path) -> None:
    twins = [replace(face, id=f"b/{face.id}", source="b") for face in faces.faces]
    both = replace(faces, faces=(*faces.faces, *twins))
    table = tmp_path / "labels.csv"
    table.write_text("file,pose\n0.png,1\n")
    with pytest.raises(InputError, match=r"'0\.png' is the picture of 2 faces"):
        with_labels(both, table)
    table.write_text("file,pose\nb/0.png,1\n")
    assert sum(dict(f.labels) == {"pose": 1} for f in with_labels(both, table).faces) == 1
