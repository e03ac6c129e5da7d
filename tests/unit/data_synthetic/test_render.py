"""Rendered faces: landmarks lie where things are drawn, and a seed is a face."""

import contextlib
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.data.crop import cut_all
from lmopt.data.synthetic.dataset import rendered_dataset
from lmopt.data.synthetic.head import draw_head
from lmopt.data.synthetic.light import Light
from lmopt.data.synthetic.paint import Canvas
from lmopt.data.synthetic.pose import Pose, draw_pose, landmarks
from lmopt.data.synthetic.render import LABELS, RenderedFace, render_face
from lmopt.detector.scheme import IBUG_68
from lmopt.scoring.metrics import nme_percent
from lmopt.zoo import load


@cache
def rendered_face(index: int) -> RenderedFace:
    """A face that several tests look at; rendering takes most of their time."""
    return render_face(0, 0, index)


def test_a_face_depends_on_its_three_numbers_alone():
    first, again = render_face(3, 0, 7), render_face(3, 0, 7)
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.landmarks, again.landmarks)
    for other in (render_face(4, 0, 7), render_face(3, 1, 7), render_face(3, 0, 8)):
        assert not np.array_equal(first.landmarks, other.landmarks)


def test_landmarks_are_inside_the_picture_and_in_order():
    for index in range(40):
        face = rendered_face(index)
        assert face.picture.shape == (160, 160, 3) and face.picture.dtype == np.uint8
        assert face.landmarks.min() > 0 and face.landmarks.max() < 159
        low, high = face.landmarks.min(0), face.landmarks.max(0)
        assert 0.45 * 160 < (high - low).max() < 0.65 * 160


def test_positive_yaw_moves_the_nose_to_the_right_of_the_eyes_and_roll_turns_them():
    by_yaw, by_roll = [], []
    for index in range(150):
        face = rendered_face(index)
        points, labels = face.landmarks, face.labels
        across = points[45] - points[36]
        along = across / np.linalg.norm(across)
        nose = (points[30] - (points[36] + points[45]) / 2) @ along
        by_yaw.append((labels["yaw"], nose / np.linalg.norm(across)))
        by_roll.append((labels["roll"], np.degrees(np.arctan2(across[1], across[0]))))
    assert np.corrcoef(np.array(by_yaw).T)[0, 1] > 0.9
    assert np.corrcoef(np.array(by_roll).T)[0, 1] > 0.7


def test_pupils_are_darker_than_the_white_of_the_eye_on_frontal_faces():
    darker = []
    for index in range(200):
        face = rendered_face(index)
        if abs(face.labels["yaw"]) > 12 or face.labels["occlusion"] or face.labels["glasses"]:
            continue
        gray = cv2.cvtColor(face.picture, cv2.COLOR_RGB2GRAY).astype(float)
        center = face.landmarks[36:42].mean(0)
        if face.landmarks[[40, 41], 1].mean() - face.landmarks[[37, 38], 1].mean() < 4:
            continue
        white = face.landmarks[36] * 0.6 + center * 0.4
        darker.append(_at(gray, white) - _at(gray, center))
    assert len(darker) > 20 and np.mean(darker) > 8.0


def _at(gray: np.ndarray, point: np.ndarray) -> float:
    return float(gray[round(point[1]), round(point[0])])


def test_far_jaw_points_lie_on_the_visible_contour():
    rng = np.random.default_rng(5)
    checked = 0
    for _ in range(150):
        head = draw_head(rng)
        pose = draw_pose(rng, head, 160)
        if abs(pose.yaw) < 0.3 or abs(pose.roll) > 0.3:
            continue
        points = landmarks(head, pose)
        across = pose.rotation[:2, 0] / np.linalg.norm(pose.rotation[:2, 0])
        far = range(1, 7) if pose.yaw < 0 else range(10, 16)
        side = -1 if pose.yaw < 0 else 1
        for index in far:
            row = pose.project(head.jaw_rows[index])[:, :2] @ across * side
            assert points[index] @ across * side >= row.max() - 1e-6
            checked += 1
    assert checked > 60


def test_every_category_is_drawn_and_turns_reach_their_ends():
    faces = [rendered_face(index) for index in range(200)]
    share = {name: np.mean([face.labels[name] for face in faces]) for name in LABELS}
    for name in LABELS[3:]:
        assert 0.05 < share[name] < 0.6, name
    yaws = np.array([face.labels["yaw"] for face in faces])
    assert yaws.min() < -45 and yaws.max() > 45 and np.abs(yaws).max() <= 60
    for face in faces:
        turned = abs(face.labels["yaw"]) > 30
        assert face.labels["pose"] == 1 or not turned
        assert not (face.labels["dark-skin"] and face.labels["light-skin"])


