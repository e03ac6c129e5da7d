"""The parity gate: equal where the file is the graph's, the first op that differs where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.codegen.tflite import emit, tensor_names
from lmopt.errors import BackendError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.interp import compute, compute_by_default, run
from lmopt.ir.ops import Add, Conv2D, Dense, Mean, ResizeBilinear, Softmax
from lmopt.ir.types import DType, Quant, ValueRange, Weight
from lmopt.pipeline.services import QuantScheme
from lmopt.quant.assign import quantize_graph
from lmopt.runtime.parity import is_quantized, prove

IMAGES = np.random.default_rng(3).random((2, 6, 6, 2)).astype(np.float32)


def network() -> Graph:
    """Two convolutions that are added, a head, and a softmax that stays real."""
    rng = np.random.default_rng(1)
    edit = Edit("net")
    x = edit.input("image", (None, 6, 6, 2))
    a = edit.add("a", Conv2D(3, use_bias=False), x, weights=_kernel(rng, 3, 3, 2, 3))
    b = edit.add("b", Conv2D(3, use_bias=False), a, weights=_kernel(rng, 3, 3, 3, 3))
    both = edit.add("both", Add(), a, b)
    mean = edit.add("mean", Mean(), both)
    head = edit.add("head", Dense(4, use_bias=False), mean, weights=_kernel(rng, 3, 4))
    edit.output("answer", edit.add("share", Softmax(), head))
    return edit.done()


def _kernel(rng: np.random.Generator, *shape: int) -> dict[str, np.ndarray]:
    return {"kernel": rng.normal(size=shape).astype(np.float32)}


def quantized(storage: DType = DType.I8) -> Graph:
    graph = network()
    seen = run(graph, {"image": IMAGES}, all_values=True)
    ranges = {
        Value(name): ValueRange(float(array.min()), float(array.max()))
        for name, array in seen.items()
    }
    scheme = QuantScheme(storage, per_channel=storage is DType.I8)
    return quantize_graph(graph, ranges, scheme)


@pytest.mark.parametrize("storage", [DType.I8, DType.U8])
def test_a_file_of_the_graph_passes(storage: DType) -> None:
    graph = quantized(storage)
    found = prove(graph, emit(graph), {"image": IMAGES}, "net")
    # quantize, a, b, both, mean, head, dequantize, share
    assert (found.items, found.nodes, found.unchecked) == (2, 8, ())
    assert found.elements == 2 * (72 + 3 * 108 + 3 + 4)
    assert found.rounded < 0.05 * found.elements
    assert "8 nodes equal" in found.note


def test_only_the_reference_places_of_a_large_resize_may_drift() -> None:
    edit = Edit("net")
    image = edit.input("image", (None, 112, 112, 1))
    small = edit.add("small", ResizeBilinear((96, 96)), image)
    edit.output("y", edit.add("mean", Mean(), small))
    ranges = dict.fromkeys((Value("image"), Value("small"), Value("mean")), ValueRange(0.0, 1.0))
    graph = quantize_graph(edit.done(), ranges, QuantScheme(DType.I8, per_channel=True))
    noise = np.random.default_rng(0).integers(2, size=(1, 112, 112, 1)).astype(np.float32)
    stored = graph.type(Value("small")).quant.quantize(noise, DType.I8)
    node, types = graph.node("small"), (graph.type(Value("small")),)
    drift = compute(node, [stored], types).astype(int) - compute_by_default(node, [stored], types)
    assert np.abs(drift).max() > 5
    assert prove(graph, emit(graph), {"image": noise}, "net").nodes == 4


def test_the_first_op_that_differs_is_named_with_both_values() -> None:
    graph = quantized()
    weight = graph.node("b").weight("kernel")
    assert weight.array is not None
    kernel = weight.array.copy()
    kernel[1, 1, 0, 2] ^= 64
    edit = graph.edit()
    edit.set_weights("b", kernel=Weight.of(kernel, weight.type.quant))
    with pytest.raises(BackendError) as caught:
        prove(graph, emit(edit.done()), {"image": IMAGES}, "net")
    pattern = r"%b \(conv2d\) is the first op that differs: element \[0, \d, \d, 2\] is -?\d+ "
    assert caught.match(pattern + r"by the reference kernel's arithmetic, -?\d+ by")
    assert caught.value.where == "net, face 0"


def test_another_scale_in_the_file_is_found_where_it_acts() -> None:
    graph = quantized()
    quant = graph.type(Value("both")).quant
    assert quant is not None
    edit = graph.edit()
    finer = Quant.per_tensor(quant.scale[0] * 0.98, quant.zero_point[0])
    edit.set_type(Value("both"), replace(graph.type(Value("both")), quant=finer))
    with pytest.raises(BackendError, match=r"%both \(add\) is the first op that differs"):
        prove(graph, emit(edit.done()), {"image": IMAGES}, "net")


def test_only_graphs_with_grids_are_quantized() -> None:
    assert is_quantized(quantized())
    assert not is_quantized(network())


def test_tensor_names_are_those_in_the_file() -> None:
    names = tensor_names(quantized())
    assert names[Value("image")] == "image"
    assert names[Value("share")] == "answer"
    assert names[Value("both")] == "both"
