from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lmopt.data import Dataset, load_dataset
from lmopt.data.augment import NO_AUGMENTATION, AugmentPlan, TrainingFaces
from lmopt.data.crop import cut_all, transform
from lmopt.detector import Contract, CropRule, LandmarkScheme
from lmopt.errors import InputError
from tests.support.annotated import (
    FIVE_POINTS,
    face,
    row,
    smooth_picture,
    write_folder,
    write_picture,
)

FIVE = LandmarkScheme("five", 5, mirror=(1, 0, 2, 4, 3))
CONTRACT = Contract(
    height=24,
    width=24,
    color="rgb",
    mean=(0.0,) * 3,
    std=(255.0,) * 3,
    crop=CropRule("landmarks", 1.5, True),
    output="landmarks",
    order="xxyy",
    unit="pixel",
    scheme=FIVE,
)
GEOMETRY = replace(
    AugmentPlan(), blur_probability=0.0, color_probability=0.0, cutout_probability=0.0
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    shifts = np.random.default_rng(3).uniform(-4, 4, (7, 5, 2))
    rows = [row(f"{k}.png", FIVE_POINTS + shift) for k, shift in enumerate(shifts)]
    folder = write_folder(tmp_path_factory.mktemp("faces") / "many", rows)
    return load_dataset([folder], scheme=FIVE)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_without_augmentation_crops_are_those_of_scoring(dataset: Dataset, color: str):
    channels = 1 if color == "gray" else 3
    contract = replace(CONTRACT, color=color, mean=(0.0,) * channels, std=(1.0,) * channels)
    faces = TrainingFaces(dataset, contract, NO_AUGMENTATION)
    wanted = cut_all(dataset, contract)
    for index in range(len(dataset)):
        crop = faces.sample(index, np.random.default_rng(index))
        assert np.array_equal(crop.pixels, wanted.pixels[index])
        assert np.allclose(crop.landmarks, wanted.landmarks[index])


def test_a_batch_is_encoded_by_the_contract(dataset: Dataset):
    faces = TrainingFaces(dataset, CONTRACT, NO_AUGMENTATION)
    pixels, targets = faces.batch(7, 0, 0)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (7, 24, 24, 3))
    assert (targets.dtype, targets.shape) == (np.float32, (7, 10))
    wanted = cut_all(dataset, CONTRACT)
    order = [np.flatnonzero((wanted.pixels == one).all(axis=(1, 2, 3)))[0] for one in pixels]
    assert sorted(order) == list(range(7))
    assert np.array_equal(targets, CONTRACT.encode(wanted.landmarks[order]))


def test_a_batch_depends_on_seed_and_number_alone(dataset: Dataset):
    faces = TrainingFaces(dataset, CONTRACT)
    whole = list(islice(faces.batches(4, 11), 6))
    resumed = list(islice(TrainingFaces(dataset, CONTRACT).batches(4, 11, start=3), 3))
    for (pixels, targets), (again, same) in zip(whole[3:], resumed, strict=True):
        assert np.array_equal(pixels, again)
        assert np.array_equal(targets, same)
    alone = TrainingFaces(dataset.keep(lambda face: face.id == "many/0.png"), CONTRACT)
    for seed, index in ((11, 1), (12, 0)):
        assert not np.array_equal(alone.batch(4, 11, 0)[1], alone.batch(4, seed, index)[1])


def test_repeated_views_hang_on_face_and_epoch_alone(dataset: Dataset) -> None:
    faces = TrainingFaces(dataset, CONTRACT).repeating(2)
    epochs = [{crop.tobytes() for crop in faces.batch(7, 0, index)[0]} for index in range(4)]
    other = [{crop.tobytes() for crop in faces.batch(7, 5, index)[0]} for index in range(2)]
    assert other == epochs[:2]
    assert epochs[2:] == epochs[:2]
    assert not epochs[0] & epochs[1]


