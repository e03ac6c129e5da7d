import pickle
from pathlib import Path

import numpy as np
import pytest

from lmopt.data import SourceSummary, load_dataset, summary
from lmopt.data.dataset import Face
from lmopt.data.load import READERS, source_name
from lmopt.detector import IBUG_68, LandmarkScheme
from lmopt.errors import InputError
from tests.support.annotated import (
    FIVE_POINTS,
    row,
    smooth_picture,
    write_folder,
    write_picture,
    write_pts,
)
from tests.support.faces import FACES, requires_faces


def refusal(*paths: Path, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        load_dataset(paths, **{"strict": True, **options})
    return caught.value


def test_a_plain_folder_is_read_row_by_row(tmp_path: Path):
    boxed = {"box_x0": 1, "box_y0": 2.5, "box_x1": 30, "box_y1": 40, "extra": "ignored"}
    rows = [row("a.png", **boxed), row("b.png", FIVE_POINTS + 0.25, role="test", group="g")]
    dataset = load_dataset([write_folder(tmp_path / "mine", rows)])
    a, b = dataset.faces
    assert (a.id, a.source, a.group) == ("mine/a.png", "mine", "a.png")
    assert a.box == (1.0, 2.5, 30.0, 40.0)
    assert b.box is None
    assert (b.split, b.group) == ("test", "g")
    assert np.array_equal(b.landmarks, FIVE_POINTS + 0.25)
    assert b.where == f"{tmp_path / 'mine' / 'landmarks.csv'}:3"
    assert dataset.name == "mine"
    assert (dataset.scheme.name, dataset.scheme.eye_corners) == ("points-5", None)


def test_one_training_group_in_eight_is_for_validation(tmp_path: Path):
    # crc32 of afw/7, afw/15 and afw/22 is divisible by 8.
    rows = [row(f"{k}.png", group=str(k)) for k in range(24)]
    rows.append(row("t.png", role="test", group="7"))
    dataset = load_dataset([write_folder(tmp_path / "afw", rows)])
    assert [face.group for face in dataset.split("validation").faces] == ["7", "15", "22"]
    assert len(dataset.split("train")) == 21
    assert [face.id for face in dataset.split("test").faces] == ["afw/t.png"]


def test_a_table_that_names_validation_faces_is_believed(tmp_path: Path):
    rows = [row("a.png", group="7"), row("b.png", role="validation")]
    dataset = load_dataset([write_folder(tmp_path / "afw", rows)])
    assert [face.split for face in dataset.faces] == ["train", "validation"]


def test_faces_that_share_a_picture_are_told_apart_by_their_id(tmp_path: Path):
    rows = [row("a.png", id="left"), row("a.png", id="right")]
    dataset = load_dataset([write_folder(tmp_path / "two", rows)])
    assert [face.id for face in dataset.faces] == ["two/left", "two/right"]
    twins = write_folder(tmp_path / "twins", [row("a.png"), row("a.png")])
    error = refusal(twins)
    assert "'twins/a.png' was already given at" in error.what
    assert error.where == f"{twins}/landmarks.csv:3"


def test_300w_points_count_from_1_and_the_folder_name_tells_the_role(tmp_path: Path):
    write_picture(tmp_path / "helen" / "trainset" / "p.png", smooth_picture())
    write_pts(tmp_path / "helen" / "trainset" / "p.pts", FIVE_POINTS + 1)
    write_picture(tmp_path / "ibug" / "q.JPG", smooth_picture())
    write_pts(tmp_path / "ibug" / "q.pts", FIVE_POINTS)
    dataset = load_dataset([tmp_path])
    p, q = dataset.faces
    assert (p.id, p.group, p.box) == ("helen/trainset/p", "p", None)
    assert p.split in {"train", "validation"}
    assert np.allclose(p.landmarks, FIVE_POINTS)
    assert (q.split, q.image.name) == ("test", "q.JPG")
    assert np.allclose(q.landmarks, FIVE_POINTS - 1)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("version: 1\nn_points: 2\n{\n1 2\n3 x\n}\n", 5, "'3 x'"),
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n}\n", 3, "2 points, wanted 3"),
        ("1 2\n3 4\n", 1, "no .pts file"),
        ("version: 1\nn_points: 1\n{\nnan 4\n}\n", 1, "landmark 0 is (nan, 3)"),
    ],
)
def test_a_wrong_pts_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, what: str):
    write_picture(tmp_path / "a.png", smooth_picture())
    file = tmp_path / "a.pts"
    file.write_text(text)
    error = refusal(tmp_path)
    assert what in error.what
    assert error.where == f"{file}:{line}"


