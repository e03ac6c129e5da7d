"""Ranges that would give the runtime's kernels too fine a grid are widened just enough."""

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.errors import BackendError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import run
from lmopt.ir.ops import Add, Concat, Conv2D, Dense, DepthwiseConv2D, HardSwish, Mean, Mul, Sub
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import legal_ranges, quantize_graph
from lmopt.quant.grid import activation_grid
from lmopt.target.limits import STEP_RATIOS
from lmopt.testing import run_on_runtime
from lmopt_passes.quantize_int8 import QuantizeInt8
from tests.support.op_zoo import initialized
from tests.support.services import DrawnCalibrator, full_context

INT8 = QuantScheme(DType.I8, per_channel=True)
UINT8 = QuantScheme(DType.U8, per_channel=False)
NARROW = ValueRange(-1e-7, 2e-7)


def net(op) -> Graph:
    """A convolution and an op on its result (and the picture)."""
    edit = Edit("narrow")
    image = edit.input("image", (None, 4, 4, 3))
    x = edit.add("first", Conv2D(3), image)
    edit.output("landmarks", edit.add("last", op, x, *[image] * (op.arity == 2)))
    return initialized(edit.done())


def ranges_with(graph: Graph, narrow: str) -> dict[Value, ValueRange]:
    ranges = {node.value: ValueRange(-1.0, 1.0) for node in graph.nodes}
    return ranges | {Value(narrow): NARROW}


@pytest.mark.parametrize("scheme", [INT8, UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize(
    "op",
    [Conv2D(3), DepthwiseConv2D(), Dense(3), Add(), Sub(), Mul(), HardSwish()],
    ids=lambda op: op.kind,
)
def test_a_range_far_too_narrow_is_moved_to_a_legal_one(op, scheme: QuantScheme):
    graph = net(op)
    ranges = ranges_with(graph, "last")
    quantized = quantize_graph(graph, ranges, scheme)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 3)).astype(np.float32)
    got = run_on_runtime(quantized, {"image": images}, "default")["landmarks"]
    np.testing.assert_allclose(got, run(quantized, {"image": images})["landmarks"], atol=0.02)
    wide = legal_ranges(graph, ranges, scheme)
    assert {v for v in wide if wide[v] != ranges[v]} == {Value("last")}
    # just enough: a range 1 % narrower is refused
    assert wide[Value("last")].low / wide[Value("last")].high == pytest.approx(-0.5)
    edit = quantized.edit()
    type = quantized.type(Value("last"))
    found = wide[Value("last")]
    finer = activation_grid(ValueRange(0.99 * found.low, 0.99 * found.high), scheme.storage)
    edit.set_type(Value("last"), type.__class__(type.dtype, type.shape, finer))
    with pytest.raises(BackendError, match=rf"takes less than {STEP_RATIOS[op.kind]}"):
        emit(edit.done())


def test_legal_ranges_stay_as_they_are():
    graph = net(Dense(3))
    ranges = {node.value: ValueRange(-1.0, 1.0) for node in graph.nodes}
    assert legal_ranges(graph, ranges, INT8) == ranges
    assert legal_ranges(graph, legal_ranges(graph, ranges_with(graph, "first"), INT8), INT8) == (
        legal_ranges(graph, ranges_with(graph, "first"), INT8)
    )


def test_a_range_of_nothing_is_widened_too():
    graph = net(Mul())
    ranges = ranges_with(graph, "last") | {Value("image"): ValueRange(-1e6, 1e6)}
    ranges[Value("first")] = ValueRange(0.0, 0.0)
    assert legal_ranges(graph, ranges, INT8)[Value("first")].high > 0
    emit(quantize_graph(graph, ranges, INT8))


def test_what_shares_a_grid_is_widened_at_its_owner():
    edit = Edit("shared")
    image = edit.input("image", (None, 4, 4, 3))
    parts = [edit.add(name, Conv2D(2), image) for name in ("left", "right")]
    both = edit.add("both", Concat(), *parts)
    edit.output("landmarks", edit.add("last", Dense(4), edit.add("mean", Mean(), both)))
    graph = initialized(edit.done())
    ranges = {v: ValueRange(-1.0, 1.0) for v in map(Value, ("image", "last", "mean"))}
    ranges[Value("both")] = NARROW
    wide = legal_ranges(graph, ranges, INT8)
    assert wide[Value("both")].high > 50 * NARROW.high
    quantized = quantize_graph(graph, ranges, INT8)
    assert len({quantized.type(Value(n)).quant for n in ("left", "right", "both")}) == 1
    emit(quantized)


def test_the_pass_says_which_ranges_it_moved():
    class Narrowing(DrawnCalibrator):
        def ranges(self, graph, values, observer, *, faces, storage):
            found = super().ranges(graph, values, observer, faces=faces, storage=storage)
            return {v: NARROW if v.node == "last" else r for v, r in found.items()}

    context = full_context()
    services = {**context.services, "calibrator": Narrowing()}
    result = QuantizeInt8().apply(net(Dense(3)), PassContext(services=services))
    assert any("%last" in note and "wid" in note for note in result.notes), result.notes
    assert not any("wid" in note for note in QuantizeInt8().apply(net(Add()), context).notes)
    emit(result.graph)
