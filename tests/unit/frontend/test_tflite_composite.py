"""Ops on coordinates come back from the several operators that codegen writes them as."""

from __future__ import annotations

from collections.abc import Callable

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.errors import InputError
from lmopt.frontend.tflite import read
from lmopt.ir import Edit, Graph, ops
from lmopt.ir.interp import run
from lmopt.ir.types import DType
from lmopt.runtime.runner import Runner
from lmopt.zoo import dan, hrnet
from tests.support import op_zoo

DETECTORS: dict[str, Callable[[], Graph]] = {
    "dan2": lambda: dan.build("dan2", 2, 32),
    "hrnet": lambda: hrnet.build("hrnet", 32, folded=True),
}


def composed() -> Graph:
    """One output per op that becomes several operators, an odd step and factor among them."""
    edit = Edit("composed")
    x = edit.input("image", (None, 9, 10, 6))
    edit.input("other", (None, 9, 10, 6))
    odd = {
        "decode_odd_step": op_zoo._op(ops.HeatmapDecode(step=0.3)),
        "decode_odd_beta": op_zoo._op(ops.HeatmapDecode("softargmax", beta=2.7)),
    }
    for name, case in {**op_zoo.COMPOSED, **odd}.items():
        edit.output(name, case(edit, f"{name}_node", x))
    return op_zoo.initialized(edit.done())


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


def attributes(graph: Graph) -> list[str]:
    """All ops with their attributes; constants come where they are read first."""
    return sorted(str(node.op) for node in graph.nodes)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_cascade_and_heatmaps_come_back(name: str):
    graph = zoo.initialize(DETECTORS[name](), 1)
    data = emit(graph)
    back, _ = read(data, name)
    shape = graph.inputs[0].results[0].shape[1:]
    image = np.random.default_rng(2).uniform(size=(2, *shape)).astype(np.float32)
    (want,), (got,) = (run(g, {"image": image}).values() for g in (graph, back))
    assert np.ptp(want, axis=0).max() > 1e-4, "the answer does not depend on the picture"
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    again = emit(back)
    with Runner(data) as first, Runner(again) as second:
        (want,), (got,) = (runner.run({"image": image}).values() for runner in (first, second))
    np.testing.assert_array_equal(got, want)
    assert emit(read(again, "again")[0]) == again


def test_every_op_comes_back_with_its_attributes():
    graph = composed()
    back, _ = read(emit(graph), "composed.tflite")
    assert attributes(back) == attributes(graph)
    again = emit(back)  # outputs are now called after their nodes
    assert emit(read(again, "again")[0]) == again


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_of_its_own_comes_back(batch: int):
    edit = Edit("fixed")
    maps = edit.input("maps", (batch, 8, 6, 5))
    points = edit.add("points", ops.HeatmapDecode(), maps)
    corners = np.linspace(0, 1, 10, dtype=np.float32)
    reference = edit.add("reference", ops.Constant((10,)), weights={"value": corners})
    move = edit.add("move", ops.SimilarityFit(), points, reference)
    edit.output("moved", edit.add("warped", ops.Warp(), maps, move))
    graph = edit.done()
    assert str(read(emit(graph), "fixed")[0]) == str(graph).replace("%warped", "%moved")


def test_halves_come_back():
    graph = op_zoo.halved(op_zoo_case("similarity_fit_constant"))
    assert attributes(read(emit(graph), "half")[0]) == attributes(graph)


def test_islands_between_integers_come_back():
    edit = Edit("islands")
    x = edit.add("stem", ops.Conv2D(6), edit.input("image", (None, 8, 8, 3)))
    points = edit.add("points", ops.HeatmapDecode(), x)
    near = edit.add("near", ops.LandmarkHeatmap((8, 8)), points)
    edit.output("map", edit.add("head", ops.Conv2D(2), near))
    quantized = op_zoo.on_grids(op_zoo.initialized(edit.done()), DType.I8, edge=True)
    back, _ = read(emit(quantized), "islands")
    assert attributes(back) == attributes(quantized)
    again = emit(back)
    assert emit(read(again, "again")[0]) == again


def changed(graph: Graph, change: Callable[[schema.ModelT, list[str]], None]) -> bytes:
    """The file of a graph with one thing changed in its objects."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(emit(graph), 0))
    codes = [model.operatorCodes[o.opcodeIndex].builtinCode for o in model.subgraphs[0].operators]
    change(model, [names[code] for code in codes])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def warped() -> Graph:
    edit = Edit("warped")
    maps, move = edit.input("maps", (None, 4, 5, 2)), edit.input("move", (None, 2, 3))
    edit.output("moved", edit.add("moved", ops.Warp(), maps, move))
    return edit.done()


def _other_constant(model: schema.ModelT, names: list[str]) -> None:
    graph = model.subgraphs[0]
    added = graph.operators[names.index("MUL")].inputs[1]
    buffer = model.buffers[graph.tensors[added].buffer]
    buffer.data = np.frombuffer(np.array([[5], [6]], np.float32).tobytes(), np.uint8)


def _other_option(model: schema.ModelT, names: list[str]) -> None:
    operator = model.subgraphs[0].operators[names.index("SUB")]
    operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU


def _crossed(model: schema.ModelT, names: list[str]) -> None:
    operator = model.subgraphs[0].operators[names.index("MINIMUM")]
    operator.inputs = operator.inputs[::-1]


def _tapped(model: schema.ModelT, names: list[str]) -> None:
    graph = model.subgraphs[0]
    inner = graph.operators[names.index("FLOOR")].outputs[0]
    graph.outputs = [*graph.outputs, inner]
    signature = model.signatureDefs[0]
    signature.outputs.append(schema.TensorMapT(name="inner", tensorIndex=inner))


@pytest.mark.parametrize("change", [_other_constant, _other_option, _crossed, _tapped])
def test_what_computes_something_else_is_not_taken(change):
    same = read(changed(warped(), lambda model, names: None), "same")[0]
    assert kinds(same) == ["input", "input", "warp"]
    with pytest.raises(InputError, match=r"FLOOR is not supported"):
        read(changed(warped(), change), "other")


def test_names_do_not_matter():
    def renamed(model: schema.ModelT, names: list[str]) -> None:
        for index, tensor in enumerate(model.subgraphs[0].tensors):
            tensor.name = f"t{index}"

    graph, _ = read(changed(warped(), renamed), "renamed")
    assert kinds(graph) == ["input", "input", "warp"]


def op_zoo_case(name: str) -> Graph:
    edit = Edit(name)
    x = edit.input("image", (None, 9, 10, 6))
    edit.input("other", (None, 9, 10, 6))
    edit.output(name, op_zoo.COMPOSED[name](edit, f"{name}_node", x))
    return op_zoo.initialized(edit.done())
