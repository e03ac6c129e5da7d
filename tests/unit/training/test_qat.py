from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.errors import PassError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import Add, Constant
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.base import QuantScheme, TrainingPlan, TrainingProgress
from lmopt.quant.assign import plan_grids, quantize_graph
from lmopt.quant.grid import (
    activation_grid,
    asymmetric_kernel,
    range_of,
    symmetric_kernel,
)
from tests.support.training_graphs import CONTRACT, Blobs, detector

pytestmark = pytest.mark.slow

INT8 = QuantScheme(DType.I8, per_channel=True)
UINT8 = QuantScheme(DType.U8, per_channel=False)
PLAN = TrainingPlan(epochs=10, learning_rate=1e-3, batch=16, warmup_steps=5)


def images() -> np.ndarray:
    return CONTRACT.normalize(next(Blobs().batches(16, 0))[0])


def calibrated(graph: Graph, scheme: QuantScheme = INT8) -> dict[Value, ValueRange]:
    values = run(graph, {"image": images()}, all_values=True)
    shared: dict[Value, list[np.ndarray]] = {}
    for value, owner in plan_grids(graph, scheme).owner.items():
        shared.setdefault(owner, []).append(values[str(value).lstrip("%")])
    return {
        owner: ValueRange(min(float(a.min()) for a in each), max(float(a.max()) for a in each))
        for owner, each in shared.items()
    }


PARTLY = QuantScheme(DType.I8, per_channel=True, real=frozenset({"stem", "project", "pooled"}))


@pytest.mark.parametrize("scheme", [INT8, UINT8, PARTLY], ids=["int8", "uint8", "partly"])
def test_forward_pass_is_what_the_quantized_graph_computes(scheme: QuantScheme) -> None:
    from lmopt.training.qat import round_graph

    graph = detector()
    ranges = calibrated(graph, scheme)
    wanted = run(quantize_graph(graph, ranges, scheme), {"image": images()})["landmarks"]
    got = round_graph(graph, ranges, scheme).run({"image": images()})["landmarks"].numpy()
    step = activation_grid(ranges[Value("landmarks")], scheme.storage).scale[0]
    steps = np.rint(np.abs(wanted - got) / step)
    # Integer kernels round a product of scales once more, so a tie may fall the other way.
    assert steps.max() <= 1
    assert steps.mean() < 0.2
    unrounded = run(graph, {"image": images()})["landmarks"]
    assert np.abs(unrounded - got).mean() > 0.2 * step


def test_a_mean_that_is_added_in_float32_is_not_rounded() -> None:
    from lmopt.training.qat import round_graph

    edit = detector().edit()
    mean = np.array([0.3, 0.31, 0.32, 0.333], np.float32)
    constant = edit.add("mean", Constant((4,)), weights={"value": mean})
    edit.output("landmarks", edit.add("placed", Add(), Value("landmarks"), constant))
    graph = edit.done()
    scheme = replace(INT8, real=frozenset({"placed"}))
    ranges = calibrated(graph, scheme)
    got = round_graph(graph, ranges, scheme).run({"image": images()})["landmarks"].numpy()
    step = activation_grid(ranges[Value("landmarks")], scheme.storage).scale[0]
    steps = (got - mean) / step
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    wanted = run(quantize_graph(graph, ranges, scheme), {"image": images()})["landmarks"]
    assert np.abs(got - wanted).max() < 1.01 * step


@pytest.mark.parametrize("per_channel", [True, False])
def test_kernels_lie_on_the_grid_of_the_file(per_channel: bool) -> None:
    from lmopt.training.backend import keras, tf
    from lmopt.training.qat import kernel_quantizer

    kernel = np.random.default_rng(0).normal(0.02, 0.1, (3, 3, 4, 5)).astype(np.float32)
    kernel[..., 2] = 0.0
    layer = keras.layers.Layer()
    quantizer = kernel_quantizer(per_channel, signed=per_channel)
    got = quantizer(
        tf.constant(kernel), training=True, weights=quantizer.build(kernel.shape, "kernel", layer)
    )
    stored = symmetric_kernel(kernel, 3) if per_channel else asymmetric_kernel(kernel)
    np.testing.assert_allclose(got, stored.real(), atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 0.17), (0.5, 3.0), (-7.0, -1.0)])