def test_landmarks_behind_the_nose_or_a_thing_are_not_visible():
    far, near, frontal = [], [], []
    for index in range(200):
        face = rendered_face(index)
        if face.labels["occlusion"] == 0 and abs(face.labels["yaw"]) < 12:
            frontal.append(face.visible[36:48].mean())
        if abs(face.labels["yaw"]) > 42:
            eyes = face.visible[36:42].mean(), face.visible[42:48].mean()
            turned_right = face.labels["yaw"] > 0
            far.append(eyes[turned_right])
            near.append(eyes[not turned_right])
    assert np.mean(frontal) > 0.95
    assert np.mean(near) > 0.8 and np.mean(far) < np.mean(near) - 0.2


def test_dark_glasses_hide_the_eyes_and_clear_ones_do_not():
    seen = [
        rendered_face(index).visible[36:48].mean()
        for index in range(200)
        if rendered_face(index).labels["glasses"] and abs(rendered_face(index).labels["yaw"]) < 20
    ]
    assert min(seen) == 0 and 0.6 < np.mean(np.array(seen) > 0.9) < 1


def test_a_lamp_from_the_side_leaves_the_other_side_of_the_nose_in_shadow():
    head = draw_head(np.random.default_rng(3))
    pose = Pose(0, 0, 0, np.eye(3), 0.1)
    lamp = np.array([0.95, 0, 0.31])
    beside = [_strength_at(head, pose, lamp, shadows, -0.2, 0.38) for shadows in (False, True)]
    lit = [_strength_at(head, pose, lamp, shadows, 0.45, 0.38) for shadows in (False, True)]
    assert beside[1] < 0.8 * beside[0] and lit[1] == pytest.approx(lit[0], rel=0.02)


def _strength_at(head, pose, lamp, shadows, x, y) -> float:
    light = Light(np.ones(3), 0.3, 0.9, lamp, np.zeros(8), None, shadows)
    turned = pose.turned(head.vertices)
    strength = light.strength(head, pose, turned, np.broadcast_to([0, 0, 1.0], turned.shape))
    apart = head.vertices[..., :2] - [x, y]
    return float(strength.flat[(apart**2).sum(-1).argmin()])


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_what_lies_outside_of_the_picture_is_not_drawn(opacity):
    canvas = Canvas(np.full((20, 20, 3), 7, np.uint8))
    for shift in ([-60, 5], [60, 5], [5, -60], [5, 60]):
        corners = np.array([[0, 0], [8, 0], [4, 9.0]]) + shift
        canvas.fill(corners, [255, 255, 255], opacity)
        canvas.line(corners, [255, 255, 255], 3, opacity=opacity)
    assert (canvas.pixels == 7).all()
    canvas.fill(np.array([[-9, -9], [9, -9], [9, 9], [-9, 9.0]]), [247, 247, 247], opacity)
    assert canvas.pixels[3, 3, 0] == 7 + 240 * opacity and canvas.pixels[12, 12, 0] == 7


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_dataset_is_split_cached_and_read_like_any_folder(rendered):
    seen: list[int] = []
    first = rendered_dataset(
        train=60, validation=6, test=40, cache=rendered, on_progress=seen.append
    )
    assert seen == list(range(1, 107))
    assert [len(first.split(s)) for s in ("train", "validation", "test")] == [60, 6, 40]
    assert first.name == "rendered faces" and first.scheme == IBUG_68
    face = render_face(0, 0, 3)
    found = next(f for f in first.faces if f.image.name == "train_00003.jpg")
    assert np.abs(found.landmarks - face.landmarks).max() < 1e-3
    assert np.array_equal(found.visible, face.visible)
    assert found.labels == pytest.approx(face.labels, abs=0.01)
    again = rendered_dataset(
        train=60, validation=6, test=40, cache=rendered, on_progress=seen.append
    )
    assert len(seen) == 106 and again.digest == first.digest
    assert [p.name for p in (rendered / "rendered").iterdir()] == ["v2-seed0-60-6-40"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path):
    work = f"""
from pathlib import Path
from lmopt.data.synthetic.dataset import rendered_dataset
if __name__ == "__main__":
    rendered_dataset(train=5000, validation=8, test=8, cache=Path({str(tmp_path)!r}),
                     on_progress=lambda done: print(done, flush=True))
"""
    script = tmp_path / "render.py"
    script.write_text(work)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"1\n"
        assert len(_group(parent.pid)) > 1
        parent.kill()
    deadline = time.monotonic() + 20
    while _group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _group(parent.pid) == []


def _group(leader: int) -> list[int]:
    """The living processes of a process group."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                living.append(int(stat.parent.name))
    return living


def test_the_mean_shape_is_no_detector(rendered):
    dataset = rendered_dataset(train=60, validation=6, test=40, cache=rendered)
    contract = load("pfld-0.25@none").require_contract()
    train = cut_all(dataset.split("train"), contract).landmarks
    test = cut_all(dataset.split("test"), contract).landmarks
    guess = np.repeat(train.mean(0, keepdims=True), len(test), axis=0)
    assert nme_percent(guess, test, IBUG_68, "inter-ocular").mean() >= 12.0