def test_a_pts_file_needs_its_picture(tmp_path: Path):
    write_pts(tmp_path / "a.pts", FIVE_POINTS)
    assert "no picture beside it" in refusal(tmp_path).what


def test_several_paths_and_parents_are_put_together(tmp_path: Path):
    for k, name in enumerate(("b", "a")):
        write_folder(tmp_path / name, [row("1.png", FIVE_POINTS + k)])
    both = load_dataset([tmp_path])
    assert [face.id for face in both.faces] == ["a/1.png", "b/1.png"]
    turned = load_dataset([tmp_path / "b", tmp_path / "a"])
    assert turned.name == "b, a"
    assert "already given" in refusal(tmp_path, tmp_path / "a").what


def test_a_source_keeps_its_name_however_it_is_reached(tmp_path: Path, monkeypatch):
    folder = write_folder(tmp_path / "helen" / "testset", [row("1.png")])
    monkeypatch.chdir(folder)
    assert source_name(folder) == source_name(Path()) == "helen/testset"


def test_empty_and_strange_folders_say_what_is_wanted(tmp_path: Path):
    empty = refusal(tmp_path)
    assert empty.what == "the folder is empty"
    for reader in READERS.values():
        assert reader.layout in (empty.hint or "")
    (tmp_path / "notes.txt").write_text("nothing")
    assert "no annotated faces" in refusal(tmp_path).what
    assert refusal(tmp_path / "gone").what == "no such folder or file"
    assert refusal(tmp_path / "notes.txt").what == "a file that is no table of annotated faces"
    assert "--data" in (refusal().hint or "")


@pytest.mark.parametrize(
    ("header", "line", "where", "what"),
    [
        ("", "", 1, "no column 'file'"),
        ("file,role,x0\n", "", 1, "no column 'y0'"),
        ("file,role,x0,y0,x1\n", "", 1, "column 'x1' without 'y1'"),
        ("file,role,x0,y0\n", "a.png,train,1\n", 2, "3 values, wanted 4"),
        ("file,role,x0,y0\n", "a.png,trian,1,2\n", 2, "role 'trian'"),
        ("file,role,x0,y0\n", "a.png,train,1,\n", 2, "y0 is '', wanted a number"),
        ("file,role,x0,y0\n", "a.png,train,1,nan\n", 2, "landmark 0 is (1, nan)"),
        ("file,role,x0,y0\n", "b.png,train,1,2\n", 2, "b.png cannot be read: No such file"),
        ("file,role,x0,y0,box_x0\n", "a.png,train,1,2,3\n", 2, "incomplete box"),
        ("file,role,x0,y0,x1,y1,visible1\n", "", 1, "no column 'visible0'"),
        ("file,role,x0,y0,visible0\n", "a.png,train,1,2,yes\n", 2, "visible0 is 'yes'"),
        (
            "file,role,x0,y0,box_x0,box_y0,box_x1,box_y1\n",
            "a.png,train,1,2,3,4,5,inf\n",
            2,
            "box (3.0, 4.0, 5.0, inf)",
        ),
    ],
)
def test_a_wrong_table_is_named_with_its_line(
    tmp_path: Path, header: str, line: str, where: int, what: str
):
    write_picture(tmp_path / "images" / "a.png", smooth_picture())
    (tmp_path / "landmarks.csv").write_text(header + line)
    error = refusal(tmp_path)
    assert what in error.what
    assert error.where == f"{tmp_path / 'landmarks.csv'}:{where}"
    assert error.hint


def test_a_table_without_rows_or_text_is_refused(tmp_path: Path):
    (tmp_path / "landmarks.csv").write_text("file,role,x0,y0\n")
    assert "no face" in refusal(tmp_path).what
    (tmp_path / "landmarks.csv").write_bytes(b"\xff\xfe\x00file")
    assert "cannot be read" in refusal(tmp_path).what


