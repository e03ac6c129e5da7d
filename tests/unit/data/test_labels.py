from pathlib import Path

import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.labels import LABELS, column_of, label_of, with_labels
from lmopt.errors import InputError
from tests.support.annotated import row, write_folder


@pytest.fixture
def faces(tmp_path: Path) -> Dataset:
    write_folder(tmp_path / "x", [row("a 1.png", occlusion=1), row("b.png")])
    write_folder(tmp_path / "y", [row("b.png"), row("c.png", id="left"), row("c.png", id="right")])
    return load_dataset([tmp_path / "x", tmp_path / "y"])


def labels(dataset: Dataset) -> dict[str, dict[str, float]]:
    return {face.id: dict(face.labels) for face in dataset.faces}


def test_columns_name_labels_and_back():
    assert {label_of(column_of(label)) for label in [*LABELS, "beard"]} == {*LABELS, "beard"}
    assert label_of("scale_x") is None


def test_a_table_adds_labels_to_those_there_are(faces: Dataset, tmp_path: Path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "\ufefffile;male;yaw\r\n# by hand\r\nimages\\a 1.png;yes;-3.5\r\n\r\nc.png;FALSE;\r\n"
    )
    found = with_labels(faces, table)
    assert labels(found) == {
        "x/a 1.png": {"occlusion": 1.0, "male": 1.0, "yaw": -3.5},
        "x/b.png": {},
        "y/b.png": {},
        "y/left": {"male": 0.0},
        "y/right": {"male": 0.0},
    }
    assert found.skipped == ()
    assert found.digest != faces.digest


def test_ids_tell_faces_of_one_picture_apart(faces: Dataset, tmp_path: Path):
    table = tmp_path / "labels.csv"
    table.write_text("id,label_smile\ny/b.png,1\nright,0.25")
    found = labels(load_dataset([tmp_path / "x", tmp_path / "y"], labels=table))
    assert found["y/b.png"] == {"smile": 1.0}
    assert (found["y/left"], found["y/right"]) == ({}, {"smile": 0.25})


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("gone.png,1", "no face 'gone.png'", "correct"),
        ("b.png,1", "'b.png' is a face of x and of y", "column 'id'"),
        ("c.png,perhaps", "male is 'perhaps', wanted a number", "empty"),
        ("c.png,1,1", "3 values, wanted 2", "correct"),
    ],
)
def test_a_row_that_cannot_be_used_is_left_out_or_refused(
    faces: Dataset, tmp_path: Path, line: str, what: str, hint: str
):
    table = tmp_path / "labels.csv"
    table.write_text(f"file,male\na 1.png,1\n{line}\n")
    found = with_labels(faces, table)
    (error,) = found.skipped
    assert what in error.what and hint in (error.hint or "")
    assert error.where == f"{table}:3"
    assert labels(found)["x/a 1.png"]["male"] == 1.0
    with pytest.raises(InputError) as caught:
        with_labels(faces, table, strict=True)
    assert str(caught.value) == str(error)


def test_a_table_of_nothing_is_refused(faces: Dataset, tmp_path: Path):
    table = tmp_path / "labels.csv"
    table.write_text("name,male\na 1.png,1\n")
    with pytest.raises(InputError, match="no column 'file' or 'id'"):
        with_labels(faces, table)
    table.write_text("file,male\ngone.png,1\n")
    with pytest.raises(InputError, match=r"no face 'gone\.png'"):
        with_labels(faces, table)
    with pytest.raises(InputError, match="cannot be read"):
        with_labels(faces, tmp_path / "none.csv")
