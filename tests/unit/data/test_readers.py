"""Every annotation format, with the defects that files of it have."""

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.labels import having
from lmopt.data.picture import read_picture
from lmopt.detector import IBUG_68
from lmopt.detector.scheme import COFW_29, WFLW_98
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


def points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(8, 56, (count, 2)).round(3)


def numbers(values: np.ndarray, separator: str = " ") -> str:
    return separator.join(str(value) for value in np.ravel(values).tolist())


def one(*paths: Path) -> InputError:
    dataset = load_dataset(paths)
    assert len(dataset.skipped) == 1, dataset.skipped
    with pytest.raises(InputError) as caught:
        load_dataset(paths, strict=True)
    assert str(caught.value) == str(dataset.skipped[0])
    return dataset.skipped[0]


def ids(dataset: Dataset) -> list[str]:
    return [face.id for face in dataset.faces]


# 300-W


def test_a_300w_tree_has_the_official_subsets(tmp_path: Path):
    places = ("afw", "helen/trainset", "helen/testset", "lfpw/trainset", "lfpw/testset", "ibug")
    for seed, place in enumerate(places):
        write_picture(tmp_path / place / "p.png", smooth_picture(seed))
        write_pts(tmp_path / place / "p.pts", points(68, seed) + 1)
    dataset = load_dataset([tmp_path])
    assert dataset.scheme is IBUG_68
    assert ids(having(dataset, "common")) == ["helen/testset/p", "lfpw/testset/p"]
    assert ids(having(dataset, "challenging")) == ["ibug/p"]
    assert ids(having(dataset, "full")) == ids(dataset.split("test"))
    with pytest.raises(InputError, match="no face has the label 'smile'") as caught:
        having(dataset, "smile")
    assert caught.value.hint == "there are challenging, common, full"


@pytest.mark.parametrize("order", [("testset", "trainset"), ("trainset", "testset")])
def test_a_training_face_that_is_a_test_face_is_left_out(tmp_path: Path, order: tuple[str, str]):
    folders = [tmp_path / "helen" / part for part in order]
    for seed, folder in enumerate(folders):
        for name, own in (("p1", 0), ("q", 1 + seed)):
            write_picture(folder / f"{name}.png", smooth_picture(own))
            write_pts(folder / f"{name}.pts", points(68) + 1)
    error = one(*folders)
    assert error.where == f"{tmp_path / 'helen' / 'trainset' / 'p1.pts'}:1"
    twin = f"'helen/testset/p1' (test) at {tmp_path / 'helen' / 'testset' / 'p1.pts'}:1"
    assert error.what == f"face 'helen/trainset/p1' (train) is {twin}: same picture and landmarks"
    assert "remove one of the two" in (error.hint or "")
    kept = {f"helen/{part}/{name}" for part in order for name in ("p1", "q")}
    assert set(ids(load_dataset(folders))) == kept - {"helen/trainset/p1"}


def test_a_face_twice_in_one_split_and_other_faces_of_a_picture_are_kept(tmp_path: Path):
    mark = {"split": "train"}
    right = row("1.png", points(5), split="test", id="right")
    write_folder(tmp_path / "a", [row("1.png", **mark), row("2.png", **mark)])
    write_folder(tmp_path / "b", [row("1.png", **mark), right])
    found = load_dataset([tmp_path], strict=True)
    assert ids(found) == ["a/1.png", "a/2.png", "b/1.png", "b/right"]


def test_faces_of_one_photo_are_one_group(tmp_path: Path):
    for name in ("1051618982_1", "1051618982_2", "image_0001", "image_0002"):
        write_picture(tmp_path / f"{name}.png", smooth_picture())
        write_pts(tmp_path / f"{name}.pts", FIVE_POINTS + 1)
    groups = [face.group for face in load_dataset([tmp_path]).faces]
    assert groups == ["1051618982", "1051618982", "image_0001", "image_0002"]