def test_every_face_comes_once_per_epoch(dataset: Dataset):
    faces = TrainingFaces(dataset, CONTRACT, NO_AUGMENTATION)
    targets = np.concatenate([faces.batch(4, 5, index)[1] for index in range(7)])  # 4 epochs of 7
    epochs = targets.reshape(4, 7, 10)
    sets = [{tuple(one) for one in epoch} for epoch in epochs.tolist()]
    assert len(sets[0]) == 7
    assert sets[0] == sets[1] == sets[2] == sets[3]
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_flip_mirrors_pixels_and_swaps_landmarks(dataset: Dataset):
    flipping = replace(NO_AUGMENTATION, flip_probability=1.0)
    crop = TrainingFaces(dataset, CONTRACT, flipping).sample(2, np.random.default_rng(0))
    plain = TrainingFaces(dataset, CONTRACT, NO_AUGMENTATION).sample(2, np.random.default_rng(0))
    difference = crop.pixels[:, ::-1].astype(int) - plain.pixels
    assert np.abs(difference).max() <= 4  # the warp rounds positions to 1/32 pixel
    assert np.allclose(crop.landmarks[:, 0], 1 - plain.landmarks[[1, 0, 2, 4, 3], 0])
    assert np.allclose(crop.landmarks[:, 1], plain.landmarks[[1, 0, 2, 4, 3], 1])
    unmirrored = replace(CONTRACT, scheme=LandmarkScheme("five", 5))
    kept = TrainingFaces(dataset, unmirrored, flipping).sample(2, np.random.default_rng(0))
    assert np.array_equal(kept.pixels, plain.pixels)


def test_landmarks_follow_the_pixels(tmp_path: Path):
    # A bright spot on every landmark must be found at the landmark of every crop.
    picture = np.zeros((64, 64, 3), np.uint8)
    points = np.round(FIVE_POINTS)
    folder = write_folder(tmp_path / "spots", [row("a.png", points)])
    for x, y in points.astype(int):
        picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    write_picture(folder / "images" / "a.png", picture)
    contract = replace(CONTRACT, height=96, width=96)
    faces = TrainingFaces(load_dataset([folder], scheme=FIVE), contract, GEOMETRY)
    rng = np.random.default_rng(1)
    for _ in range(40):
        crop = faces.sample(0, rng)
        for x, y in np.round(crop.landmarks * 96 - 0.5).astype(int):
            if 2 <= x < 94 and 2 <= y < 94:
                assert crop.pixels[y, x, 0] > 200


def test_views_vary_as_planned(dataset: Dataset):
    faces = TrainingFaces(dataset, CONTRACT, replace(GEOMETRY, box_sigma=0.0, flip_probability=0.5))
    rng = np.random.default_rng(0)
    views = np.stack([faces.sample(0, rng).to_picture for _ in range(1500)])
    low, high = np.ptp(dataset.faces[0].landmarks, axis=0).max() * 1.5 * np.array([0.9, 1.15])
    sides = np.sqrt(np.abs(np.linalg.det(views[:, :, :2])))
    assert low <= sides.min() < low * 1.01
    assert high * 0.99 < sides.max() <= high
    flipped = np.linalg.det(views[:, :, :2]) < 0
    assert 0.45 < flipped.mean() < 0.55
    angles = np.degrees(np.arctan2(-views[:, 0, 1], views[:, 1, 1]))
    assert np.abs(angles).max() <= 40 + 1e-9
    assert 0.17 < (np.abs(angles) < 1e-9).mean() < 0.23
    assert 12.5 < np.std(angles[np.abs(angles) > 1e-9]) < 15
    box = np.array([dataset.faces[0].landmarks.min(0), dataset.faces[0].landmarks.max(0)])
    centers = transform_all(views, np.array([0.5, 0.5])) - box.mean(axis=0)
    assert np.allclose((centers / sides[:, None]).std(axis=0), 0.035, rtol=0.1)


