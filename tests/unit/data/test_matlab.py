"""COFW's own files, of MATLAB 7.3 and before, whole and broken in the usual ways."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from lmopt.data import Dataset, load_dataset
from lmopt.data.picture import picture_size, read_picture
from lmopt.detector.scheme import COFW_29
from lmopt.errors import InputError
from tests.support.annotated import smooth_picture, write_cofw

FACES = 3
BOTH = pytest.mark.parametrize("old", [False, True], ids=["7.3", "5"])


def pictures() -> list[np.ndarray]:
    """Of three sizes; the second is gray."""
    gray = smooth_picture(1, 70, 60)[..., 0]
    return [smooth_picture(0, 64, 80), gray, smooth_picture(2, 66, 62)]


def points() -> np.ndarray:
    return np.random.default_rng(4).uniform(10, 50, (FACES, 29, 2))


def marks() -> np.ndarray:
    hidden = np.zeros((FACES, 29))
    hidden[1, 4] = 1
    return np.hstack([points()[..., 0] + 1, points()[..., 1] + 1, hidden])


def boxes() -> np.ndarray:
    return np.array([[6.0, 7, 45, 54], [1, 1, 50, 60], [3, 2, 40, 41]])


def written(file: Path, *, old: bool, part: str = "Tr", **changed: object) -> Path:
    given = {"pictures": pictures(), "marks": marks(), "boxes": boxes(), **changed}
    return write_cofw(file, part=part, old=old, **given)


def error_of(file: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_dataset([file])
    assert caught.value.hint
    return caught.value


def same(left: Dataset, right: Dataset) -> bool:
    return left.digest == right.digest


@BOTH
def test_pictures_landmarks_boxes_and_flags_are_read(tmp_path: Path, old: bool):
    file = written(tmp_path / "COFW_train_color.mat", old=old)
    dataset = load_dataset([file], strict=True)
    assert dataset.scheme is COFW_29
    for k, face in enumerate(dataset.faces):
        assert face.id == f"COFW_train_color/IsTr:{k + 1}"
        assert face.where == f"{file}:{k + 1}"
        np.testing.assert_allclose(face.landmarks, points()[k], atol=1e-12)
        want = pictures()[k]
        assert picture_size(face) == want.shape[1::-1]
        rgb = want if want.ndim == 3 else np.repeat(want[..., None], 3, axis=2)
        np.testing.assert_array_equal(read_picture(face), rgb)
    assert dataset.faces[0].box == (5, 6, 50, 60)
    assert [face.labels["occlusion"] for face in dataset.faces] == [0, 1, 0]
    assert [np.count_nonzero(~face.visible) > 0 for face in dataset.faces] == [False, True, False]
    assert {face.split for face in dataset.faces} <= {"train", "validation"}
    assert [Path(face.image.name).suffix for face in dataset.faces] == [".ppm", ".pgm", ".ppm"]
    copy = pickle.loads(pickle.dumps(dataset.faces[2]))
    assert copy.image.read_bytes() == dataset.faces[2].image.read_bytes()


def test_both_kinds_of_file_give_the_same_faces(tmp_path: Path):
    for old, folder in ((False, "new"), (True, "old")):
        (tmp_path / folder / "cofw").mkdir(parents=True)
        written(tmp_path / folder / "cofw" / "a.mat", old=old)
    assert same(*(load_dataset([tmp_path / f / "cofw"]) for f in ("new", "old")))


@BOTH
def test_the_variables_say_which_faces_are_for_the_test(tmp_path: Path, old: bool):
    written(tmp_path / "COFW_train.mat", old=old)
    others = np.roll(marks(), 1, axis=0)
    written(tmp_path / "COFW_test.mat", old=old, part="T", marks=others)
    dataset = load_dataset([tmp_path])
    assert len(dataset) == 2 * FACES
    assert [face.split == "test" for face in dataset.faces] == FACES * [True] + FACES * [False]


def test_a_changed_file_is_read_anew(tmp_path: Path):
    file = written(tmp_path / "cofw.mat", old=True)
    before = load_dataset([file])
    written(file, old=True, boxes=boxes() + 1)
    assert not same(before, load_dataset([file]))


WRONG_SIZE: dict[str, tuple[dict[str, Callable[[], object]], str]] = {
    "width": ({"marks": lambda: marks()[:, :58]}, "phisTr holds float64[3, 58], wanted"),
    "box": ({"boxes": lambda: boxes()[:, :3]}, "bboxesTr holds float64[3, 3], wanted"),
    "rows": ({"boxes": lambda: boxes()[:2]}, "bboxesTr holds float64[2, 4], wanted"),
}


@BOTH
@pytest.mark.parametrize("case", WRONG_SIZE)
def test_a_matrix_of_another_size_is_named(tmp_path: Path, case: str, old: bool):
    changed, what = WRONG_SIZE[case]
    file = written(tmp_path / "a.mat", old=old, **{key: make() for key, make in changed.items()})
    error = error_of(file)
    assert what in error.what and error.where == str(file)


@BOTH
@pytest.mark.parametrize("name", ["IsTr", "phisTr", "bboxesTr"])
def test_a_missing_variable_is_named(tmp_path: Path, name: str, old: bool):
    file = written(tmp_path / "cofw.mat", old=old)
    if old:
        held = scipy.io.loadmat(file)
        kept = {k: v for k, v in held.items() if k[0] != "_" and k != name}
        scipy.io.savemat(file, kept)
    else:
        with h5py.File(file, "r+") as opened:
            del opened[name]
    assert error_of(file).what == f"it holds no {name}"


@BOTH
def test_numbers_that_are_none_are_one_skipped_face(tmp_path: Path, old: bool):
    broken = marks()
    broken[1, 30] = np.nan
    boxless = boxes()
    boxless[2] = np.nan
    dataset = load_dataset([written(tmp_path / "a.mat", old=old, marks=broken, boxes=boxless)])
    assert [face.id for face in dataset.faces] == ["a/IsTr:1"]
    landmark, box = dataset.skipped
    assert "landmark 1" in landmark.what and landmark.where == f"{tmp_path / 'a.mat'}:2"
    assert "box" in box.what and box.where == f"{tmp_path / 'a.mat'}:3"


@BOTH
def test_a_cell_that_holds_no_picture_is_one_skipped_face(tmp_path: Path, old: bool):
    odd = [pictures()[0].astype(np.float64), pictures()[1], np.zeros((9, 9, 2), np.uint8)]
    dataset = load_dataset([written(tmp_path / "a.mat", old=old, pictures=odd)])
    assert [face.id for face in dataset.faces] == ["a/IsTr:2"]
    assert [error.where for error in dataset.skipped] == [
        f"{tmp_path / 'a.mat'}:{k}" for k in (1, 3)
    ]
    assert "IsTr{1} holds float64[64, 80, 3], wanted a picture" in dataset.skipped[0].what
    assert "IsTr{3} holds uint8[9, 9, 2]" in dataset.skipped[1].what


def test_a_reference_to_nothing_is_one_skipped_face(tmp_path: Path):
    file = written(tmp_path / "a.mat", old=False)
    with h5py.File(file, "r+") as opened:
        opened["IsTr"][0, 1] = h5py.Reference()
    dataset = load_dataset([file])
    assert len(dataset) == FACES - 1
    assert "IsTr{2} cannot be read" in dataset.skipped[0].what


def test_what_lies_in_another_file_is_refused(tmp_path: Path):
    other = written(tmp_path / "other.mat", old=False)
    file = written(tmp_path / "cofw.mat", old=False)
    with h5py.File(file, "r+") as opened:
        del opened["phisTr"]
        opened["phisTr"] = h5py.ExternalLink(other, "phisTr")
    assert "phisTr is a link to another place" in error_of(file).what


@BOTH
@pytest.mark.parametrize("share", [0.01, 0.4, 0.95])
def test_a_file_that_is_cut_short_is_an_error_or_lacks_faces(
    tmp_path: Path, share: float, old: bool
):
    file = written(tmp_path / "cofw.mat", old=old)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    error = error_of(file)
    assert error.where and error.where.startswith(str(file))


def test_a_size_that_no_file_can_have_is_not_believed(tmp_path: Path):
    file = written(tmp_path / "cofw.mat", old=True)
    data = bytearray(file.read_bytes())
    # The head is 128 bytes, then tags and flags of the first variable, then its dimensions.
    place = data.index(np.array([FACES, 1], np.int32).tobytes())
    data[place + 3] = 57
    file.write_bytes(data)
    assert "IsTr is said to be [956301315, 1]" in error_of(file).what


def test_files_of_others_are_left_alone(tmp_path: Path):
    scipy.io.savemat(tmp_path / "pose.mat", {"pt3d_68": np.zeros((3, 68))})
    (tmp_path / "noise.mat").write_bytes(b"MATLAB")
    assert "no annotated faces" in error_of(tmp_path).what
    scipy.io.savemat(tmp_path / "cofw_pose.mat", {"pt3d_68": np.zeros((3, 68))})
    assert error_of(tmp_path / "cofw_pose.mat").what == "it holds nothing of COFW"
