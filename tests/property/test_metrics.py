import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmopt.detector import IBUG_68
from lmopt.scoring import metrics

NORMALISERS = st.sampled_from(["inter-ocular", "inter-pupil", "box", "box-diagonal"])
SHAPE = np.random.default_rng(68).normal(0.0, 40.0, (68, 2))
NOISE = arrays(np.float64, (3, 68, 2), elements=st.floats(-5.0, 5.0))


@given(NOISE, NORMALISERS)
@settings(max_examples=30, deadline=None)
def test_nme_is_zero_at_truth_only(noise, normaliser) -> None:
    truth = SHAPE + 0.1 * noise
    assert np.all(metrics.nme_percent(truth, truth, IBUG_68, normaliser) == 0.0)
    off = metrics.nme_percent(truth + np.array([1.0, 0.0]), truth, IBUG_68, normaliser)
    assert np.all(off > 0.0)


@given(
    NOISE,
    NORMALISERS,
    st.floats(0.01, 100.0),
    st.floats(-1000.0, 1000.0),
    st.sampled_from([0, 1, 2, 3]),
)
@settings(max_examples=60, deadline=None)
def test_nme_is_unchanged_by_scale_shift_and_quarter_turns(
    noise, normaliser, scale, shift, turns
) -> None:
    # Boxes are upright, so that of all rotations only quarter turns keep every normaliser.
    turn = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
    truth = SHAPE[None] + np.zeros((3, 1, 1))
    before = metrics.nme_percent(truth + noise, truth, IBUG_68, normaliser)
    after = metrics.nme_percent(
        (truth + noise) @ turn.T * scale + shift,
        truth @ turn.T * scale + shift,
        IBUG_68,
        normaliser,
    )
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-8)


@given(NOISE, st.floats(0.0, 6.3), st.sampled_from(["inter-ocular", "inter-pupil"]))
@settings(max_examples=40, deadline=None)
def test_eye_normalised_nme_is_unchanged_by_rotation(noise, angle, normaliser) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    truth = SHAPE[None] + np.zeros((3, 1, 1))
    before = metrics.nme_percent(truth + noise, truth, IBUG_68, normaliser)
    after = metrics.nme_percent((truth + noise) @ turn.T, truth @ turn.T, IBUG_68, normaliser)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-10)


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 40.0)))
@settings(max_examples=60, deadline=None)
def test_auc_and_failures_agree_with_the_curve(errors) -> None:
    auc, failures = metrics.auc(errors), metrics.failure_rate_percent(errors)
    assert 0.0 <= auc <= 1.0 - failures / 100.0 + 1e-12
    assert metrics.auc(errors + 1.0) <= auc
    assert metrics.failure_rate_percent(errors + 1.0) >= failures


@given(
    arrays(np.float64, 25, elements=st.floats(0.0, 20.0)),
    arrays(np.float64, 25, elements=st.floats(0.0, 20.0)),
    st.integers(0, 5),
)
@settings(max_examples=10, deadline=None)
def test_a_paired_difference_is_antisymmetric_and_holds_its_mean(a, b, seed) -> None:
    there, back = metrics.paired_difference(a, b, seed), metrics.paired_difference(b, a, seed)
    assert there.low - 1e-9 <= there.mean <= there.high + 1e-9
    np.testing.assert_allclose(
        [there.mean, there.low, there.high], [-back.mean, -back.high, -back.low], atol=1e-12
    )
