"""Files come back as the graphs they were, and bad files as errors that say what and where."""

from __future__ import annotations

import re

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from lmopt.codegen.tflite import emit
from lmopt.errors import InputError
from lmopt.frontend.tflite import metadata, read
from lmopt.ir.interp import run
from lmopt.ir.types import DType
from tests.support import op_zoo
from tests.support.tiny_tflite import TinyModel, dense_model

FORMS = {
    "float32": lambda graph: graph,
    "float16": op_zoo.halved,
    "int8": lambda graph: op_zoo.on_grids(graph, DType.I8),
    "uint8": lambda graph: op_zoo.on_grids(graph, DType.U8),
    "int16x8": lambda graph: op_zoo.on_grids(graph, DType.I16),
    "int8 between floats": lambda graph: op_zoo.on_grids(graph, DType.I8, edge=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_detector_comes_back_as_it_was(form):
    graph = FORMS[form](op_zoo.detector())
    back, texts = read(emit(graph, metadata={"lmopt.contract": "{}"}), "model.tflite")
    want = str(graph)
    if "landmarks_f32" in graph:  # a node that is an output is called after it
        want = re.sub(r"%landmarks\b", "%landmarks_2", want).replace("%landmarks_f32", "%landmarks")
    assert str(back) == want
    assert texts == {"lmopt.contract": "{}"}


@pytest.mark.parametrize("form", FORMS)
def test_every_op_computes_the_same_after_the_round_trip(form):
    graph = FORMS[form](op_zoo.zoo(integer=form not in ("float32", "float16")))
    back, _ = read(emit(graph), "model.tflite")
    feeds = op_zoo.inputs(graph, 2, seed=3)
    want, got = run(graph, feeds), run(back, feeds)
    assert list(got) == list(want)
    for name in want:
        if name == "batch_norm":  # comes back as a product and a sum
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    assert emit(read(emit(back), "again")[0]) == emit(back)


def test_files_of_others_have_names_of_others():
    kernel, bias = np.eye(2, 4, dtype=np.float32), np.ones(2, np.float32)
    graph, _ = read(dense_model(kernel, bias), "other.tflite")
    assert [node.name for node in graph.inputs] == ["image"]
    assert [name for name, _ in graph.outputs] == ["landmarks"]
    assert graph.inputs[0].results[0].shape == (1, 4)
    out = run(graph, {"image": np.array([[1, 2, 3, 4]], np.float32)})["landmarks"]
    np.testing.assert_array_equal(out, [[2, 3]])


def test_a_dense_op_that_flattens_becomes_a_reshape_and_a_dense():
    kernel, bias = np.ones((2, 12), np.float32), np.zeros(2, np.float32)
    graph, _ = read(dense_model(kernel, bias, input_shape=[1, 2, 2, 3]), "flat.tflite")
    assert [node.op.kind for node in graph.nodes] == ["input", "reshape", "dense"]
    out = run(graph, {"image": np.ones((1, 2, 2, 3), np.float32)})["landmarks"]
    np.testing.assert_array_equal(out, [[12, 12]])


def test_metadata_of_any_file():
    model = TinyModel()
    x, y = model.tensor("x", [1, 4]), model.tensor("y", [1, 4])
    model.op(schema.BuiltinOperator.COS, [x], [y])
    model.metadata({"lmopt.contract": "{}"})
    data = model.pack({"image": x}, {"landmarks": y})
    assert metadata(data) == {"lmopt.contract": "{}"}
    with pytest.raises(InputError) as caught:
        read(data, "cosine.tflite")
    assert "cosine.tflite: operator 0 COS -> y: COS is not supported" in str(caught.value)
    assert "convert it again with 'x' as output" in str(caught.value.hint)


def test_a_binary_metadata_entry_is_left_out():
    data = bytearray(emit(op_zoo.detector(), metadata={"text": "plain", "flat": "BINARY"}))
    place = data.index(b"BINARY")
    data[place] = 0xFF
    assert metadata(bytes(data)) == {"text": "plain"}


def test_custom_operator_is_named():
    model = TinyModel()
    x, y = model.tensor("x", [1, 4]), model.tensor("y", [1, 4])
    model.op(schema.BuiltinOperator.CUSTOM, [x], [y])
    model._model.operatorCodes[0].customCode = "Magic"
    with pytest.raises(InputError, match="custom 'Magic' is not supported"):
        read(model.pack({"x": x}, {"y": y}), "magic.tflite")


def altered(change):
    """An emitted model with one thing changed in its objects."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(emit(op_zoo.detector()), 0))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _options(graph, position, **fields):
    for key, value in fields.items():
        setattr(graph.operators[position].builtinOptions, key, value)


WRONG = {
    "operator 0 CONV_2D -> stem: fusedActivationFunction 4 is none of none or relu or relu6": (
        lambda model, graph: _options(graph, 0, fusedActivationFunction=4)
    ),
    "its strideH and strideW are (0, 2); wanted at least 1": (
        lambda model, graph: _options(graph, 0, strideH=0)
    ),
    "its result is f32[?,9,8,8] in the file; wanted the shape of f32[?,8,8,8]": (
        lambda model, graph: (
            setattr(tensor := graph.tensors[graph.operators[0].outputs[0]], "shape", [1, 9, 8, 8])
            or setattr(tensor, "shapeSignature", [-1, 9, 8, 8])
        )
    ),
    "has 864 bytes of values, wanted 868": (
        lambda model, graph: setattr(
            graph.tensors[graph.operators[0].inputs[1]], "shape", [1, 1, 1, 217]
        )
    ),
    "holds STRING; wanted": (
        lambda model, graph: setattr(
            graph.tensors[graph.inputs[0]], "type", schema.TensorType.STRING
        )
    ),
    "tensor 999 of": lambda model, graph: setattr(graph.operators[0], "inputs", [999, 1, 2]),
    "the model has 2 graphs; wanted one": lambda model, graph: model.subgraphs.append(graph),
    "is used before it is computed": lambda model, graph: graph.operators.reverse(),
    "is computed twice": lambda model, graph: graph.operators.append(graph.operators[-1]),
    "its options are NONE; wanted Conv2DOptions": (
        lambda model, graph: [
            setattr(graph.operators[0], "builtinOptions", None),
            setattr(graph.operators[0], "builtinOptionsType", 0),
        ]
    ),
    "it has 1 operands; wanted 2 or 3": (
        lambda model, graph: setattr(
            graph.operators[0], "inputs", [int(graph.operators[0].inputs[0])]
        )
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_file_says_what_and_where(message):
    data = altered(WRONG[message])
    with pytest.raises(InputError) as caught:
        read(data, "wrong.tflite")
    assert str(caught.value).startswith("wrong.tflite: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty, wanted 'TFL3'"),
        (b"PK\x03\x04 a zip archive", "starts with 50 4b 03 04"),
        (b"\x1c\x00\x00\x00TFL3", "corrupt TFLite file of 8 bytes"),
    ],
)
def test_not_a_tflite_file(data, message):
    with pytest.raises(InputError) as caught:
        read(data, "x.tflite")
    assert message in str(caught.value)
    assert caught.value.where == "x.tflite"
    assert caught.value.hint


def test_an_open_height_is_refused():
    data = altered(
        lambda other, graph: setattr(
            graph.tensors[graph.inputs[0]], "shapeSignature", [-1, -1, 16, 3]
        )
    )
    with pytest.raises(InputError, match=r"input 'image' is f32\[\?,\?,16,3\]"):
        read(data, "open.tflite")
