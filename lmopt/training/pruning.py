"""Magnitude pruning during training, on tfmot's polynomial schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_model_optimization.sparsity.keras import PolynomialDecay

from lmopt.errors import BackendError, PassError
from lmopt.ir.graph import Graph
from lmopt.pipeline.services import SparsityPlan
from lmopt.training.backend import tf
from lmopt.training.loop import Course, train
from lmopt.training.lower import Lowered, lower, read_back

PRUNED_KINDS = frozenset({"conv2d", "conv2d_transpose", "dense"})
"""Kinds whose kernels are pruned; depthwise kernels are too small and too sensitive."""

RISE = 0.7
"""Share of the steps in which the sparsity rises; the rest trains what is left."""

UPDATES = 50
"""Mask updates on the way up."""


class Masks:
    """Which entries of each kernel are left, following the schedule."""

    def __init__(self, lowered: Lowered, plan: SparsityPlan, steps: int) -> None:
        if not 0.0 <= plan.sparsity < 1.0:
            raise PassError(f"sparsity {plan.sparsity:g}; wanted at least 0 and below 1")
        self.sparsity = plan.sparsity
        self.kernels = {
            name: layer.parameters["kernel"]
            for name, layer in lowered.layers.items()
            if layer.node.op.kind in PRUNED_KINDS
        }
        if not self.kernels:
            raise PassError("there is no convolution or dense kernel to prune")
        self.masks = {
            name: tf.Variable(tf.ones_like(kernel), trainable=False)
            for name, kernel in self.kernels.items()
        }
        rise = max(1, int(RISE * steps))
        frequency = max(1, rise // UPDATES)
        self._schedule = PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=plan.sparsity,
            begin_step=0,
            end_step=max(frequency, rise // frequency * frequency),
            frequency=frequency,
        )
        self._apply = tf.function(self._mask_kernels)

    def after_step(self, step: int) -> None:
        """Updates the masks where the schedule says so, and zeroes what they exclude."""
        due, sparsity = self._schedule(tf.constant(step))
        if bool(due):
            for name, kernel in self.kernels.items():
                self.masks[name].assign(largest(kernel.numpy(), float(sparsity)))
        self.apply()

    def apply(self) -> None:
        """Zeroes the kernel entries that the masks exclude."""
        self._apply()

    def _mask_kernels(self) -> None:
        for name, kernel in self.kernels.items():
            kernel.assign(kernel * self.masks[name])

    def require_sparsity(self) -> None:
        """Raises BackendError unless every kernel has the zeros it was to get."""
        for name, kernel in self.kernels.items():
            values = kernel.numpy()
            wanted = values.size - kept(values.size, self.sparsity)
            zeros = int(np.count_nonzero(values == 0))
            if zeros < wanted:
                raise BackendError(
                    f"{zeros} of {values.size} kernel entries are 0, wanted {wanted}",
                    where=f"%{name}",
                )


def kept(size: int, sparsity: float) -> int:
    """Returns how many of `size` entries are left; never none (tfmot's rule)."""
    return max(1, round(size * (1.0 - sparsity)))


def largest(kernel: NDArray[np.floating[Any]], sparsity: float) -> NDArray[np.float32]:
    """Returns 1 where a kernel's entry is among the largest by magnitude, else 0."""
    count = kept(kernel.size, sparsity)
    order = np.argsort(-np.abs(kernel), axis=None, kind="stable")
    mask = np.zeros(kernel.size, np.float32)
    mask[order[:count]] = 1.0
    return mask.reshape(kernel.shape)


def fit_sparse(graph: Graph, plan: SparsityPlan, course: Course) -> Graph:
    """Returns `graph` trained while the smallest entries of its kernels are set to 0.

    Source: Zhu and Gupta, "To prune, or not to prune", 2017 (arXiv 1710.01878), eq. 1.

    Raises:
        PassError: Nothing can be pruned, or the sparsity is out of range.
        BackendError: The loss became infinite or not a number.
    """
    lowered = lower(graph)
    masks = Masks(lowered, plan, course.steps)
    train(lowered, course, after_step=masks.after_step, extra=[*masks.masks.values()])
    # The averaged weights remember entries from before they were excluded.
    masks.apply()
    masks.require_sparsity()
    return read_back(graph, lowered)