PTS = (
    "version: 1\nn_points:  5\n{\n" + "\n".join(f"{x + 1} {y + 1}" for x, y in FIVE_POINTS) + "\n}"
)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text + "\n",
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace("\n{", "\n\n{\n").replace("}", "\n\n}\n\n"),
        lambda text: "# by hand\n" + text.replace("{\n", "{\n// jaw\n"),
        lambda text: text.replace("version: 1", "version: 1.0").replace("n_points: ", "n_points :"),
    ],
    ids=["no-newline", "crlf", "bom", "tabs", "blank-lines", "comments", "spacing"],
)
def test_pts_files_are_read_however_they_are_written(tmp_path: Path, spoil: Callable[[str], str]):
    write_picture(tmp_path / "a face.JPEG", smooth_picture())
    (tmp_path / "a face.PTS").write_bytes(spoil(PTS).encode())
    (face,) = load_dataset([tmp_path]).faces
    assert face.id == f"{tmp_path.name}/a face"
    assert face.image.name == "a face.JPEG"
    assert np.array_equal(face.landmarks, FIVE_POINTS)


def test_one_broken_pts_file_is_left_out_and_named(tmp_path: Path):
    for name in ("a", "b", "c"):
        write_picture(tmp_path / f"{name}.png", smooth_picture())
        write_pts(tmp_path / f"{name}.pts", FIVE_POINTS + 1)
    write_pts(tmp_path / "b.pts", FIVE_POINTS[:4] + 1)
    error = one(tmp_path)
    assert "4 landmarks, wanted 5" in error.what
    assert error.where == f"{tmp_path / 'b.pts'}:1"
    assert ids(load_dataset([tmp_path])) == [f"{tmp_path.name}/a", f"{tmp_path.name}/c"]


# The folder layout


def five(folder: Path, **columns: object) -> Path:
    return write_folder(folder, [row("a b.png"), row("c.png", **columns), row("d.png")])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text.rstrip("\n"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", ";"),
        lambda text: "# made by hand\n\n" + text.replace("\n", "\n\n# next\n , \n"),
    ],
    ids=["crlf", "bom", "tabs", "semicolons", "comments"],
)
def test_tables_are_read_however_they_are_written(tmp_path: Path, spoil: Callable[[str], str]):
    table = five(tmp_path / "d") / "landmarks.csv"
    table.write_bytes(spoil(table.read_text()).encode())
    dataset = load_dataset([tmp_path / "d"], strict=True)
    assert ids(dataset) == ["d/a b.png", "d/c.png", "d/d.png"]
    assert all(np.array_equal(face.landmarks, FIVE_POINTS) for face in dataset.faces)


BOX = dict.fromkeys(("box_x0", "box_y0", "box_x1", "box_y1"), 7.5)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"x3": "nan"}, "landmark 3 is (nan, 46)"),
        ({"x3": "a"}, "x3 is 'a', wanted a number"),
        ({"role": "trial"}, "role 'trial'"),
        ({"file": "e.png"}, "e.png cannot be read: No such file"),
        ({"id": "d.png"}, None),
        (BOX, "box (7.5, 7.5, 7.5, 7.5) has no area"),
        ({f"{axis}{k}": 9 for k in range(5) for axis in "xy"}, "all landmarks are at one place"),
        ({f"x{k}": 64 for k in range(3)}, "3 of 5 landmarks lie outside of the 64x64 picture"),
        ({"x3": 128.5}, "landmark 3 is (128.5, 46), farther outside of the 64x64 picture"),
        ({"y3": -64.5}, "landmark 3 is (24, -64.5), farther outside of the 64x64 picture"),
        ({"blur": "very"}, "blur is 'very', wanted a number"),
    ],
)
def test_a_broken_row_is_left_out_or_refused(tmp_path: Path, columns: dict, what: str | None):
    folder = five(tmp_path / "d")
    rows = [row("a b.png"), row("c.png") | {k: str(v) for k, v in columns.items()}, row("d.png")]
    names = list(dict.fromkeys(name for entry in rows for name in entry))
    lines = [names, *([entry.get(name, "") for name in names] for entry in rows)]
    (folder / "landmarks.csv").write_text("\n".join(",".join(line) for line in lines))
    error = one(folder)
    if what is None:
        assert error.where == f"{folder / 'landmarks.csv'}:4"
        assert "'d/d.png' was already given at" in error.what
        return
    assert what in error.what
    assert error.where == f"{folder / 'landmarks.csv'}:3"
    assert error.hint


