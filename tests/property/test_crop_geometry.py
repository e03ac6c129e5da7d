"""Crops and views lead back to the picture exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.data import Dataset, load_dataset
from lmopt.data.augment import AugmentPlan, TrainingFaces
from lmopt.data.crop import after, cut, invert, transform
from lmopt.detector import Contract, CropRule, LandmarkScheme
from tests.support.annotated import FIVE_POINTS, face, row, smooth_picture, write_folder

FIVE = LandmarkScheme("five", 5, mirror=(1, 0, 2, 4, 3))
PICTURE = smooth_picture()

contracts = st.builds(
    Contract,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    color=st.just("rgb"),
    mean=st.just((0.0, 0.0, 0.0)),
    std=st.just((255.0, 255.0, 255.0)),
    crop=st.builds(
        CropRule, st.sampled_from(["landmarks", "given"]), st.floats(0.5, 3.0), st.booleans()
    ),
    output=st.just("landmarks"),
    order=st.sampled_from(["xyxy", "xxyy"]),
    unit=st.sampled_from(["unit", "pixel", "centered"]),
    scheme=st.just(FIVE),
)
coordinates = st.floats(-20.0, 90.0)


@given(contracts, st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_crops_landmarks_lead_back_to_the_picture(contract, points):
    landmarks = np.array(points)
    x0, y0 = landmarks.min(axis=0)
    landmarks[1] = [x0 + 5.0, y0 + 7.0]  # never without area
    crop = cut(PICTURE, face(landmarks=landmarks, box=(3.0, 4.0, 40.5, 50.0)), contract)
    assert crop.pixels.shape == (contract.height, contract.width, 3)
    assert np.allclose(transform(crop.to_picture, crop.landmarks), landmarks, atol=1e-8)
    answer = contract.decode(contract.encode(crop.landmarks[None]))[0]
    scale = np.abs(crop.landmarks).max() + 1
    assert np.allclose(answer, crop.landmarks, atol=1e-5 * scale)
    if contract.crop.box == "landmarks" and contract.crop.margin >= 1:
        assert crop.landmarks.min() > -1e-9
        assert crop.landmarks.max() < 1 + 1e-9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_folder(tmp_path_factory.mktemp("faces") / "one", [row("a.png")])
    return load_dataset([folder], scheme=FIVE)


@given(contracts, st.integers(0, 2**32), st.floats(0, 0.2), st.floats(0, 0.1), st.floats(0, 90))
@settings(max_examples=60, deadline=None)
def test_an_augmented_views_landmarks_lead_back_to_the_picture(
    dataset, contract, seed, shift, box, limit
):
    contract = replace(contract, crop=replace(contract.crop, box="landmarks"))
    plan = AugmentPlan(rotation_sigma=60, rotation_limit=limit, shift_sigma=shift, box_sigma=box)
    crop = TrainingFaces(dataset, contract, plan, threads=1).sample(0, np.random.default_rng(seed))
    back = transform(crop.to_picture, crop.landmarks)
    mirrored = np.linalg.det(crop.to_picture[:, :2]) < 0
    wanted = FIVE_POINTS[list(FIVE.mirror)] if mirrored else FIVE_POINTS
    assert np.allclose(back, wanted, atol=1e-8)
    assert crop.pixels.shape == (contract.height, contract.width, 3)


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_an_affine_map_after_its_inverse_changes_nothing(numbers):
    affine = np.add(np.reshape(numbers, (2, 3)), [[20, 0, 0], [0, 20, 0]])
    both = after(affine, invert(affine))
    assert np.allclose(both, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
