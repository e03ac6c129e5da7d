"""What stands in an emitted file besides the numbers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from lmopt.codegen.tflite import emit
from lmopt.codegen.writer import SIGNATURE
from lmopt.ir import Edit, Quant, Weight, ops
from lmopt.ir.interp import run
from lmopt.ir.types import DType
from tests.support import op_zoo


def unpacked(data):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def tensors(model):
    return {t.name.decode(): t for t in model.subgraphs[0].tensors}


def values(model, name, dtype):
    tensor = tensors(model)[name]
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), dtype).reshape(tensor.shape)


def codes(model):
    return {(c.builtinCode, c.version) for c in model.operatorCodes}


def test_equal_graphs_give_equal_bytes():
    graph = op_zoo.detector()
    copy = pickle.loads(pickle.dumps(graph))
    assert emit(graph, metadata={"a": "b"}) == emit(copy, metadata={"a": "b"})
    assert emit(graph) != emit(op_zoo.detector(seed=1))


def test_buffers_are_aligned_to_16_bytes():
    model = schema.Model.GetRootAs(emit(op_zoo.zoo(integer=False)), 0)
    starts = []
    for k in range(model.BuffersLength()):
        table = model.Buffers(k)._tab
        if table.Offset(4):
            starts.append(table.Vector(table.Offset(4)))
    assert len(starts) > 20
    assert {start % 16 for start in starts} == {0}


def test_names_signature_and_metadata():
    model = unpacked(emit(op_zoo.detector(), metadata={"lmopt.contract": '{"é": 1}', "none": ""}))
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    assert model.description == b"lmopt"
    assert signature.signatureKey.decode() == SIGNATURE == "serving_default"
    assert [(i.name, i.tensorIndex) for i in signature.inputs] == [(b"image", graph.inputs[0])]
    assert [(o.name, o.tensorIndex) for o in signature.outputs] == [
        (b"landmarks", graph.outputs[0])
    ]
    assert graph.tensors[graph.inputs[0]].name == b"image"
    texts = {
        entry.name.decode(): b""
        if (data := model.buffers[entry.buffer].data) is None
        else data.tobytes()
        for entry in model.metadata
    }
    assert texts == {"lmopt.contract": '{"é": 1}'.encode(), "none": b""}


def test_an_inner_node_never_takes_the_name_of_an_output():
    edit = Edit("clash")
    x = edit.input("image", (None, 4))
    inner = edit.add("landmarks", ops.Relu(), x)
    edit.output("landmarks", edit.add("head", ops.Tanh(), inner))
    model = unpacked(emit(edit.done()))
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert sorted(names) == [b"image", b"landmarks", b"landmarks_2"]


def test_layouts_and_channel_scales():
    edit = Edit("grids")
    grid = Quant.per_tensor(0.5, 3)
    x = edit.input("image", (1, 4, 4, 2))
    edit.set_type(x, edit.node("image").results[0].__class__(DType.I8, (1, 4, 4, 2), grid))
    type = edit.node("image").results[0]

    def kernel(shape, axis):
        count = shape[axis]
        stored = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
        return Weight.of(
            stored, Quant(tuple(0.25 * (k + 1) for k in range(count)), (0,) * count, axis)
        )

    conv, deep = kernel((1, 2, 2, 3), 3), kernel((2, 2, 2, 1), 2)
    y = edit.add(
        "conv",
        ops.Conv2D(3, (1, 2), use_bias=False),
        x,
        weights={"kernel": conv},
        type=type.with_shape((1, 4, 4, 3)),
    )
    z = edit.add(
        "deep",
        ops.DepthwiseConv2D((2, 2), use_bias=False),
        x,
        weights={"kernel": deep},
        type=type,
    )
    edit.output("a", y)
    edit.output("b", z)
    model = unpacked(emit(edit.done()))
    found = tensors(model)
    np.testing.assert_array_equal(
        values(model, "conv/kernel", np.int8), np.transpose(conv.array, (3, 0, 1, 2))
    )
    np.testing.assert_array_equal(
        values(model, "deep/kernel", np.int8), deep.array.reshape(1, 2, 2, 2)
    )
    assert found["conv/kernel"].quantization.quantizedDimension == 0
    assert found["deep/kernel"].quantization.quantizedDimension == 3
    np.testing.assert_array_equal(found["conv/kernel"].quantization.scale, [0.25, 0.5, 0.75])
    # A node without a bias gets zeros on the grid the kernels want.
    np.testing.assert_array_equal(values(model, "conv/bias", np.int32), [0, 0, 0])
    np.testing.assert_array_equal(found["conv/bias"].quantization.scale, [0.125, 0.25, 0.375])
    assert (schema.BuiltinOperator.CONV_2D, 3) in codes(model)
    assert found["image"].shapeSignature is None


def test_a_shared_weight_is_stored_once():
    rng = np.random.default_rng(0)
    weight = Weight.of(rng.normal(size=(4, 4)).astype(np.float32))
    model = unpacked(emit(op_zoo.shared(weight, 3)))
    found = tensors(model)
    assert len({found[f"layer_{k}/kernel"].buffer for k in range(3)}) == 1
    assert len(model.buffers) == 3  # nothing, the kernel, the zeros of the missing biases


def test_float16_weights_are_halves_in_the_file():
    graph = op_zoo.detector()
    full, half = emit(graph), emit(op_zoo.halved(graph))
    model = unpacked(half)
    stem = tensors(model)["stem/kernel/f16"]
    assert stem.type == schema.TensorType.FLOAT16
    assert len(model.buffers[stem.buffer].data) == 2 * 3 * 3 * 3 * 8
    weights = sum(w.array.nbytes for w in graph.weights().values())
    assert len(full) - len(half) > weights / 2 - 6000


@pytest.mark.parametrize("form", ["float32", "float16", "int8"])
def test_xnnpack_takes_the_whole_detector(form):
    graph = op_zoo.detector()
    if form == "float16":
        graph = op_zoo.halved(graph)
    if form == "int8":
        graph = op_zoo.on_grids(graph, DType.I8)
    interpreter = Interpreter(model_content=emit(graph))
    interpreter.allocate_tensors()
    planned = {op["op_name"] for op in interpreter._get_ops_details()}
    assert "DELEGATE" in planned
    delegate = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    (output,) = (entry["index"] for entry in interpreter.get_output_details())
    assert len(delegate) == 1
    assert output in delegate[0]["outputs"]


@pytest.mark.parametrize(
    "resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES]
)
def test_the_batch_can_be_resized(resolver):
    graph = op_zoo.detector()
    interpreter = Interpreter(model_content=emit(graph), experimental_op_resolver_type=resolver)
    feeds = op_zoo.inputs(graph, 5, seed=2)
    (entry,) = interpreter.get_input_details()
    assert list(entry["shape"]) == [1, 16, 16, 3]
    assert list(entry["shape_signature"]) == [-1, 16, 16, 3]
    interpreter.resize_tensor_input(entry["index"], (5, 16, 16, 3), strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], feeds["image"])
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(got, run(graph, feeds)["landmarks"], rtol=1e-4, atol=1e-5)
