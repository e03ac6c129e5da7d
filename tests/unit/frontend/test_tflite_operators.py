"""Operators as converters combine them: what becomes of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from lmopt.codegen.tflite import emit
from lmopt.errors import InputError
from lmopt.frontend.tflite import read
from lmopt.ir import ops
from lmopt.ir.interp import run
from lmopt.runtime.runner import Runner
from tests.support.tiny_tflite import TinyModel

CODES, OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions


class Model(TinyModel):
    """A model of one input `x`, built operator by operator."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.x = self.tensor("x", shape)

    def numbers(self, name: str, values: object) -> int:
        array = np.asarray(values)
        dtype = np.int32 if array.dtype.kind == "i" else np.float32
        return self.tensor(name, array.shape, dtype, values=array.astype(dtype))

    def put(
        self,
        code: str,
        inputs: list[int],
        name: str,
        *shape: int,
        options: str = "NONE",
        dtype: type[np.generic] = np.float32,
        **fields: object,
    ) -> int:
        out = self.tensor(name, shape, dtype)
        made = None if options == "NONE" else getattr(schema, f"{options}T")()
        for key, value in fields.items():
            setattr(made, key, value)
        self.op(getattr(CODES, code), inputs, [out], made, getattr(OPTIONS, options))
        return out

    def done(self, out: int) -> bytes:
        return self.pack({"x": self.x}, {"y": out})


def dilated(paddings: list[list[int]], crops: list[list[int]], rows: int, result: int) -> bytes:
    """A 3x1 convolution of a 7-row picture with dilation 2, spelled in batches of 2."""
    model = Model(1, 7, 2, 1)
    block = model.numbers("block", [2, 1])
    spread = model.put(
        "SPACE_TO_BATCH_ND",
        [model.x, block, model.numbers("paddings", paddings)],
        "spread",
        *(2, rows, 2, 1),
        options="SpaceToBatchNDOptions",
    )
    kernel = model.numbers("kernel", np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1))
    bias = model.numbers("bias", np.array([0.5]))
    valid = {"padding": schema.Padding.VALID, "strideH": 1, "strideW": 1}
    conv = model.put(
        "CONV_2D",
        [spread, kernel, bias],
        "conv",
        *(2, rows - 2, 2, 1),
        options="Conv2DOptions",
        **valid,
    )
    return model.done(
        model.put(
            "BATCH_TO_SPACE_ND",
            [conv, block, model.numbers("crops", crops)],
            "y",
            *(1, result, 2, 1),
            options="BatchToSpaceNDOptions",
        )
    )


def same_as_the_runtime(data: bytes, shape: tuple[int, ...]) -> list[ops.Op]:
    """Returns the ops read, after comparing their outputs with the file's."""
    graph, _ = read(data, "made.tflite")
    image = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    results = []
    for each in (data, emit(graph)):
        with Runner(each) as runner:
            results.append(runner.run({"x": image})["y"])
    results.append(run(graph, {"x": image})["y"])
    for got in results[1:]:
        np.testing.assert_allclose(got, results[0], rtol=1e-5, atol=1e-5)
    return [node.op for node in graph.nodes if node.op.kind not in ("input", "constant")]


@pytest.mark.parametrize(
    ("paddings", "crops", "rows", "result", "kinds", "padding"),
    [
        ([[2, 3], [0, 0]], [[0, 1], [0, 0]], 6, 7, ["conv2d"], "same"),
        ([[0, 1], [0, 0]], [[0, 1], [0, 0]], 4, 3, ["conv2d"], "valid"),
        ([[1, 2], [0, 0]], [[0, 1], [0, 0]], 5, 5, ["pad", "conv2d"], "valid"),
    ],
)
def test_batches_around_a_convolution_are_dilation(paddings, crops, rows, result, kinds, padding):
    read_ops = same_as_the_runtime(dilated(paddings, crops, rows, result), (1, 7, 2, 1))
    assert [op.kind for op in read_ops] == kinds
    assert (read_ops[-1].dilation, read_ops[-1].padding) == ((2, 1), padding)


def test_a_fused_activation_that_the_op_lacks_becomes_a_node():
    model = Model(1, 4, 4, 2)
    window = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": 1}
    relu = schema.ActivationFunctionType.RELU
    out = model.put(
        "MAX_POOL_2D",
        [model.x],
        "y",
        *(1, 2, 2, 2),
        options="Pool2DOptions",
        fusedActivationFunction=relu,
        **window,
    )
    kinds = [op.kind for op in same_as_the_runtime(model.done(out), (1, 4, 4, 2))]
    assert kinds == ["max_pool2d", "relu"]


