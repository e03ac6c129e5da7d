"""Activation ranges under training: quantizers that keep, average or learn the range they round to.

All round with TensorFlow's fake quantization, which tfmot's quantizers use as well, on the grids of
`lmopt.quant.grid`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
from tensorflow_model_optimization.quantization.keras import quantizers

from lmopt.ir.types import DType, ValueRange
from lmopt.quant.grid import STEPS, activation_grid
from lmopt.training.backend import keras, tf

Tensor = Any
State = dict[str, Any]

BITS = 8

STEP_RATE = 10.0
"""How much faster learned steps move, relative to their size, than weights do.

Adam moves every variable by about the learning rate, however its gradient is scaled: by 2e-4 a
step, which is 0.4 % of a usual weight but would hardly move a step size in units of itself.
"""


class ActivationRange(Protocol):
    """Rounds values to the grid of a range; its variables belong to the layer it is built on."""

    def build(self, tensor_shape: Any, name: str, layer: Any) -> State:
        """Returns the variables, made on `layer`."""
        ...

    def __call__(self, inputs: Tensor, training: bool, weights: State, **kwargs: Any) -> Tensor:
        """Returns `inputs` rounded to the grid of the range."""
        ...

    def present(self, weights: State) -> ValueRange:
        """Returns the range that the variables stand for."""
        ...


class CalibratedRange(quantizers.MovingAverageQuantizer):  # type: ignore[misc]
    """tfmot's moving average of batch ranges, started where calibration found them.

    tfmot itself starts at [-6, 6] with a fixed decay of 0.999, which leaves a tensor in [0, 0.17]
    with two or three of its 256 steps after a short training.
    """

    def __init__(self, start: ValueRange, decay: float) -> None:
        super().__init__(num_bits=BITS, per_axis=False, symmetric=False, narrow_range=False)
        self.start = start
        self.decay = decay

    def build(self, tensor_shape: Any, name: str, layer: Any) -> State:
        """Returns the range variables; zero is always inside."""
        ends = {"min": min(self.start.low, 0.0), "max": max(self.start.high, 0.0)}
        return {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}", initializer=keras.initializers.Constant(value), trainable=False
            )
            for end, value in ends.items()
        }

    def __call__(self, inputs: Tensor, training: bool, weights: State, **kwargs: Any) -> Tensor:
        """Returns `inputs` rounded to the grid of the range."""
        return quant_ops.MovingAvgQuantize(
            inputs,
            weights["min_var"],
            weights["max_var"],
            ema_decay=self.decay,
            is_training=training and self.decay < 1.0,
            num_bits=BITS,
        )

    def present(self, weights: State) -> ValueRange:
        """Returns the range that the variables stand for."""
        return ValueRange(*(float(weights[key].numpy()) for key in ("min_var", "max_var")))


class LearnedRange:
    """A grid whose step is trained, and its zero point where values have both signs.

    Zero points are rounded, so that 0 stays exactly on the grid.

    Source: Esser et al., "Learned Step Size Quantization", ICLR 2020 (arXiv 1902.08153), eq. 3 and
        section 2.2 for the gradient of the step and its scale; Bhalgat et al., "LSQ+", 2020
        (arXiv 2004.09576), eq. 5 for that of the zero point.
    """

    def __init__(self, start: ValueRange) -> None:
        grid = activation_grid(start, DType.U8)
        self.step, self.zero = grid.scale[0], float(grid.zero_point[0])
        self.two_sided = 0 < self.zero < STEPS

    def build(self, tensor_shape: Any, name: str, layer: Any) -> State:
        """Returns how far step and zero point have moved from where they started."""
        return {
            key: layer.add_weight(f"{name}_{key}", initializer="zeros", trainable=trainable)
            for key, trainable in (("growth", True), ("shift", self.two_sided))
        }

    def _grid(self, weights: State) -> tuple[Tensor, Tensor]:
        step = self.step * tf.exp(STEP_RATE * weights["growth"])
        zero = tf.clip_by_value(self.zero + STEPS * STEP_RATE * weights["shift"], 0.0, STEPS)
        return step, zero + tf.stop_gradient(tf.round(zero) - zero)

    def __call__(self, inputs: Tensor, training: bool, weights: State, **kwargs: Any) -> Tensor:
        """Returns `inputs` rounded to the grid."""
        step, zero = self._grid(weights)
        features = math.prod(inputs.shape[1:])
        return round_to_step(inputs, step, zero, 1.0 / math.sqrt(features * STEPS))

    def present(self, weights: State) -> ValueRange:
        """Returns the range that the variables stand for."""
        step, zero = (float(value) for value in self._grid(weights))
        return ValueRange(-zero * step, (STEPS - zero) * step)


def round_to_step(x: Tensor, step: Tensor, zero: Tensor, scale: float) -> Tensor:
    """Returns values on the grid step * (0..255 - zero), with a gradient also for step and zero.

    Args:
        x: Real values.
        step: Of the grid.
        zero: The stored value that means 0, a whole number.
        scale: Of the gradients of step and zero.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def rounded(x: Tensor, step: Tensor, zero: Tensor) -> Any:
        low, high = -zero * step, (STEPS - zero) * step
        y = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=BITS)

        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            inside, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(
                upstream, x, low, high, num_bits=BITS
            )
            # y / step is the stored value less zero; inside, x / step is what was rounded.
            of_step = (tf.reduce_sum(upstream * y) - tf.reduce_sum(inside * x)) / step
            return inside, scale * of_step, -scale * step * (below + above)

        return y, gradient

    return rounded(x, step, zero)
