from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from lmopt.pipeline.base import Loss
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
    ],
)
def test_values_by_hand(name: Loss, wanted: float) -> None:
    from lmopt.training.losses import LOSSES

    assert float(LOSSES[name](ERRORS)) == pytest.approx(wanted, rel=1e-6)


def test_every_named_loss_is_there() -> None:
    from lmopt.training.losses import LOSSES

    assert set(LOSSES) == set(get_args(Loss))


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
