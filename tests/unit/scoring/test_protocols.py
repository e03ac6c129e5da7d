from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lmopt.data import Dataset, Face, load_dataset
from lmopt.data.crop import mean_shape, transform
from lmopt.detector import IBUG_68, Contract, CropRule, LandmarkScheme
from lmopt.detector.document import contract_to_json
from lmopt.errors import BackendError, InputError
from lmopt.runtime.runner import file_digest
from lmopt.scoring import metrics
from lmopt.scoring.protocols import Score, ScoringProtocol, difference, evaluate_file
from tests.support.faces import FACES, requires_faces
from tests.support.tiny_tflite import crashing_model, dense_model, quantize_model

SCHEME = LandmarkScheme("four", 4, eye_corners=(0, 1))
# Corners of the unit square: their box is the square itself.
SQUARE = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64)
CONTRACT = Contract(
    height=4,
    width=2,
    color="gray",
    mean=(0.0,),
    std=(255.0,),
    crop=CropRule("landmarks", margin=2.0, square=False),
    output="landmarks",
    order="xyxy",
    unit="unit",
    scheme=SCHEME,
)
IN_CROP = SQUARE / 2 + 0.25  # where a crop of twice the box shows the square


def constant_model(points, metadata=None, shape=(1, 4, 2, 1)) -> bytes:
    """Answers with the same landmarks whatever it sees."""
    flat = np.asarray(points, np.float32).reshape(-1)
    weights = np.zeros((flat.size, int(np.prod(shape))), np.float32)
    return dense_model(weights, flat, input_shape=list(shape), metadata=metadata)


def make_faces(folder: Path, gray=(51, 102, 204), boxes=(True, True, False)) -> Dataset:
    faces = []
    for k, (value, boxed) in enumerate(zip(gray, boxes, strict=True)):
        image = folder / f"{k}.png"
        image.write_bytes(cv2.imencode(".png", np.full((80, 60, 3), value, np.uint8))[1].tobytes())
        # Faces of several sizes and places, whole in the picture also with the margin.
        landmarks = SQUARE * np.array([10.0 + 4 * k, 20.0 + 4 * k]) + np.array([17.0, 22.0])
        faces.append(
            Face(
                id=f"s/{k}",
                source="s",
                image=image,
                landmarks=landmarks,
                box=(15.0, 20.0, 35.0, 50.0) if boxed else None,
                group=str(k),
                split="test",
                where=f"list.csv:{k + 2}",
            )
        )
    return Dataset.of("squares", faces, SCHEME)


@pytest.fixture
def faces(tmp_path) -> Dataset:
    return make_faces(tmp_path)


def test_a_model_that_knows_the_landmarks_scores_zero(faces) -> None:
    model = constant_model(IN_CROP)
    score = evaluate_file(model, CONTRACT, faces)
    assert score.nme_percent == pytest.approx(0.0, abs=1e-4)
    assert (score.auc, score.failure_rate_percent) == (pytest.approx(1.0, abs=1e-5), 0.0)
    assert (score.faces, score.skipped, score.split) == (3, 0, "test")
    assert score.digest == file_digest(model)
    # All three faces have one shape, so that the mean of the shapes is each of them.
    shape = mean_shape(faces.faces, CONTRACT.crop)
    assert ScoringProtocol(CONTRACT, faces).shape_nme_percent(shape) == pytest.approx(0.0, abs=1e-9)
    assert score.crop == "landmarks box x2"
    assert score.dataset_digest == faces.digest


def test_the_error_is_taken_in_picture_pixels(faces) -> None:
    # 0.05 of the crop's width is 0.1 of the face's: 10 % of the distance of the upper corners.
    score = evaluate_file(constant_model(IN_CROP + np.array([0.05, 0.0])), CONTRACT, faces)
    np.testing.assert_allclose(score.per_face, [10.0] * 3, rtol=1e-4)
    assert score.failure_rate_percent == 100.0


def test_bytes_reach_a_uint8_model_unchanged_and_its_answer_is_dequantized(faces) -> None:
    # The model copies pixels to coordinates: picture k is gray[k] all over.
    protocol = ScoringProtocol(CONTRACT, faces)
    found = protocol.predict(quantize_model([1, 4, 2, 1], 1 / 255, 0))
    for k, gray in enumerate((51, 102, 204)):
        wanted = transform(protocol.crops.to_picture[k], np.full((4, 2), gray / 255))
        np.testing.assert_allclose(found[k], wanted, rtol=1e-6)


def test_given_boxes_are_used_and_faces_without_are_counted(faces) -> None:
    score = evaluate_file(constant_model(IN_CROP), CONTRACT, faces, box="given")
    assert (score.faces, score.skipped, score.box) == (2, 1, "given")
    # The crop is the given box x2, so the constant answer is the given box's corners.
    box = SQUARE * [20.0, 30.0] + [15.0, 20.0]
    truth = np.stack([face.landmarks for face in faces.faces[:2]])
    wanted = metrics.nme_percent(np.stack([box, box]), truth, SCHEME)
    np.testing.assert_allclose(score.per_face, wanted, rtol=1e-4)