def test_a_landmark_may_lie_as_far_outside_as_the_picture_is_large(tmp_path: Path):
    far = FIVE_POINTS.copy()
    far[3] = 128, -64
    assert len(load_dataset([write_folder(tmp_path / "d", [row("a.png", far)])])) == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_that_is_cut_off_is_noticed_without_decoding(tmp_path: Path, suffix: str):
    rows = [row(f"{name}{suffix}") for name in "abc"]
    folder = write_folder(tmp_path / "d", rows)
    whole = folder / "images" / f"a{suffix}"
    data = whole.read_bytes()
    whole.write_bytes(data + b"\0" * 1400 if suffix == ".jpg" else data)  # a camera's own data
    cut = folder / "images" / f"b{suffix}"
    cut.write_bytes(cut.read_bytes()[:-300])
    error = one(folder)
    assert error.where == f"{folder / 'landmarks.csv'}:3"
    assert "is cut off" in error.what


def test_nothing_usable_is_an_error_that_counts(tmp_path: Path):
    folder = five(tmp_path / "d")
    for picture in (folder / "images").iterdir():
        picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of 3 annotations can be used; the first: picture"):
        load_dataset([folder])


def test_a_source_of_another_scheme_is_no_broken_row(tmp_path: Path):
    five(tmp_path / "a")
    write_folder(tmp_path / "b", [row("1.png", FIVE_POINTS[:3]), row("2.png", FIVE_POINTS[:3])])
    with pytest.raises(InputError, match="3 landmarks, wanted 5"):
        load_dataset([tmp_path])


def test_labels_are_known_columns_and_count_for_the_digest(tmp_path: Path):
    plain = load_dataset([five(tmp_path / "x" / "d")])
    columns = {"occlusion": 1, "yaw": -12.5, "label_beard": 0, "orig_w": 640}
    dataset = load_dataset([five(tmp_path / "y" / "d", **columns)])
    assert dict(dataset.faces[1].labels) == {"occlusion": 1.0, "yaw": -12.5, "beard": 0.0}
    assert dict(dataset.faces[0].labels) == {}
    assert dataset.digest != plain.digest
    assert pickle.loads(pickle.dumps(dataset.faces[1])).labels == dataset.faces[1].labels


# WFLW


def wflw_line(name: str, landmarks: np.ndarray, attributes: str = "1 0 1 0 0 1") -> str:
    return f"{numbers(landmarks)} 5 6 50 60 {attributes} {name}"


@pytest.fixture
def wflw(tmp_path: Path) -> Path:
    lists = tmp_path / "WFLW" / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)
    for name in ("0--Parade/a 1.jpg", "1--Hand/b.jpg"):
        write_picture(tmp_path / "WFLW" / "WFLW_images" / name, smooth_picture())
    train = [wflw_line("0--Parade/a 1.jpg", points(98, k)) for k in range(2)]
    (lists / "list_98pt_rect_attr_train.txt").write_text("\r\n".join(train), newline="")
    test = wflw_line("1--Hand/b.jpg", points(98, 2), "0 0 0 0 1 0")
    (lists / "list_98pt_rect_attr_test.txt").write_text(test + "\n\n")
    part = lists.parent / "list_98pt_test"
    part.mkdir()
    (part / "list_98pt_test_blur.txt").write_text(f"{numbers(points(98, 2))} 1--Hand/b.jpg\n")
    return tmp_path / "WFLW"


def test_wflw_is_read_from_its_root_with_attributes_as_labels(wflw: Path):
    dataset = load_dataset([wflw], strict=True)
    assert dataset.scheme is WFLW_98
    assert sorted(ids(dataset)) == [
        "WFLW/0--Parade/a 1.jpg",
        "WFLW/0--Parade/a 1.jpg#2",
        "WFLW/1--Hand/b.jpg",
    ]
    faces = {face.id: face for face in dataset.faces}
    first, second = faces["WFLW/0--Parade/a 1.jpg"], faces["WFLW/0--Parade/a 1.jpg#2"]
    assert first.group == second.group and first.split == second.split != "test"
    assert np.array_equal(second.landmarks, points(98, 1))
    assert first.box == (5, 6, 50, 60)
    expected = {"pose": 1, "expression": 0, "lighting": 1, "make-up": 0, "occlusion": 0, "blur": 1}
    assert first.labels == expected
    assert ids(dataset.split("test")) == ["WFLW/1--Hand/b.jpg"]


