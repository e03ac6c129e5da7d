"""Range observers on samples whose best range is known."""

import numpy as np
import pytest

from lmopt.errors import GraphError
from lmopt.ir.types import DType, ValueRange
from lmopt.quant.grid import activation_grid
from lmopt.quant.ranges import HEADROOM, OBSERVERS, ActivationSample, kl_divergence, min_max


def sample_of(values: np.ndarray) -> ActivationSample:
    return ActivationSample(float(values.min()), float(values.max()), values.reshape(-1))


def squared_error(values: np.ndarray, name: str) -> float:
    found = OBSERVERS[name](sample_of(values), DType.I8)
    grid = activation_grid(found, DType.I8)
    real = grid.dequantize(grid.quantize(values, DType.I8))
    return float(np.mean((real - values) ** 2))


def test_min_max_is_exact_even_where_the_sample_is_thin():
    sample = ActivationSample(-3.25, 9.5, np.zeros(16, np.float32))
    found = OBSERVERS["min-max"](sample, DType.I8)
    assert (found.low, found.high) == (-3.25, 9.5)


def test_sixteen_bits_have_room_for_more_than_was_seen():
    found = min_max(ActivationSample(-1.0, 2.0, np.zeros(16, np.float32)), DType.I16)
    assert (found.low, found.high) == (-HEADROOM, 2 * HEADROOM)


def test_mse_clips_an_outlier_that_costs_more_than_it_is_worth():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 400_000)).astype(np.float32)
    values[0, 0] = 12.0
    found = OBSERVERS["mse"](sample_of(values), DType.I8)
    assert found.high < 9.0
    assert squared_error(values, "mse") < squared_error(values, "min-max")


def test_mse_keeps_the_whole_range_of_even_values():
    values = np.linspace(-1, 1, 2001, dtype=np.float32)[None]
    found = OBSERVERS["mse"](sample_of(values), DType.U8)
    assert found.low == pytest.approx(-1, abs=0.05) and found.high == pytest.approx(1, abs=0.05)


def test_kl_is_the_divergence_of_what_a_grid_keeps():
    rng = np.random.default_rng(3)
    values = rng.laplace(size=400_000).astype(np.float32)
    values[0] = 60.0
    sample = sample_of(values[None])
    found = kl_divergence(sample, DType.I8)
    whole = min_max(sample, DType.I8)
    assert divergence(values, found) < 0.95 * divergence(values, whole)
    assert found.high < 0.4 * whole.high


def test_kl_keeps_even_values_whole():
    values = np.linspace(-1, 1, 300_001, dtype=np.float32)[None]
    found = OBSERVERS["kl"](sample_of(values), DType.U8)
    assert (found.low, found.high) == pytest.approx((-1, 1), abs=0.02)


def divergence(values: np.ndarray, found: ValueRange) -> float:
    """KL divergence, bin by bin, as the source writes it, over a histogram of a sixteenth step."""
    step = (found.high - found.low) / 255
    edges = found.low + step / 16 * np.arange(16 * 255 + 1)
    inside, _ = np.histogram(values, edges)
    wanted, spread = inside.astype(float), np.zeros(len(inside))
    wanted[0] += (values < edges[0]).sum()
    wanted[-1] += (values > edges[-1]).sum()
    for start in range(0, len(inside), 16):
        part = inside[start : start + 16]
        if part.any():
            spread[start : start + 16] = np.where(part > 0, part.sum() / (part > 0).sum(), 0)
    wanted, spread = wanted / wanted.sum(), np.maximum(spread / spread.sum(), 0.1 / len(values))
    return float(sum(p * np.log(p / q) for p, q in zip(wanted, spread, strict=True) if p > 0))


def test_percentile_drops_the_far_tails():
    values = np.concatenate([np.linspace(0, 1, 100_000), [50.0]]).astype(np.float32)
    assert OBSERVERS["percentile"](sample_of(values[None]), DType.U8).high == pytest.approx(
        1.0, abs=0.01
    )


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(GraphError, match="not finite"):
        sample_of(np.array([[np.nan]], np.float32))
