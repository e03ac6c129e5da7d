import numpy as np
import pytest

from lmopt.detector import IBUG_68, LandmarkScheme
from lmopt.errors import InputError
from lmopt.scoring import metrics

# Landmarks: right eye corner, left eye corner, right pupil (two points), left pupil (two points).
SCHEME = LandmarkScheme("six", 6, eye_corners=(0, 1), pupils=((2, 3), (4, 5)))
FACE = np.array([[[0, 0], [10, 0], [1, 0], [3, 0], [7, 4], [9, 4]]], np.float64)


def test_point_errors_are_euclidean() -> None:
    moved = FACE + np.array([3.0, 4.0])
    np.testing.assert_allclose(metrics.point_errors(moved, FACE), np.full((1, 6), 5.0))
    with pytest.raises(InputError, match="wanted equal shapes"):
        metrics.point_errors(FACE[:, :3], FACE)


@pytest.mark.parametrize(
    ("normaliser", "wanted"),
    [
        ("inter-ocular", 10.0),
        ("inter-pupil", np.hypot(6, 4)),
        ("box", np.sqrt(40.0)),
        ("box-diagonal", np.hypot(10, 4)),
    ],
)
def test_every_normaliser_measures_what_it_says(normaliser, wanted) -> None:
    found = metrics.normalising_distance(FACE, SCHEME, normaliser)
    np.testing.assert_allclose(found, [wanted])
    nme = metrics.nme_percent(FACE + np.array([0.0, 1.0]), FACE, SCHEME, normaliser)
    np.testing.assert_allclose(nme, [100 / wanted])


def test_wrong_normalisers_are_refused() -> None:
    with pytest.raises(InputError, match="unknown normaliser 'iris'"):
        metrics.normalising_distance(FACE, SCHEME, "iris")  # type: ignore[arg-type]
    blind = LandmarkScheme("blind", 6)
    for normaliser, missing in (("inter-ocular", "outer eye corners"), ("inter-pupil", "pupils")):
        with pytest.raises(InputError, match=f"does not say which landmarks are the {missing}"):
            metrics.normalising_distance(FACE, blind, normaliser)
    with pytest.raises(InputError, match="face 0 has the inter-ocular distance 0"):
        metrics.normalising_distance(np.zeros((1, 6, 2)), SCHEME)


def test_the_68_landmarks_have_eyes() -> None:
    face = np.zeros((1, 68, 2))
    face[0, 45, 0] = 4.0
    np.testing.assert_allclose(metrics.normalising_distance(face, IBUG_68), [4.0])


def test_auc_is_the_area_under_the_error_curve() -> None:
    errors = np.random.default_rng(0).gamma(3.0, 1.6, 500)
    grid = np.linspace(0, 8, 20001)
    curve = np.searchsorted(np.sort(errors), grid, side="right") / errors.size
    area = float(np.sum((curve[1:] + curve[:-1]) / 2 * np.diff(grid))) / 8
    assert metrics.auc(errors) == pytest.approx(area, abs=1e-3)


def test_a_paired_difference_sees_what_unpaired_errors_hide() -> None:
    rng = np.random.default_rng(5)
    base = rng.gamma(4.0, 1.5, 300)
    found = metrics.paired_difference(base + 0.1 + rng.normal(0, 0.05, 300), base)
    assert found.low < 0.1 < found.high
    assert found.high - found.low < 0.03
    assert found.mean == pytest.approx(0.1, abs=0.01)


def test_differences_want_the_same_faces() -> None:
    with pytest.raises(InputError, match="wanted the same faces"):
        metrics.paired_difference(np.zeros(3), np.zeros(4))


def moved(errors: np.ndarray, length: float, angle: float) -> float:
    truth = np.tile(np.array([[0.0, 0.0], [10.0, 0.0]]), (len(errors), 1, 1))
    reference = truth + errors[:, None, :]
    shift = length * np.array([np.cos(angle), np.sin(angle)])
    scheme = LandmarkScheme("two", 2, eye_corners=(0, 1))
    return float(metrics.expected_drop(reference + shift, reference, truth, scheme).mean())


def test_an_expected_drop_does_not_depend_on_where_landmarks_move() -> None:
    errors = np.array([[3.0, 4.0], [-5.0, 0.0]])
    assert moved(errors, 0.0, 0.0) == 0.0
    assert moved(errors, 0.5, 1.0) == pytest.approx(moved(errors, 0.5, 4.0))
    # d^2 / 4e, in percent of the distance 10
    assert moved(errors, 0.5, 1.0) == pytest.approx(10 * 0.5**2 / (4 * 5), rel=0.01)
    # where the reference is right, every move costs its whole length
    assert moved(np.zeros((1, 2)), 0.5, 1.0) == pytest.approx(10 * 0.5)