def test_no_given_box_at_all_is_an_error(tmp_path) -> None:
    faces = make_faces(tmp_path, boxes=(False, False, False))
    with pytest.raises(InputError, match="none of the 3 faces has a given box"):
        evaluate_file(constant_model(IN_CROP), CONTRACT, faces, box="given")


def test_a_file_s_own_contract_must_agree(faces) -> None:
    own = constant_model(IN_CROP, {"lmopt.contract": contract_to_json(CONTRACT)})
    assert evaluate_file(own, CONTRACT, faces).faces == 3
    with pytest.raises(InputError, match=r"another contract: std \(255\.0,\) in the file against"):
        evaluate_file(own, replace(CONTRACT, std=(128.0,)), faces)


def test_tensors_that_do_not_fit_the_contract_are_refused(faces) -> None:
    with pytest.raises(InputError, match=r"inputs are 'image' \[1, 2, 4, 1\], the contract wants"):
        evaluate_file(constant_model(IN_CROP, shape=(1, 2, 4, 1)), CONTRACT, faces)
    with pytest.raises(InputError, match=r"no output 'points', it has \['landmarks'\]"):
        evaluate_file(constant_model(IN_CROP), replace(CONTRACT, output="points"), faces)
    with pytest.raises(InputError, match="6 numbers per face, wanted 8"):
        evaluate_file(constant_model(IN_CROP[:3]), CONTRACT, faces)


def test_data_of_another_scheme_is_refused(faces) -> None:
    with pytest.raises(InputError, match="faces have 4 landmarks, the detector's contract says 68"):
        ScoringProtocol(replace(CONTRACT, scheme=IBUG_68), faces)


def test_files_that_fail_say_why(faces, tmp_path) -> None:
    with pytest.raises(BackendError, match="not finite"):
        evaluate_file(constant_model(np.full((4, 2), np.nan)), CONTRACT, faces)
    with pytest.raises(BackendError, match="SIGSEGV"):
        evaluate_file(crashing_model(), CONTRACT, faces)
    with pytest.raises(InputError, match="cannot be read"):
        evaluate_file(tmp_path / "none.tflite", CONTRACT, faces)


def score_of(per_face, **changes) -> Score:
    kept = Score(
        per_face=tuple(per_face),
        normaliser="inter-ocular",
        crop="landmarks box x1.25, square",
        box="landmarks",
        digest="d" * 32,
        dataset="faces",
        dataset_digest="f" * 32,
        split="test",
    )
    return replace(kept, **changes)


def test_only_scores_of_one_protocol_are_compared() -> None:
    a, b = score_of([3.0, 4.0, 5.0]), score_of([2.0, 3.0, 4.0], digest="e" * 32)
    assert a.comparable(b)
    found = difference(a, b)
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    for changes in (
        {"normaliser": "box"},
        {"crop": "given box x1.25, square"},
        {"box": "given"},
        {"dataset_digest": "0" * 32},
    ):
        other = replace(b, **changes)
        assert not a.comparable(other)
        with pytest.raises(InputError, match="different protocols"):
            difference(a, other)


def test_json_says_the_protocol() -> None:
    found = score_of([4.0, 12.0]).to_json()
    assert (found["nme_percent"], found["auc"], found["failure_rate_percent"]) == (8.0, 0.25, 50.0)
    assert found["faces"] == 2
    assert found["normaliser"] == "inter-ocular"
    assert found["crop"] == "landmarks box x1.25, square"


@requires_faces
def test_the_mean_shape_on_the_open_test_faces() -> None:
    data = load_dataset([FACES / "afw", FACES / "helen", FACES / "lfpw"])
    contract = replace(CONTRACT, width=4, scheme=IBUG_68, crop=CropRule(margin=1.25, square=True))
    protocol = ScoringProtocol(contract, data.split("test"))
    mean = protocol.crops.landmarks.mean(axis=0)
    np.testing.assert_allclose(mean_shape(protocol.dataset.faces, contract.crop), mean, atol=1e-12)
    score = protocol.score(constant_model(mean, shape=(1, 4, 4, 1)))
    assert score.faces == 303
    predicted = np.stack([transform(affine, mean) for affine in protocol.crops.to_picture])
    truth = np.stack([face.landmarks for face in protocol.dataset.faces])
    wanted = metrics.nme_percent(predicted, truth, IBUG_68).mean()
    assert score.nme_percent == pytest.approx(wanted, rel=1e-5)
    assert protocol.shape_nme_percent(mean) == pytest.approx(wanted, rel=1e-9)
    assert 8.0 < score.nme_percent < 40.0