def test_a_single_wflw_list_may_lack_box_and_attributes(wflw: Path):
    list_ = wflw / "WFLW_annotations" / "list_98pt_test" / "list_98pt_test_blur.txt"
    (face,) = load_dataset([list_]).faces
    assert face.id == "list_98pt_test_blur/1--Hand/b.jpg"
    assert (face.box, face.labels, face.split) == (None, {}, "test")


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        (numbers(points(97)) + " 1--Hand/b.jpg", "195 values, wanted 207: 196 co", "correct"),
        (wflw_line("1--Hand/b.jpg", points(97)), "205 values, wanted 207: 196 co", "correct"),
        (wflw_line("1--Hand/b.jpg", points(99)), "209 values, wanted 207: 196 co", "correct"),
        (wflw_line("1--Hand/b.jpg", points(98), "1 0 x 0 0 1"), "'x', wanted a number", "correct"),
        (wflw_line("1--Hand/gone.jpg", points(98)), "gone.jpg cannot be read", "put it there"),
        (wflw_line("1--Hand/b.png", points(98)), "b.png cannot be read", "there is b.jpg"),
        (wflw_line("1--Hand/b.jpg", points(98, 2)), "already given", "id"),
    ],
)
def test_a_broken_wflw_line_is_named(wflw: Path, line: str, what: str, hint: str):
    lists = wflw / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    with (lists / "list_98pt_rect_attr_test.txt").open("a") as file:
        file.write(line)
    error = one(wflw)
    assert what in error.what
    assert hint in (error.hint or "")
    # The test list comes first in order, its third line is the added one.
    assert error.where == f"{lists / 'list_98pt_rect_attr_test.txt'}:3"


# dlib


def dlib_box(landmarks: np.ndarray, attributes: str = "") -> str:
    parts = [f"<part name='{k:02d}' x='{x}' y='{y}'/>" for k, (x, y) in enumerate(landmarks)]
    box = f"<box top='6' left='5' width='45' height='54' {attributes}>"
    return f"{box}\n{''.join(reversed(parts))}</box>"


def dlib_xml(*images: str) -> str:
    head = "<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset><name>made</name><images>"
    return f"{head}\n{chr(10).join(images)}\n</images></dataset>"


def dlib_image(name: str, *boxes: str) -> str:
    return f"<image file='{name}'>{''.join(boxes)}</image>"


@pytest.fixture
def dlib(tmp_path: Path) -> Path:
    for name in ("afw/a 1.png", "b.png"):
        write_picture(tmp_path / "made" / name, smooth_picture())
    a = dlib_image("afw\\a 1.png", dlib_box(points(68, 0)), dlib_box(points(68, 1)))
    b = dlib_image("b.png", dlib_box(points(68, 2)), dlib_box(points(68, 3), "ignore='1'"))
    for name, images in {"all": (a, b), "all_train": (a,), "all_test": (b,)}.items():
        (tmp_path / "made" / f"{name}.xml").write_text(dlib_xml(*images))
    return tmp_path / "made"


def test_dlib_xml_is_read_by_parts_not_as_a_whole(dlib: Path):
    dataset = load_dataset([dlib], strict=True)
    assert ids(dataset) == ["made/b.png", "made/afw\\a 1.png", "made/afw\\a 1.png#2"]
    assert [face.split == "test" for face in dataset.faces] == [True, False, False]
    assert np.array_equal(dataset.faces[2].landmarks, points(68, 1))
    assert dataset.faces[0].box == (5, 6, 50, 60)
    assert dataset.scheme is IBUG_68
    whole = load_dataset([dlib / "all.xml"])
    assert ids(whole) == ["all/afw\\a 1.png", "all/afw\\a 1.png#2", "all/b.png"]


def test_a_box_without_parts_and_broken_xml_are_named_with_their_line(dlib: Path):
    table = dlib / "all.xml"
    faces = dlib_image("b.png", dlib_box(points(68))), dlib_image("b.png", "\n<box top='1'/>")
    table.write_text(dlib_xml(*faces))
    error = one(table)
    assert "a box without landmarks" in error.what
    assert error.where == f"{table}:6"
    table.write_text(table.read_text().removesuffix("</images></dataset>"))
    with pytest.raises(InputError, match="no well-formed XML: no element found") as caught:
        load_dataset([table])
    assert caught.value.where == f"{table}:7"


