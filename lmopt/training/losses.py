"""Losses of landmark regression: on coordinates in pixels of the network input, and on heatmaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract, CoordinateUnit
from lmopt.training.backend import tf

WING_WIDTH = 10.0
WING_CURVATURE = 2.0
AWING_ALPHA, AWING_OMEGA, AWING_THETA = 2.1, 14.0, 0.5
AWING_WEIGHT, AWING_THRESHOLD = 10.0, 0.2
ROOT_FLOOR = 1e-12
"""Keeps the gradient of a root finite at 0."""


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


def rmse(error: Any) -> Any:
    """Returns the root of the mean squared error of all coordinates of the batch."""
    return tf.sqrt(tf.reduce_mean(tf.square(error)) + ROOT_FLOOR)


LOSSES: Mapping[str, Callable[[Any], Any]] = {
    "l1": l1,
    "l2": l2,
    "smooth-l1": smooth_l1,
    "wing": wing,
    "rmse": rmse,
}
"""Loss of a tensor of errors in pixels, by the name a plan gives."""


def pfld(error: Any, turned: Any, rarity: Any) -> Any:
    """Returns PFLD's loss: squared errors weighted by rarity of the face and error of its pose.

    A face counts with rarity times the sum over the three angles of 1 - cos(angle's error). As in
    the paper the angles' error is trained along through this product, so that the weights shrink
    while the pose branch learns.

    Args:
        error: In pixels.
        turned: Estimated minus true yaw, pitch and roll, in radians.
        rarity: Sum over the face's categories of the reciprocal of the category's share.

    Shapes:
        error: [faces, 2 * landmarks]; turned: [faces, 3]; rarity: [faces].

    Source: Guo et al., "PFLD: A Practical Facial Landmark Detector", 2019 (arXiv:1902.10859),
        eq. 1 and 2, up to the constant 1 / landmarks.
    """
    distance = 2.0 * tf.reduce_mean(tf.square(error), axis=-1)
    return tf.reduce_mean(rarity * tf.reduce_sum(1.0 - tf.cos(turned), axis=-1) * distance)


def heatmap_mse(heatmaps: Any, wanted: Any) -> Any:
    """Returns the mean squared difference of heatmaps."""
    return tf.reduce_mean(tf.square(heatmaps - wanted))


def adaptive_wing(heatmaps: Any, wanted: Any) -> Any:
    """Returns the mean adaptive wing loss of heatmaps, cells around landmarks weighted 11 to 1.

    With d = |wanted - got| and a cell's power p = 2.1 - wanted it is 14 ln(1 + d^p) below d = 1/2
    and goes on as a straight line above, so that it is like the wing loss at a landmark and like a
    squared error on the background.

    Shapes:
        both: [faces, height, width, landmarks].

    Source: Wang et al., "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression",
        ICCV 2019 (arXiv:1904.07399), with its weighted loss map and its constants (omega 14,
        theta 0.5, epsilon 1, alpha 2.1, W 10, threshold 0.2).
    """
    difference, power = tf.abs(wanted - heatmaps), AWING_ALPHA - wanted
    small = AWING_OMEGA * tf.math.log1p(tf.pow(difference, power))
    at_theta = tf.pow(AWING_THETA, power)
    slope = AWING_OMEGA * power * tf.pow(AWING_THETA, power - 1.0) / (1.0 + at_theta)
    offset = AWING_THETA * slope - AWING_OMEGA * tf.math.log1p(at_theta)
    loss = tf.where(difference < AWING_THETA, small, slope * difference - offset)
    around = tf.nn.max_pool2d(wanted, 3, 1, "SAME") >= AWING_THRESHOLD
    return tf.reduce_mean(loss * (1.0 + AWING_WEIGHT * tf.cast(around, loss.dtype)))


HEATMAP_LOSSES: Mapping[str, Callable[[Any, Any], Any]] = {
    "heatmap-mse": heatmap_mse,
    "adaptive-wing": adaptive_wing,
}
"""Loss of heatmaps against those wanted, by the name a plan gives."""


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