def transform_all(affines: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.stack([transform(affine, point) for affine in affines])


def test_looks_vary_as_planned_and_leave_geometry_alone(dataset: Dataset):
    plan = replace(NO_AUGMENTATION, cutout_probability=1.0, cutout_side=(0.45, 0.45))
    faces = TrainingFaces(dataset, CONTRACT, plan)
    plain = cut_all(dataset, CONTRACT)
    crop = faces.sample(1, np.random.default_rng(4))
    changed = (crop.pixels != plain.pixels[1]).any(axis=2)
    assert changed.sum() <= 10 * 10  # int(0.45 * 24) each way
    assert changed.sum() > 80
    assert np.array_equal(crop.landmarks, plain.landmarks[1])
    gray = replace(
        NO_AUGMENTATION, color_probability=1.0, gray_probability=1.0, channel_gain=(1.0, 1.0)
    )
    pixels = TrainingFaces(dataset, CONTRACT, gray).sample(0, np.random.default_rng(0)).pixels
    assert (pixels == pixels[..., :1]).all()
    blur = replace(NO_AUGMENTATION, blur_probability=1.0, blur_sigma=(1.4, 1.4))
    blurred = TrainingFaces(dataset, CONTRACT, blur).sample(0, np.random.default_rng(0)).pixels
    roughness = [np.abs(np.diff(p.astype(int), axis=0)).mean() for p in (plain.pixels[0], blurred)]
    assert roughness[1] < roughness[0]


def test_a_share_fills_its_part_of_the_batches(tmp_path: Path):
    for name, seed in (("strong", 0.0), ("weak", 1.0)):
        rows = [row(f"{k}.png", FIVE_POINTS + seed, role="validation") for k in range(3)]
        write_folder(tmp_path / name, rows)
    both = load_dataset([tmp_path], scheme=FIVE)
    faces = TrainingFaces(both, CONTRACT, NO_AUGMENTATION, shares={"weak": 0.2})
    chosen = np.concatenate([faces._chosen(50, 1, index)[0] for index in range(40)])
    weak = np.array([both.faces[index].source == "weak" for index in chosen])
    assert 0.17 < weak.mean() < 0.23
    assert set(chosen.tolist()) == set(range(6))
    with pytest.raises(InputError, match="a share for 'wek', but the data has strong, weak"):
        TrainingFaces(both, CONTRACT, shares={"wek": 0.2})
    with pytest.raises(InputError, match="leave"):
        TrainingFaces(both, CONTRACT, shares={"weak": 1.0})


def test_wrong_faces_are_refused_before_any_work(dataset: Dataset):
    with pytest.raises(InputError, match="no faces to train on"):
        TrainingFaces(dataset.keep(lambda _: False), CONTRACT)
    test = Dataset("d", (face(split="test"),), FIVE, "digest")
    with pytest.raises(InputError, match="'made/a' is a test face"):
        TrainingFaces(test, CONTRACT)
    with pytest.raises(InputError, match=r"5 landmarks .* wants 4"):
        TrainingFaces(dataset, replace(CONTRACT, scheme=LandmarkScheme("four", 4)))


def test_a_face_outside_its_picture_is_refused(tmp_path: Path):
    near = load_dataset([write_folder(tmp_path / "far", [row("a.png")])], scheme=FIVE)
    moved = [replace(face, landmarks=face.landmarks + 500) for face in near.faces]
    with pytest.raises(InputError, match="outside its picture"):
        TrainingFaces(Dataset.of("far", moved, FIVE), CONTRACT)


def test_pictures_are_kept_small(tmp_path: Path):
    points = (FIVE_POINTS - 32) * 8 + 300
    folder = write_folder(tmp_path / "large", [row("a.png", points)])
    write_picture(folder / "images" / "a.png", smooth_picture(height=600, width=600))
    faces = TrainingFaces(load_dataset([folder], scheme=FIVE), CONTRACT)
    largest = 2 * AugmentPlan().reach * 24 * 1.25 + 6
    assert max(faces._faces[0].shrunk.pixels.shape) <= largest
