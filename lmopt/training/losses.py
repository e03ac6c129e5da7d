"""Losses of landmark regression, on coordinates in pixels of the network input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract, CoordinateUnit
from lmopt.pipeline.base import Loss
from lmopt.training.backend import tf

WING_WIDTH = 10.0
WING_CURVATURE = 2.0


def l1(error: Any) -> Any:
    """Returns the mean absolute error."""
    return tf.reduce_mean(tf.abs(error))


def l2(error: Any) -> Any:
    """Returns the mean squared error."""
    return tf.reduce_mean(tf.square(error))


def smooth_l1(error: Any) -> Any:
    """Returns the mean of e^2 / 2 below one pixel and |e| - 1/2 above.

    Source: Girshick, "Fast R-CNN", ICCV 2015, eq. 3.
    """
    size = tf.abs(error)
    return tf.reduce_mean(tf.where(size < 1.0, 0.5 * tf.square(size), size - 0.5))


def wing(error: Any) -> Any:
    """Returns the mean of w ln(1 + |e| / epsilon) below w and |e| - C above, w = 10, epsilon = 2.

    C makes the two pieces meet at w. Small errors weigh more than under L1.

    Source: Feng et al., "Wing Loss for Robust Facial Landmark Localisation with Convolutional
    Neural Networks", CVPR 2018, eq. 5 (w and epsilon: section 6, table 1).
    """
    size = tf.abs(error)
    offset = WING_WIDTH - WING_WIDTH * math.log1p(WING_WIDTH / WING_CURVATURE)
    small = WING_WIDTH * tf.math.log1p(size / WING_CURVATURE)
    return tf.reduce_mean(tf.where(size < WING_WIDTH, small, size - offset))


LOSSES: Mapping[Loss, Callable[[Any], Any]] = {
    "l1": l1,
    "l2": l2,
    "smooth-l1": smooth_l1,
    "wing": wing,
}
"""Loss of a tensor of errors in pixels, by the name a plan gives."""


def pixels_per_unit(contract: Contract) -> NDArray[np.float32]:
    """Returns the factor from each output number of a detector to input pixels.

    Shapes:
        returns [2 * landmarks], in the contract's coordinate order.
    """
    size = np.array([contract.width, contract.height], np.float32)
    factors: dict[CoordinateUnit, NDArray[np.float32]] = {
        "unit": size,
        "centered": size * np.float32(0.5),
        "pixel": np.ones(2, np.float32),
    }
    factor = factors[contract.unit]
    count = contract.scheme.count
    return np.tile(factor, count) if contract.order == "xyxy" else np.repeat(factor, count)
