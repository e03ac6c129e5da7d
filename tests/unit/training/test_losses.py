from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from lmopt.pipeline.services import Loss
from tests.support.training_graphs import CONTRACT

pytestmark = pytest.mark.slow

ERRORS = np.array([[0.0, -0.5, 2.0, -20.0]], np.float32)
WING = [0.0, 10 * math.log(1.25), 10 * math.log(2), 20 - (10 - 10 * math.log(6))]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("l1", 22.5 / 4),
        ("l2", 404.25 / 4),
        ("smooth-l1", (0.125 + 1.5 + 19.5) / 4),
        ("wing", sum(WING) / 4),
        ("rmse", math.sqrt(404.25 / 4)),
    ],
)
def test_values_by_hand(name: Loss, wanted: float) -> None:
    from lmopt.training.losses import LOSSES

    assert float(LOSSES[name](ERRORS)) == pytest.approx(wanted, rel=1e-6)


def test_every_named_loss_is_there() -> None:
    from lmopt.training.losses import HEATMAP_LOSSES, LOSSES

    assert {*LOSSES, *HEATMAP_LOSSES, "pfld"} == set(get_args(Loss))


def test_gradients_are_finite_where_nothing_is_wrong() -> None:
    from lmopt.training.backend import tf
    from lmopt.training.losses import HEATMAP_LOSSES, LOSSES

    exact = tf.constant(np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4, 1))
    for loss in (*LOSSES.values(), *HEATMAP_LOSSES.values()):
        with tf.GradientTape() as tape:
            tape.watch(exact)
            value = (
                loss(exact - tf.stop_gradient(exact))
                if loss in LOSSES.values()
                else loss(exact, tf.stop_gradient(exact))
            )
        assert float(value) == pytest.approx(0.0, abs=1e-5)
        assert np.abs(tape.gradient(value, exact)).max() < 1e-5


def test_adaptive_wing_by_hand() -> None:
    from lmopt.training.losses import adaptive_wing

    # 8x8 cells, a landmark at a corner: its 3x3 surroundings inside the picture are 4 cells.
    wanted = np.zeros((1, 8, 8, 1), np.float32)
    wanted[0, 0, 0, 0] = 1.0
    got = wanted.copy()
    got[0, 0, 0, 0] = 0.8  # near: d = 0.2, power 1.1
    got[0, 1, 1, 0] = 0.7  # far: d = 0.7, power 2.1, still in the surroundings
    got[0, 7, 7, 0] = 0.3  # background
    slope = 14 * 2.1 * 0.5**1.1 / (1 + 0.5**2.1)
    far = slope * 0.7 - (0.5 * slope - 14 * math.log1p(0.5**2.1))
    by_hand = 11 * (14 * math.log1p(0.2**1.1) + far) + 14 * math.log1p(0.3**2.1)
    assert float(adaptive_wing(got, wanted)) == pytest.approx(by_hand / 64, rel=1e-5)


def test_heatmap_mse_by_hand() -> None:
    from lmopt.training.losses import heatmap_mse

    got, wanted = np.zeros((2, 1, 2, 1), np.float32), np.ones((2, 1, 2, 1), np.float32)
    got[0, 0, 1, 0] = 3.0
    assert float(heatmap_mse(got, wanted)) == pytest.approx((1 + 4 + 1 + 1) / 4)


def test_pfld_weighs_faces_by_rarity_and_pose_error() -> None:
    from lmopt.training.losses import pfld

    error = np.float32([[1, 2, 2, 0], [0, 0, 1, 1]])  # two landmarks: 9 / 2 and 2 / 2
    turned = np.float32([[0, math.pi / 2, math.pi], [math.pi / 3, 0, 0]])  # 0 + 1 + 2 and 1 / 2
    rarity = np.float32([2.0, 5.0])
    by_hand = (2 * 3 * 4.5 + 5 * 0.5 * 1.0) / 2
    assert float(pfld(error, turned, rarity)) == pytest.approx(by_hand, rel=1e-6)


def test_wing_is_continuous_where_its_pieces_meet() -> None:
    from lmopt.training.losses import wing

    assert float(wing(np.float32([9.9999]))) == pytest.approx(
        float(wing(np.float32([10.0001]))), abs=1e-3
    )


@pytest.mark.parametrize("unit", ["unit", "pixel", "centered"])
@pytest.mark.parametrize("order", ["xyxy", "xxyy"])
def test_errors_are_scaled_to_input_pixels(unit: str, order: str) -> None:
    from lmopt.training.losses import pixels_per_unit

    contract = replace(CONTRACT, width=200, height=100, unit=unit, order=order)
    here = np.array([[[0.25, 0.5], [0.75, 0.1]]])
    moved = here + np.array([3.0 / 200, 7.0 / 100])
    errors = (contract.encode(moved) - contract.encode(here)) * pixels_per_unit(contract)
    wanted = [3, 7, 3, 7] if order == "xyxy" else [3, 3, 7, 7]
    np.testing.assert_allclose(errors[0], wanted, rtol=1e-3)
