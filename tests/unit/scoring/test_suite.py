"""Protocols on detectors whose answers are known, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmopt.codegen.tflite import emit
from lmopt.data import Dataset, load_dataset
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.scheme import IBUG_68, scheme_for
from lmopt.errors import InputError, UsageError
from lmopt.scoring.metrics import ced_curve, nme_percent, pixel_accuracy, spread_percent
from lmopt.scoring.protocols import ScoringProtocol
from lmopt.scoring.rows import NotTestable, Row, Scored, Spread, compare
from lmopt.scoring.settings import Settings
from lmopt.scoring.stability import NoiseProtocol
from lmopt.scoring.suite import PROTOCOLS, ProtocolName, Subject, judge, protocols_named
from tests.support.annotated import row, smooth_picture, write_folder, write_picture
from tests.support.constant_detector import constant_detector

RULE = CropRule("landmarks", 1.25, True)
CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (255.0,) * 3, RULE, "points", "xyxy", "unit", IBUG_68)
)
# One shape for all faces; its box is 40x30, so that the square crop's side is 50.
SHAPE = np.random.default_rng(5).uniform((12, 17), (52, 47), (68, 2)).round(3)
SHAPE[:2] = ((12, 17), (52, 47))
EYES = float(np.linalg.norm(SHAPE[36] - SHAPE[45]))
SIDE = 50.0
UNIT = (SHAPE - (32, 32)) / SIDE + 0.5
QUICK = Settings(factors=(2, 4), fractions=(0.3,), sigmas=(0.05, 0.2), copies=8, stability_faces=2)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    boxes = [{}, {"box_x0": 7, "box_y0": 7, "box_x1": 47, "box_y1": 47}]
    rows = [
        row(f"{k}.png", SHAPE, role="test", **(boxes[1] if k in (1, 2) else boxes[0]))
        for k in range(4)
    ]
    return load_dataset([write_folder(tmp_path_factory.mktemp("data") / "faces", rows)])


def run(
    dataset: Dataset,
    *protocols: str,
    points: np.ndarray = UNIT,
    contract: Contract = CONTRACT,
    expects: tuple[int, int, int] | None = None,
    box: str | None = None,
    chosen: Settings = QUICK,
) -> Rows:
    model = Subject(emit(constant_detector(contract, points, expects)), contract, "constant")
    names = tuple(n for p in protocols for n in protocols_named(p))
    found = judge(
        [model], dataset, names, chosen, normaliser="inter-ocular", box=box, report=lambda *_: None
    )
    return dict(found[0])


Rows = dict[str, tuple[Row, ...]]


@pytest.fixture(scope="module")
def exact(faces: Dataset) -> Rows:
    """All protocols for a detector that always answers rightly."""
    return run(faces, "all")


@pytest.fixture(scope="module")
def seeing(faces: Dataset) -> Rows:
    """All protocols for a detector whose answer moves with the brightness it sees."""
    return run(faces, "all", expects=(128, 128, 128))


def scored(row: Row) -> Scored:
    assert isinstance(row, Scored)
    return row


def test_an_exact_detector_has_no_error_and_full_accuracy(exact: Rows, faces: Dataset) -> None:
    (found,) = map(scored, exact["nme"])
    assert found.mean_percent == pytest.approx(0.0, abs=1e-4)
    assert (found.accuracy, found.score.faces, found.score.skipped) == (1.0, 4, 0)
    assert found.rmse_px == pytest.approx(0.0, abs=1e-4)
    assert found.side_px == pytest.approx(SIDE)
    assert found.ced()[-1] == (15.0, 1.0)
    assert found.stamp.dataset_digest == faces.digest


def test_moved_landmarks_count_in_their_region_alone(faces: Dataset) -> None:
    moved, pixels = UNIT.copy(), 3.0
    moved[list(IBUG_68.regions["mouth"]), 0] += pixels / SIDE
    rows = {r.condition: scored(r) for r in run(faces, "regions", points=moved)["regions"]}
    assert list(rows) == ["all", "jaw", "brows", "nose", "eyes", "mouth"]
    wanted = 100 * pixels / EYES
    assert rows["mouth"].mean_percent == pytest.approx(wanted, rel=1e-4)
    assert rows["all"].mean_percent == pytest.approx(wanted * 20 / 68, rel=1e-4)
    for name in ("jaw", "brows", "nose", "eyes"):
        assert rows[name].mean_percent == pytest.approx(0.0, abs=1e-4)
    assert set(rows["mouth"].landmarks) == set(range(48, 68))
    assert rows["all"].landmarks[50] == pytest.approx(wanted, rel=1e-4)
    assert rows["all"].landmarks[0] == pytest.approx(0.0, abs=1e-4)
    # 3 of 50 pixels are 0.96 of 16: nearly every x of the mouth is off by one, and no y.
    assert rows["jaw"].accuracy == 1.0
    assert rows["mouth"].accuracy == pytest.approx(0.5, abs=0.06)
    assert rows["mouth"].rmse_px == pytest.approx(0.96 / np.sqrt(2), rel=1e-3)


def test_a_scheme_without_regions_says_so(tmp_path: Path) -> None:
    rows = [row(f"{k}.png", SHAPE[:5], role="test") for k in range(2)]
    five = load_dataset([write_folder(tmp_path / "five", rows)])
    contract = replace(CONTRACT, scheme=scheme_for(5))
    model = Subject(emit(constant_detector(contract, UNIT[:5])), contract, "constant")
    rows_ = judge([model], five, ("regions",), QUICK, normaliser="box", report=lambda *_: None)[0][
        "regions"
    ]
    assert isinstance(rows_[1], NotTestable)
    assert "names no regions" in rows_[1].reason


def test_boxes_stand_side_by_side_on_the_faces_that_have_them_all(
    exact: Rows, seeing: Rows, faces: Dataset
) -> None:
    landmarks, given, jittered = map(scored, exact["boxes"])
    assert [r.ids for r in (landmarks, given, jittered)] == [("faces/1.png", "faces/2.png")] * 3
    assert landmarks.mean_percent == pytest.approx(0.0, abs=1e-4)
    # The given box has the size and is 5 and 5 pixels off the landmarks' one.
    assert given.mean_percent == pytest.approx(100 * np.hypot(5, 5) / EYES, rel=1e-4)
    assert 0.5 < jittered.mean_percent < 60
    assert given.score.crop == "given box x1.25, square"
    assert jittered.score.crop == "jittered box x1.25, square"
    assert jittered.score.box == "jittered"
    other = scored(run(faces, "boxes", chosen=replace(QUICK, seed=1))["boxes"][2])
    assert other.per_face != jittered.per_face
    again = scored(run(faces, "boxes", expects=(128, 128, 128))["boxes"][2])
    assert again.per_face == scored(seeing["boxes"][2]).per_face
    with pytest.raises(InputError, match="condition jittered 5%, seed 1 against jittered 5%"):
        compare(other, jittered)


def test_without_given_boxes_they_are_not_testable(faces: Dataset) -> None:
    bare = replace(faces, faces=tuple(replace(f, box=None) for f in faces.faces))
    found = run(bare, "boxes", "nme", "stability", box="given")
    landmarks, given, jittered = found["boxes"]
    assert given == NotTestable("given", "none of the 4 faces has a given box")
    assert scored(landmarks).score.faces == scored(jittered).score.faces == 4
    assert isinstance(found["nme"][0], NotTestable)
    assert found["stability"][0] == NotTestable("noise", "none of the 4 faces has a given box")


def test_faces_without_a_given_box_are_left_out_and_counted(faces: Dataset) -> None:
    (found,) = map(scored, run(faces, "nme", box="given")["nme"])
    assert (found.score.faces, found.score.skipped, found.score.box) == (2, 2, "given")
    kept = faces.keep(lambda face: face.box is not None)
    assert found.stamp.dataset_digest == kept.digest


@pytest.mark.parametrize("protocol", ["resolution", "blur", "occlusion"])
def test_degraded_pictures_keep_their_geometry(exact: Rows, protocol: str) -> None:
    # The answer does not depend on what is seen: any error would be that of the mapping.
    rows = list(map(scored, exact[protocol]))
    for found in rows:
        assert found.mean_percent == pytest.approx(0.0, abs=1e-3)
    conditions = {"occlusion": ["0%", "30%"]}.get(protocol, ["x1", "x2", "x4"])
    assert [r.condition for r in rows] == conditions
    sides = {"resolution": [SIDE, SIDE / 2, SIDE / 4]}.get(protocol, [SIDE] * len(rows))
    assert [r.side_px for r in rows] == pytest.approx(sides)


@pytest.mark.parametrize("protocol", ["resolution", "blur", "occlusion"])
def test_degraded_pictures_are_what_the_model_sees(seeing: Rows, protocol: str) -> None:
    plain, *degraded = map(scored, seeing[protocol])
    assert all(r.per_face != plain.per_face for r in degraded)


def test_categories_are_told_from_quantities_and_from_what_is_not_known(faces: Dataset) -> None:
    labels = [{"pose": 1.0, "yaw": -40.0}, {"pose": 0.0, "yaw": 0.0}, {"glasses": 1.0}, {}]
    labelled = replace(
        faces,
        faces=tuple(replace(f, labels=v) for f, v in zip(faces.faces, labels, strict=True)),
    )
    rows = run(labelled, "categories")["categories"]
    assert [r.condition for r in rows] == [
        *("all", "female", "male", "young", "old", "occlusion", "expression", "pose"),
        *("lighting", "glasses"),
    ]
    found = {r.condition: r.ids for r in rows if isinstance(r, Scored)}
    assert found["all"] == tuple(f.id for f in faces.faces)
    assert (found["pose"], found["glasses"]) == (("faces/0.png",), ("faces/2.png",))
    reasons = {r.reason for r in rows if isinstance(r, NotTestable)}
    assert reasons == {"no face is labelled so; --labels FILE can say"}


def test_a_detector_that_always_says_the_same_is_perfectly_stable(
    exact: Rows, seeing: Rows
) -> None:
    quiet, loud, frames = exact["stability"]
    for found in (quiet, loud):
        assert isinstance(found, Spread)
        assert found.per_face == pytest.approx((0.0, 0.0), abs=1e-5)
        assert (found.ids, found.looks) == (("faces/0.png", "faces/3.png"), 8)
    assert isinstance(frames, NotTestable)
    quiet, loud, _ = seeing["stability"]
    assert isinstance(quiet, Spread) and isinstance(loud, Spread)
    assert 0 < quiet.mean_percent < loud.mean_percent
    assert quiet.condition == "sigma 0.05, 8 copies"


def test_the_figure_of_a_search_is_that_of_the_protocol(seeing: Rows, faces: Dataset) -> None:
    model = emit(constant_detector(CONTRACT, UNIT, (128, 128, 128)))
    protocol = NoiseProtocol(ScoringProtocol(CONTRACT, faces), faces=2, sigma=0.2, copies=8)
    _, loud, _ = seeing["stability"]
    assert isinstance(loud, Spread)
    found = protocol.std_percent(model)
    assert found == pytest.approx(loud.mean_percent) and found > 0
    still = protocol.std_percent(emit(constant_detector(CONTRACT, UNIT)))
    assert still == pytest.approx(0.0, abs=1e-5)
    bare = replace(faces, faces=tuple(replace(f, box=None) for f in faces.faces))
    given = replace(CONTRACT, crop=replace(RULE, box="given"))
    with pytest.raises(InputError, match="none of the 4 faces has a given box"):
        NoiseProtocol(ScoringProtocol(given, bare)).std_percent(model)


def test_frames_move_the_answer_by_what_is_worked_out(tmp_path: Path, faces: Dataset) -> None:
    for k, value in enumerate((100, 110, 120)):
        write_picture(tmp_path / "still" / f"{k}.png", np.full((64, 64, 3), value, np.uint8))
    chosen = replace(QUICK, frames=tmp_path / "still", frame_box=(12.0, 17.0, 52.0, 47.0))
    found = run(faces, "stability", expects=(110, 110, 110), chosen=chosen)["stability"][-1]
    assert isinstance(found, Spread)
    # Each coordinate moves by 0.9 (the sum of the pulls) * 10 / 255 of the crop per frame, and
    # three values a step apart deviate by one step; x and y both do.
    step = 0.9 * 10 / 255 * SIDE
    assert found.mean_percent == pytest.approx(100 * step * np.sqrt(2) / EYES, rel=1e-3)
    assert (found.looks, found.stamp.box) == (3, "given")


def test_one_frame_is_too_few(tmp_path: Path, faces: Dataset) -> None:
    write_picture(tmp_path / "one" / "0.png", smooth_picture(0))
    chosen = replace(QUICK, frames=tmp_path / "one", frame_box=(12.0, 17.0, 52.0, 47.0))
    with pytest.raises(InputError, match="1 frame; jitter needs at least 2"):
        run(faces, "stability", chosen=chosen)


def test_two_models_are_compared_face_by_face(exact: Rows, faces: Dataset) -> None:
    shifted = UNIT + np.array([2.0 / SIDE, 0.0])
    worse = scored(run(faces, "nme", points=shifted)["nme"][0])
    found = compare(worse, exact["nme"][0])
    assert found is not None
    gap = found.difference
    assert [gap.mean, gap.low, gap.high] == pytest.approx([200 / EYES] * 3, rel=1e-3)
    assert found.significant is None  # four faces tell nothing
    assert len(found.changed) == 4
    assert found.changed[0][1] == pytest.approx(200 / EYES, rel=1e-3)
    assert compare(NotTestable("x", "y"), exact["nme"][0]) is None


def test_a_difference_of_enough_faces_is_significant_or_not(exact: Rows) -> None:
    base = scored(exact["nme"][0])

    def of(per_face: list[float]) -> Scored:
        score = replace(base.score, per_face=tuple(per_face))
        return replace(base, score=score, ids=tuple(str(k) for k in range(len(per_face))))

    plain = of([5.0] * 20)
    better, mixed = of([4.0 + k / 100 for k in range(20)]), of([4.0, 6.0] * 10)
    clear, unclear = compare(better, plain), compare(mixed, plain)
    assert clear is not None and unclear is not None
    assert clear.significant is True
    assert clear.difference.mean == pytest.approx(-0.905)
    assert clear.changed[0] == ("0", -1.0)
    assert unclear.significant is False
    assert str(clear).endswith("(significant)")


def test_worst_faces_come_first(exact: Rows) -> None:
    base = scored(exact["nme"][0])
    ranked = replace(base, score=replace(base.score, per_face=(3.0, 9.0, 1.0, 4.0)))
    assert ranked.worst(2) == (("faces/1.png", 9.0), ("faces/3.png", 4.0))


def test_rows_of_different_protocols_are_not_compared(exact: Rows) -> None:
    with pytest.raises(InputError, match="protocol resolution against blur"):
        compare(exact["resolution"][1], exact["blur"][1])
    with pytest.raises(InputError, match="condition x2 against x4"):
        compare(exact["resolution"][1], exact["resolution"][2])


def test_all_protocols_share_their_pictures_and_agree(seeing: Rows) -> None:
    assert tuple(seeing) == tuple(PROTOCOLS) == get_args(ProtocolName)
    nme = scored(seeing["nme"][0]).per_face
    for name in ("categories", "resolution", "blur", "occlusion", "regions"):
        assert scored(seeing[name][0]).per_face == nme


def test_unknown_protocols_and_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'speed'"):
        protocols_named("speed")
    for wrong, reason in (
        ({"copies": 1}, "copies 1; wanted at least 2"),
        ({"factors": (0.5,)}, r"factors \(0\.5,\); wanted at least 1"),
        ({"fractions": (0.95,)}, r"wanted 0 to 0\.9"),
        ({"frames": Path("x")}, "belong together"),
    ):
        with pytest.raises(UsageError, match=reason):
            Settings(**wrong)  # type: ignore[arg-type]


def test_the_spread_is_the_equation() -> None:
    looks = np.array([[[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]]])
    # Two looks 5 apart: sum of squares 2 * 2.5^2 over n - 1 = 1.
    np.testing.assert_allclose(spread_percent(looks, 10.0), [100 * np.sqrt(12.5) / 10, 0.0])
    with pytest.raises(InputError, match="at least 2"):
        spread_percent(looks[:1], 10.0)


def test_accuracy_counts_coordinates_of_equal_whole_pixels() -> None:
    truth = np.array([[1.0, 2.0], [3.4, 4.6]])
    assert pixel_accuracy(truth, truth) == 1.0
    assert pixel_accuracy(np.array([[1.4, 2.6], [2.6, 5.4]]), truth) == 0.75


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30))
def test_the_error_curve_rises_from_none_to_all(errors: list[float]) -> None:
    curve = ced_curve(np.array(errors), np.array([-1.0, 2.0, 5.0, 30.0]))
    assert (np.diff(curve) >= 0).all()
    assert (curve[0], curve[-1]) == (0.0, 1.0)


@given(st.floats(0.1, 50), st.floats(-500, 500), st.integers(0, 1000))
@settings(max_examples=50)
def test_nme_does_not_depend_on_size_and_place(scale: float, shift: float, seed: int) -> None:
    found = SHAPE + np.random.default_rng(seed).normal(0, 3, SHAPE.shape)
    plain = nme_percent(found[None], SHAPE[None], IBUG_68)
    moved = nme_percent(found[None] * scale + shift, SHAPE[None] * scale + shift, IBUG_68)
    np.testing.assert_allclose(moved, plain, rtol=1e-6)