def test_the_number_of_landmarks_must_be_the_schemes(tmp_path: Path):
    five = write_folder(tmp_path / "five", [row("a.png")])
    error = refusal(five, scheme=IBUG_68)
    assert "5 landmarks, wanted 68 of 'ibug-68'" in error.what
    assert "or a contract with the data's scheme" in (error.hint or "")
    own = LandmarkScheme("own", 5, eye_corners=(0, 1))
    assert load_dataset([five], scheme=own).scheme is own
    two = write_folder(tmp_path / "two", [row("a.png", FIVE_POINTS[:2])])
    error = refusal(five, two)
    assert error.what == "2 landmarks, wanted 5 of 'points-5'"
    assert error.hint == (
        "all paths of one call share a scheme, which the first ('five') fixed: read faces of "
        "another scheme in a call of their own"
    )


def test_a_face_of_another_scheme_than_its_neighbours_is_to_be_corrected(tmp_path: Path):
    for name in "abc":
        write_picture(tmp_path / f"{name}.png", smooth_picture())
        write_pts(tmp_path / f"{name}.pts", FIVE_POINTS[: 4 if name == "b" else 5])
    error = refusal(tmp_path)
    assert error.what == "4 landmarks, wanted 5 of 'points-5'"
    assert error.hint == "correct or remove this annotation"


def test_the_digest_tells_annotations_and_pictures_but_not_places(tmp_path: Path):
    rows = [row("a.png"), row("b.png", role="test")]
    digest = load_dataset([write_folder(tmp_path / "x" / "d", rows)]).digest
    again = write_folder(tmp_path / "y" / "d", rows)
    assert load_dataset([again]).digest == digest
    moved = [rows[0], row("b.png", FIVE_POINTS + 0.001, role="test")]
    changed = load_dataset([write_folder(tmp_path / "z" / "d", moved)])
    assert changed.digest != digest
    train = load_dataset([again]).keep(lambda face: face.split != "test").digest
    assert changed.keep(lambda face: face.split != "test").digest == train
    write_picture(again / "images" / "a.png", smooth_picture(9))
    assert load_dataset([again]).digest != digest


def test_an_absent_split_says_what_there_is(tmp_path: Path):
    dataset = load_dataset([write_folder(tmp_path / "d", [row("b.png", role="test")])])
    with pytest.raises(InputError, match=r"no face of split 'train' among 1 faces \(0 train, 0"):
        dataset.split("train")
    with pytest.raises(InputError, match="unknown split 'val'"):
        dataset.split("val")  # type: ignore[arg-type]


def test_summary_counts_per_source(tmp_path: Path):
    rows = [row("7.png", group="7"), row("1.png", group="1"), row("t.png", role="test")]
    rows[0] |= {"box_x0": "0", "box_y0": "0", "box_x1": "9", "box_y1": "9"}
    write_folder(tmp_path / "afw", rows)
    write_folder(tmp_path / "b", [row("t.png", FIVE_POINTS + 1, role="test")])
    assert summary(load_dataset([tmp_path])) == (
        SourceSummary("afw", train=1, validation=1, test=1, boxes=1),
        SourceSummary("b", train=0, validation=0, test=1, boxes=0),
    )


@requires_faces
def test_real_faces_are_counted_and_shaped_as_documented():
    dataset = load_dataset([FACES / name for name in ("afw", "helen", "lfpw")])
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [
        1411,
        193,
        303,
    ]
    assert dataset.scheme is IBUG_68
    groups = {
        name: {(f.source, f.group) for f in dataset.split(name).faces} for name in ("train", "test")
    }
    assert not groups["train"] & groups["test"]
    shapes = np.stack([face.landmarks for face in dataset.faces])
    centered = shapes - shapes.mean(axis=1, keepdims=True)
    mean = (centered / np.ptp(shapes, axis=1).max(axis=1)[:, None, None]).mean(axis=0)
    assert mean[36, 0] < mean[30, 0] < mean[45, 0]
    assert mean[27, 1] < mean[30, 1] < mean[57, 1] < mean[8, 1]
    # A mirrored mean face is nearly itself.
    assert np.abs(mean[list(IBUG_68.mirror)] * [-1, 1] - mean).max() < 0.03


def test_faces_with_labels_travel_between_processes() -> None:
    face = Face(
        "a/0", "a", Path("0.png"), np.zeros((2, 2)), None, "0", "train", "a:1", {"pose": 1.0}
    )
    again = pickle.loads(pickle.dumps(face))
    assert (again.id, again.where, again.labels) == ("a/0", "a:1", {"pose": 1.0})
    bare = Face("a/0", "a", Path("0.png"), np.zeros((2, 2)), None, "0", "train", "a:1")
    assert pickle.loads(pickle.dumps(bare)).labels == {}