# COFW


@pytest.mark.parametrize("separator", [",", "\t", " "])
def test_cofw_tables_hold_all_x_then_all_y_counted_from_1(tmp_path: Path, separator: str):
    write_picture(tmp_path / "images" / "a 1.png", smooth_picture())
    write_picture(tmp_path / "images" / "b.png", smooth_picture(1))
    marks = points(29)
    hidden = np.arange(29) == 4
    lines = [
        separator.join(["file", "x", "y"]),
        separator.join(["a 1.png", numbers((marks + 1).T, separator)]),
        separator.join(
            ["b.png", numbers((marks + 1).T, separator), numbers(hidden * 1, separator)]
            + ["6", "7", "45", "54"]
        ),
        separator.join(["b.png", numbers(marks[:, 0], separator)]),
    ]
    table = tmp_path / "cofw.csv"
    table.write_text("\n".join(lines))
    error = one(table)
    assert "29 numbers after 'b.png'" in error.what
    assert error.where == f"{table}:4"
    a, b = load_dataset([tmp_path]).faces
    assert a.id == f"{tmp_path.name}/a 1.png"
    assert np.allclose(a.landmarks, marks) and np.allclose(b.landmarks, marks)
    assert (a.box, b.box) == (None, (5, 6, 50, 60))
    assert (a.labels, b.labels) == ({}, {"occlusion": 1.0})
    assert a.visible is None and np.array_equal(b.visible, ~hidden.astype(bool))
    assert load_dataset([tmp_path]).scheme is COFW_29


# Pictures inside of a table


def test_pictures_inside_of_a_table_are_read_where_they_stand(tmp_path: Path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 96, 96))
    marks = [points(68, k) for k in range(3)]
    lines = [f"{numbers(m, ',')},{numbers(p)}" for m, p in zip(marks, pictures, strict=True)]
    header = ",".join([f"{axis}{k}" for k in range(68) for axis in "xy"] + ["Image"])
    table = tmp_path / "training.csv"
    table.write_bytes(("\ufeff" + "\r\n".join([header, "", *lines])).encode())
    dataset = load_dataset([tmp_path], strict=True)
    assert ids(dataset) == [f"{tmp_path.name}/training:{line}" for line in (3, 4, 5)]
    for face, mark, picture in zip(dataset.faces, marks, pictures, strict=True):
        assert np.array_equal(face.landmarks, mark)
        assert np.array_equal(read_picture(face), np.repeat(picture[..., None], 3, axis=2))
    assert dataset.faces[0].image.name == "training-3.pgm"
    copy = pickle.loads(pickle.dumps(dataset.faces[2]))
    assert cv2.imdecode(np.frombuffer(copy.image.read_bytes(), np.uint8), 0).shape == (96, 96)
    again = tmp_path / "again" / "training.csv"
    again.parent.mkdir()
    again.write_bytes(table.read_bytes().replace(lines[1].encode(), lines[1][:-2].encode() + b" 7"))
    assert load_dataset([again]).digest != load_dataset([table]).digest


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda line: line.rpartition(" ")[0], "9215 pixels, wanted a square"),
        (lambda line: line + "9", "whole numbers from 0 to 255"),
        (lambda line: line + "x", "pixels that are no numbers"),
        (lambda line: line.partition(",")[2], "135 coordinates"),
        (lambda line: "," + line.partition(",")[2], "landmark 0 is (nan"),
        (lambda line: "200," + line.partition(",")[2], "landmark 0 is (200, "),
        (lambda line: "left" + line, "'left"),
    ],
)
def test_a_broken_row_with_pixels_is_named(tmp_path: Path, spoil: Callable[[str], str], what: str):
    line = f"{numbers(points(68), ',')},{numbers(np.full((96, 96), 200))}"
    table = tmp_path / "faces.csv"
    table.write_text(f"{line}\n{spoil(line)}\n{line}\n")
    error = one(table)
    assert what in error.what
    assert error.where == f"{table}:2"


@requires_faces
def test_real_folders_are_read_without_leaving_anything_out():
    dataset = load_dataset([FACES / name for name in ("afw", "helen", "lfpw")], strict=True)
    counts = [len(dataset.split(name)) for name in ("train", "validation", "test")]
    assert counts == [1411, 193, 303]
    assert dataset.skipped == ()
