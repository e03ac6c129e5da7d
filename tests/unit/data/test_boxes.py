from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.crop import face_box, landmark_box
from lmopt.data.detect import with_detected_boxes
from lmopt.data.jitter import SIDE_SIGMA
from lmopt.detector.contract import CropRule
from lmopt.errors import InputError
from tests.support.annotated import FIVE_POINTS, face, row, write_folder, write_picture
from tests.support.faces import FACES, requires_faces
from tests.support.tiny_yunet import write_tiny_yunet

JITTERED = CropRule("jittered")


def test_a_jittered_box_is_always_the_same_for_a_face_and_differs_between_faces():
    first = face_box(face(name="a"), JITTERED)
    assert first == face_box(face(name="a"), JITTERED)
    assert first != face_box(face(name="b"), JITTERED)
    assert first != landmark_box(face(name="a"))


def test_jitter_moves_with_the_face():
    box = np.array(face_box(face(name="7"), JITTERED))
    moved = face_box(face(landmarks=FIVE_POINTS * 2 + 10, name="7"), JITTERED)
    assert np.allclose(moved, box * 2 + 10)


@requires_faces
def test_jitter_is_as_large_as_measured_on_given_boxes():
    found = load_dataset([FACES / name for name in ("afw", "helen", "lfpw")])
    faces = [f for f in found.faces if f.split != "test"]
    given = np.array([f.box for f in faces])
    own = np.array([landmark_box(f) for f in faces])
    sides = np.tile(own[:, 2:] - own[:, :2], 2)
    spread = ((given - own) / sides).std(0)
    assert spread.mean() == pytest.approx(SIDE_SIGMA, abs=0.005)
    assert (spread > 0.03).all() and (spread < 0.06).all()


def bright(tmp_path: Path) -> Dataset:
    """Two faces of which only the first has a bright cell on it, and one far away from it."""
    rows = [row(f"{name}.png") for name in "abc"]
    folder = write_folder(tmp_path / "d", rows)
    for name, cell in {"a": (24, 32), "b": None, "c": (88, 96)}.items():
        picture = np.zeros((128, 160, 3), np.uint8)
        if cell is not None:
            picture[cell[0] : cell[0] + 8, cell[1] : cell[1] + 8] = 255
        write_picture(folder / "images" / f"{name}.png", picture)
    return load_dataset([folder])


def test_detected_boxes_go_to_the_faces_they_lie_on(tmp_path: Path):
    model = write_tiny_yunet(tmp_path / "tiny.onnx")
    seen: list[int] = []
    found = with_detected_boxes(bright(tmp_path), model, on_progress=seen.append)
    a, b, c = found.faces
    # The cell's centre is (36, 28) from the picture's corner; 0 is half a pixel further.
    assert a.box == pytest.approx((15.5, 3.5, 55.5, 51.5), abs=0.05)
    assert (b.box, c.box) == (None, None)
    assert seen == [1, 2, 3]
    assert found.name == "d (boxes of tiny.onnx)"
    assert found.digest != bright(tmp_path).digest


def test_large_pictures_are_shrunk_for_the_detector(tmp_path: Path):
    dataset = bright(tmp_path)
    picture = np.zeros((1024, 2048, 3), np.uint8)
    picture[48:64, 64:80] = 255  # the cell above, twice as large
    write_picture(tmp_path / "d" / "images" / "a.png", picture)
    double = [replace(dataset.faces[0], landmarks=FIVE_POINTS * 2)]
    dataset = Dataset.of("d", double, dataset.scheme)
    (a,) = with_detected_boxes(dataset, write_tiny_yunet(tmp_path / "tiny.onnx")).faces
    assert a.box == pytest.approx((31.5, 7.5, 111.5, 103.5), abs=0.1)


def test_a_detector_that_cannot_be_used_is_named(tmp_path: Path):
    dataset = bright(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    (tmp_path / "m.tflite").write_bytes(b"x")
    cases = {
        "gone.onnx": "no such file",
        "broken.onnx": "OpenCV cannot use it",
        "m.tflite": "ending in '.tflite' is no face detector",
    }
    for name, what in cases.items():
        with pytest.raises(InputError, match=what) as caught:
            with_detected_boxes(dataset, tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
    dark = Dataset.of("dark", dataset.faces[1:2], dataset.scheme)
    with pytest.raises(InputError, match="finds none of the 1 faces of dark"):
        with_detected_boxes(dark, write_tiny_yunet(tmp_path / "tiny.onnx"))


@pytest.mark.skipif(hasattr(cv2, "CascadeClassifier"), reason="this OpenCV has cascades")
def test_a_cascade_needs_an_opencv_that_has_them(tmp_path: Path):
    (tmp_path / "face.xml").write_text("<opencv_storage/>")
    with pytest.raises(InputError, match="has no cascades") as caught:
        with_detected_boxes(bright(tmp_path), tmp_path / "face.xml")
    assert "opencv-python-headless<5" in (caught.value.hint or "")
