"""Pose angles fitted to landmarks or read from labels, and the rarity of faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.augment import AUGMENTATIONS, NO_AUGMENTATION, TrainingFaces
from lmopt.data.synthetic.head import draw_head
from lmopt.data.synthetic.pose import draw_pose, landmarks
from lmopt.data.traits import head_angles, rarity_of, seen_through, traits_of
from lmopt.detector import IBUG_68, Contract, CropRule, LandmarkScheme
from lmopt.errors import InputError
from tests.support.annotated import face, row, write_folder

CONTRACT = Contract(
    height=24,
    width=24,
    color="rgb",
    mean=(0.0,) * 3,
    std=(255.0,) * 3,
    crop=CropRule("landmarks", 1.25, True),
    output="landmarks",
    order="xyxy",
    unit="unit",
    scheme=IBUG_68,
)


def drawn(count: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Returns the landmarks and angles of rendered heads, in 64 pixels."""
    rng, points, angles = np.random.default_rng(seed), [], []
    for _ in range(count):
        head = draw_head(rng)
        pose = draw_pose(rng, head, 64)
        points.append(landmarks(head, pose))
        angles.append((pose.yaw, pose.pitch, pose.roll))
    return np.array(points), np.array(angles)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    points, _ = drawn(6)
    rows = [row(f"{k}.png", p) for k, p in enumerate(points)]
    return load_dataset([write_folder(tmp_path_factory.mktemp("faces") / "heads", rows)])


def test_angles_of_rendered_heads_are_found_again() -> None:
    points, angles = drawn(40)
    gaps = np.rad2deg(np.abs(np.array([head_angles(p) for p in points]) - angles))
    # Faces differ from the generic head: what is left is mostly expression and proportion.
    assert (gaps.mean(axis=0) < [5.0, 7.0, 1.5]).all()
    assert (np.ptp(np.rad2deg(angles), axis=0) > [40, 25, 25]).all()


def test_angles_do_not_depend_on_size_and_place() -> None:
    (points,), _ = drawn(1)
    np.testing.assert_allclose(
        head_angles(points * 7.0 + [300, -40]), head_angles(points), atol=1e-6
    )


def test_points_in_one_place_have_no_pose() -> None:
    with pytest.raises(InputError, match="no head fits"):
        head_angles(np.zeros((68, 2)))


def test_an_augmented_crop_shows_the_angles_of_its_landmarks(faces: Dataset) -> None:
    plan = replace(AUGMENTATIONS["thesis"], shift_sigma=0.05, scale=(0.8, 1.2))
    pool, rng = TrainingFaces(faces, CONTRACT, plan), np.random.default_rng(1)
    sides = set()
    for _ in range(12):
        crop = pool.sample(3, rng)
        sides.add(bool(np.linalg.det(crop.to_picture[:, :2]) < 0))
        wanted = head_angles(crop.landmarks * 24)
        got = seen_through(head_angles(faces.faces[3].landmarks), crop.to_picture)
        np.testing.assert_allclose(got, wanted, atol=0.05)
    assert sides == {True, False}


def test_batches_carry_angles_and_rarity(faces: Dataset) -> None:
    traits = traits_of(faces)
    pool = TrainingFaces(faces, CONTRACT, NO_AUGMENTATION, with_traits=True)
    plain = TrainingFaces(faces, CONTRACT, NO_AUGMENTATION)
    pixels, targets, angles, rarity = pool.batch(6, 0, 0)
    assert np.array_equal(pixels, plain.batch(6, 0, 0)[0])
    assert np.array_equal(targets, plain.batch(6, 0, 0)[1])
    order = np.argsort(angles[:, 0])
    wanted = np.argsort(traits.angles[:, 0])
    np.testing.assert_allclose(angles[order], traits.angles[wanted], atol=1e-6)
    np.testing.assert_allclose(rarity[order], traits.rarity[wanted], rtol=1e-6)


def test_rarity_is_the_sum_of_reciprocal_shares() -> None:
    members = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_allclose(rarity_of(members), [4 / 3, 4 / 3 + 2, 4 / 3 + 2, 0])


def test_labels_state_the_pose_and_the_categories() -> None:
    def labelled(name: str, yaw: float, **more: float) -> object:
        labels = {"yaw": yaw, "pitch": -20.0, "roll": 5.0, **more}
        return replace(face(name=name), labels=labels)

    scheme = LandmarkScheme("five", 5)
    people = (labelled("a", 0), labelled("b", -40), labelled("c", 10, glasses=1.0, occlusion=0.2))
    traits = traits_of(Dataset("made", people, scheme, "digest"))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.rad2deg(traits.angles[1]), [-40, -20, 5])
    # All look up: 1. Frontal 2 of 3, profile 1 of 3, glasses 1 of 3, occlusion nobody.
    np.testing.assert_allclose(traits.rarity, [1.5 + 1, 3 + 1, 1.5 + 1 + 3])


def test_other_landmarks_need_labels() -> None:
    five = Dataset("made", (face(),), LandmarkScheme("five", 5), "digest")
    with pytest.raises(InputError, match=r"made\.csv:a: no labels yaw, pitch, roll"):
        traits_of(five)


def test_rotations_in_steps(faces: Dataset) -> None:
    pool, rng = TrainingFaces(faces, CONTRACT, AUGMENTATIONS["thesis"]), np.random.default_rng(0)
    found = set()
    for _ in range(200):
        linear = pool.sample(0, rng).to_picture[:, :2]
        side = np.sign(np.linalg.det(linear))
        degrees = np.rad2deg(np.arctan2(side * linear[1, 0], side * linear[0, 0]))
        assert degrees == pytest.approx(round(degrees / 5) * 5, abs=1e-6)
        found.add(round(degrees / 5) * 5)
    assert found == set(range(-30, 31, 5))