def test_activations_lie_on_the_grid_of_the_file(low: float, high: float) -> None:
    from lmopt.training.backend import keras, tf
    from lmopt.training.qat import CalibratedRange

    quantizer = CalibratedRange(ValueRange(low, high), decay=1.0)
    state = quantizer.build(None, "result", keras.layers.Layer())
    x = np.linspace(low - 1, high + 1, 1001, dtype=np.float32)
    grid = activation_grid(ValueRange(low, high), DType.I8)
    wanted = grid.dequantize(grid.quantize(x, DType.I8))
    difference = np.abs(quantizer(tf.constant(x), training=True, weights=state).numpy() - wanted)
    # Half a step is rounded up here and to even there.
    assert difference.max() < 1.001 * grid.scale[0]
    assert (difference > 1e-5).mean() < 0.01


def test_ranges_start_at_calibration_and_follow_slowly() -> None:
    from lmopt.training.backend import keras, tf
    from lmopt.training.qat import CalibratedRange

    quantizer = CalibratedRange(ValueRange(0.0, 0.17), decay=0.9)
    state = quantizer.build(None, "result", keras.layers.Layer())
    assert float(state["max_var"]) == pytest.approx(0.17)
    quantizer(tf.constant([-1.0, 0.27]), training=False, weights=state)
    assert float(state["max_var"]) == pytest.approx(0.17)
    quantizer(tf.constant([-1.0, 0.27]), training=True, weights=state)
    assert float(state["max_var"]) == pytest.approx(0.18)
    assert float(state["min_var"]) == pytest.approx(-0.1)


@pytest.mark.parametrize("scheme", [INT8, UINT8], ids=["int8", "uint8"])
def test_training_gives_float_weights_and_ranges_on_the_grid(scheme: QuantScheme) -> None:
    from lmopt.training.loop import Course
    from lmopt.training.qat import fit_quantized, round_graph

    graph = detector()
    ranges = calibrated(graph)
    seen: list[TrainingProgress] = []
    course = Course(Blobs(), CONTRACT, PLAN, 3, on_progress=seen.append)
    trained, found = fit_quantized(graph, ranges, scheme, course)
    assert set(found) == set(ranges)
    assert trained.weights() != graph.weights()
    assert found[Value("stem")] != ranges[Value("stem")]
    image = activation_grid(ranges[Value("image")], scheme.storage)
    assert found[Value("image")] == range_of(image, scheme.storage)
    for end in found.values():
        grid = activation_grid(end, scheme.storage)
        assert range_of(grid, scheme.storage).low == pytest.approx(end.low, abs=1e-6)
    edit = trained.edit()
    for name in ("stem", "depthwise", "project"):
        edit.output(name, Value(name))
    watched = edit.done()
    wanted = run(quantize_graph(watched, found, scheme), {"image": images()})
    got = round_graph(watched, found, scheme).run({"image": images()})
    for name, value in watched.outputs[1:]:
        step = activation_grid(found[value], scheme.storage).scale[0]
        steps = np.rint(np.abs(wanted[name] - got[name].numpy()) / step)
        assert steps.max() <= 1
        # The dark background is one value many times over, so one tie counts many times.
        assert np.mean(steps > 0) < 0.1


def test_batch_norm_is_refused() -> None:
    from lmopt.training.qat import round_graph

    with pytest.raises(PassError, match=r"%stem_bn: .*\nhint: put fold-batchnorm before"):
        round_graph(detector(batch_norm=True), {}, INT8)
