from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.pipeline.services import SparsityPlan, TrainingPlan
from tests.support.training_graphs import CONTRACT, UNARY, Blobs, detector, single

pytestmark = pytest.mark.slow

PLAN = TrainingPlan(epochs=10, learning_rate=1e-2, batch=16, warmup_steps=5)


def test_mask_keeps_the_largest_entries_and_counts_exactly() -> None:
    from lmopt.training.pruning import largest

    kernel = np.array([[0.1, -3.0, 0.2], [2.0, 0.0, -0.3]])
    assert largest(kernel, 0.5).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert largest(np.ones((4, 5)), 0.75).sum() == 5
    assert largest(kernel, 0.999).sum() == 1
    assert largest(kernel, 0.0).sum() == 6


@pytest.mark.parametrize("epochs", [10, 0.01])
def test_training_reaches_the_sparsity(epochs: float) -> None:
    from lmopt.training.loop import Course
    from lmopt.training.pruning import fit_sparse

    plan = replace(PLAN, epochs=epochs)
    sparse = fit_sparse(detector(), SparsityPlan(0.7), Course(Blobs(), CONTRACT, plan, 3))
    for name in ("stem", "project", "landmarks"):
        kernel = sparse.node(name).weight("kernel").real()
        assert np.mean(kernel == 0) == pytest.approx(0.7, abs=0.51 / kernel.size)
    assert np.all(sparse.node("depthwise").weight("kernel").real() != 0)


def test_sparsity_rises_on_the_schedule() -> None:
    from lmopt.training.lower import lower
    from lmopt.training.pruning import Masks

    lowered = lower(detector())
    masks = Masks(lowered, SparsityPlan(0.8), steps=100)
    shares = []
    for step in range(1, 101):
        masks.after_step(step)
        shares.append(float(np.mean(masks.kernels["landmarks"].numpy() == 0)))
    assert shares[0] < 0.05
    # Zhu and Gupta, eq. 1, half way up: 0.8 * (1 - 0.5^3).
    assert shares[34] == pytest.approx(0.7, abs=0.01)
    assert shares[70] == shares[99] == pytest.approx(0.8, abs=0.001)
    assert all(early <= late for early, late in pairwise(shares))
    masks.require_sparsity()


def test_refusals() -> None:
    from lmopt.training.lower import lower
    from lmopt.training.pruning import Masks

    with pytest.raises(PassError, match="sparsity 1; wanted"):
        Masks(lower(detector()), SparsityPlan(1.0), steps=10)
    with pytest.raises(PassError, match="no convolution or dense kernel"):
        Masks(lower(single(UNARY["relu"])), SparsityPlan(0.5), steps=10)