def test_numbers_computed_from_shapes_leave_no_node():
    model = Model(1, 4, 3, 2)
    whole = {"options": "ShapeOptions", "dtype": np.int32, "outType": schema.TensorType.INT32}
    shape = model.put("SHAPE", [model.x], "shape", 4, **whole)
    batch = model.put(
        "STRIDED_SLICE",
        [shape, *(model.numbers(f"n{k}", [k]) for k in (0, 1)), model.numbers("one", [1])],
        "batch",
        options="StridedSliceOptions",
        dtype=np.int32,
        shrinkAxisMask=1,
    )
    rows = model.put(
        "PACK",
        [batch, model.numbers("rows", np.array(12)), model.numbers("columns", np.array(2))],
        "rows_and_columns",
        3,
        options="PackOptions",
        dtype=np.int32,
        valuesCount=3,
    )
    flat = model.put("RESHAPE", [model.x, rows], "y", 1, 12, 2, options="ReshapeOptions")
    read_ops = same_as_the_runtime(model.done(flat), (1, 4, 3, 2))
    assert read_ops == [ops.Reshape((12, 2))]


def test_a_slice_that_drops_a_dimension_is_a_slice_and_a_reshape():
    model = Model(1, 4, 3, 2)
    corners = [
        model.numbers(name, values)
        for name, values in {
            "begin": [0, -2, 1, 0],
            "end": [0, 0, 0, 2],
            "strides": [1, 1, 1, 1],
        }.items()
    ]
    masks = {"beginMask": 1, "endMask": 1 | 4, "shrinkAxisMask": 2}
    out = model.put(
        "STRIDED_SLICE", [model.x, *corners], "y", 1, 2, 2, options="StridedSliceOptions", **masks
    )
    assert same_as_the_runtime(model.done(out), (1, 4, 3, 2)) == [
        ops.Slice((2, 1, 0), (1, -1, -1), (1, 1, 1)),
        ops.Reshape((2, 2)),
    ]


def test_a_factor_before_a_softmax_is_a_product():
    model = Model(1, 4, 3, 2)
    out = model.put("SOFTMAX", [model.x], "y", 1, 4, 3, 2, options="SoftmaxOptions", beta=2.5)
    assert same_as_the_runtime(model.done(out), (1, 4, 3, 2)) == [
        ops.Mul(),
        ops.Softmax(),
    ]


def _transposed(model: Model, rows: int) -> int:
    kernel = model.numbers("kernel", np.ones((1, 2, 2, 2)))
    shape = model.numbers("shape", [1, rows, 8, 1])
    fields = {"padding": schema.Padding.SAME, "strideH": 2, "strideW": 2}
    inputs = [shape, kernel, model.x]
    return model.put(
        "TRANSPOSE_CONV", inputs, "y", 1, rows, 8, 1, options="TransposeConvOptions", **fields
    )


def _corners(model: Model, begin: list[int]) -> list[int]:
    ends = [1, 4, 4, 2]
    return [model.numbers(n, v) for n, v in (("b", begin), ("e", ends), ("s", [1, 1, 1, 1]))]


REFUSED = {
    "its output shape is [9, 8, 1]; same padding gives [8, 8, 1]": lambda m: _transposed(m, 9),
    "tensor 'spread' is spread over the batch": lambda m: m.put(
        "RELU",
        [
            m.put(
                "SPACE_TO_BATCH_ND",
                [m.x, m.numbers("block", [2, 2]), m.numbers("paddings", [[0, 0], [0, 0]])],
                "spread",
                *(4, 2, 2, 2),
            )
        ],
        "y",
        *(4, 2, 2, 2),
    ),
    "it follows no convolution of a SPACE_TO_BATCH_ND": lambda m: m.put(
        "BATCH_TO_SPACE_ND",
        [m.x, m.numbers("block", [2, 2]), m.numbers("crops", [[0, 0], [0, 0]])],
        "y",
        *(1, 8, 8, 2),
    ),
    "it cuts the batch": lambda m: m.put(
        "STRIDED_SLICE",
        [m.x, *_corners(m, [1, 0, 0, 0])],
        "y",
        *(1, 4, 4, 2),
        options="StridedSliceOptions",
    ),
    "it pads with 3; wanted 0": lambda m: m.put(
        "PADV2",
        [m.x, m.numbers("p", [[0, 0], [1, 0], [0, 0], [0, 0]]), m.numbers("v", np.array(3.0))],
        "y",
        *(1, 5, 4, 2),
    ),
    "it takes the maximum over [3]; wanted height and width": lambda m: m.put(
        "REDUCE_MAX", [m.x, m.numbers("axes", [3])], "y", 1, 4, 4, options="ReducerOptions"
    ),
    "its axes are [7] of a tensor of rank 4": lambda m: m.put(
        "SUM", [m.x, m.numbers("axes", [7])], "y", 1, 4, 4, options="ReducerOptions"
    ),
    "COS is not supported": lambda m: m.put("COS", [m.x], "y", 1, 4, 4, 2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_read_says_where_to_cut(message):
    model = Model(1, 4, 4, 2)
    data = model.done(REFUSED[message](model))
    with pytest.raises(InputError) as caught:
        read(data, "made.tflite")
    assert message in str(caught.value)
    assert caught.value.where is not None and " -> y" in caught.value.where
    assert "cut the model there: convert it again with '" in str(caught.value.hint)
