"""The interpreter in float: values worked out by hand, the runtime as oracle, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir import DType, Edit, Graph, Quant, TensorType, Value, Weight
from lmopt.ir import ops as o
from lmopt.ir.interp import run
from lmopt.ir.interp.floating import FLOAT
from lmopt.ir.interp.integer import INTEGER
from lmopt.testing import run_on_runtime


def graph_of(op: o.Op, *shapes: tuple[int, ...], seed: int = 0) -> Graph:
    """Returns a float graph of one op with random weights."""
    rng = np.random.default_rng(seed)
    edit = Edit("one")
    operands = [edit.input(f"x{k}", (None, *shape)) for k, shape in enumerate(shapes)]
    types = [edit.node(value.node).results[0] for value in operands]
    weights = {
        key: rng.uniform(0.1, 1.0, shape).astype(np.float32)
        for key, shape in op.params(types).items()
    }
    edit.output("y", edit.add("op", op, *operands, weights=weights))
    return edit.done()


def random_inputs(graph: Graph, batch: int = 2) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return {
        node.name: (4 * rng.normal(size=(batch, *node.results[0].shape[1:]))).astype(np.float32)
        for node in graph.inputs
    }


def test_every_op_has_arithmetic() -> None:
    assert set(FLOAT) | {"input", "quantize"} == set(o.OPS)
    without = {kind for kind, op in o.OPS.items() if op.float_only}
    assert set(INTEGER) | {"input", "dequantize", "batch_norm"} | without == set(o.OPS)
    assert not set(INTEGER) & without


def apply(op: o.Op, x: object) -> NDArray[np.float32]:
    array = np.asarray(x, np.float32)
    return run(graph_of(op, array.shape[1:]), {"x0": array})["y"]


@pytest.mark.parametrize(
    ("op", "want"),
    [
        (o.Relu(), [0, 0, 2, 8]),
        (o.Relu6(), [0, 0, 2, 6]),
        (o.LeakyRelu(0.5), [-2, 0, 2, 8]),
        (o.Sigmoid(), [1 / (1 + np.exp(4)), 0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-8))]),
        (o.Tanh(), [np.tanh(-4), 0, np.tanh(2), np.tanh(8)]),
        (o.HardSwish(), [0, 0, 2 * 5 / 6, 8]),
        (o.Reshape((2, -1)), [[-4, 0], [2, 8]]),
        (o.Exp(), np.exp([-4, 0, 2, 8])),
        (o.Square(), [16, 0, 4, 64]),
        (o.Abs(), [4, 0, 2, 8]),
        (o.Softmax(), np.exp([-4, 0, 2, 8]) / np.exp([-4, 0, 2, 8]).sum()),
        (o.Slice((0,), (2,), (3,)), [-4, 8]),
        (o.Sum((1,)), 6),
    ],
)
def test_element_wise_by_hand(op: o.Op, want: object) -> None:
    np.testing.assert_allclose(apply(op, [[-4, 0, 2, 8]])[0], want, rtol=1e-6)


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(apply(o.Sigmoid(), [[-200, 200]]), [[0, 1]])


PICTURE = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)


def test_same_pools_leave_padding_out() -> None:
    average = apply(o.AvgPool2D((2, 2), (2, 2), "same"), PICTURE)
    np.testing.assert_array_equal(average[0, ..., 0], [[2, 3.5], [6.5, 8]])
    largest = apply(o.MaxPool2D((2, 2), (2, 2), "same"), -PICTURE)
    np.testing.assert_array_equal(largest[0, ..., 0], [[0, -2], [-6, -8]])


def test_pad_and_mean() -> None:
    padded = apply(o.Pad(top=1, right=2), PICTURE)
    assert padded.shape == (1, 4, 5, 1)
    assert padded[0, 0].sum() == 0 and padded.sum() == PICTURE.sum()
    assert apply(o.Mean(), PICTURE).tolist() == [[4]]


def test_transposed_convolution_spreads_every_pixel() -> None:
    def spread(op: o.Conv2DTranspose, taps: list[float]) -> object:
        edit = Edit("up")
        kernel = np.array(taps, np.float32).reshape(1, len(taps), 1, 1)
        x = edit.input("x", (None, 1, 2, 1))
        edit.output("y", edit.add("up", op, x, weights={"kernel": kernel}))
        return run(edit.done(), {"x": np.array([[[[1], [10]]]], np.float32)})["y"].reshape(-1)

    whole = o.Conv2DTranspose(1, (1, 3), (1, 2), "valid", use_bias=False)
    np.testing.assert_array_equal(spread(whole, [1, 2, 3]), [1, 2, 13, 20, 30])
    same = o.Conv2DTranspose(1, (1, 3), (1, 2), "same", use_bias=False)
    np.testing.assert_array_equal(spread(same, [1, 2, 3]), [1, 2, 13, 20])
    gaps = o.Conv2DTranspose(1, (1, 1), (1, 3), "valid", use_bias=False)
    np.testing.assert_array_equal(spread(gaps, [2]), [2, 0, 0, 20, 0, 0])


def test_blocks_of_pixels_become_channels_and_pixels_again() -> None:
    picture = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    deep = apply(o.SpaceToDepth(2), picture)
    np.testing.assert_array_equal(deep[0, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
    np.testing.assert_array_equal(apply(o.DepthToSpace(2), deep), picture)


def test_mirrored_borders() -> None:
    row = np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1)
    reflected = apply(o.MirrorPad(left=2, right=1), row)
    np.testing.assert_array_equal(reflected.reshape(-1), [3, 2, 1, 2, 3, 2])
    repeated = apply(o.MirrorPad(left=2, right=1, mode="symmetric"), row)
    np.testing.assert_array_equal(repeated.reshape(-1), [2, 1, 1, 2, 3, 3])


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (o.Slice((0,), (8,), (1,)), (7,), "cannot take 8 elements 1 apart from 0 on of 7"),
        (o.Slice((0, 0), (1, 1), (1, 1)), (7,), "slice wants begin, size and stride of 1"),
        (o.Transpose((1, 0)), (7,), "wants 0 and then 1 to 1"),
        (o.MirrorPad(3), (3, 3, 1), "larger than its borders"),
        (o.SpaceToDepth(2), (3, 4, 1), "into blocks of 2"),
        (o.DepthToSpace(2), (3, 4, 6), "cannot make blocks of 2"),
        (o.Sum((2, 1)), (3, 4, 6), "ascending axes from 1 to 3"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(op: o.Op, shape: tuple[int, ...], message: str) -> None:
    edit = Edit("wrong")
    with pytest.raises(GraphError, match=message):
        edit.add("y", op, edit.input("x", (None, *shape)))


def test_batch_norm_uses_stored_statistics() -> None:
    edit = Edit("bn")
    x = edit.input("x", (None, 2))
    stored = {"gamma": [2, 1], "beta": [1, 0], "mean": [3, 0], "variance": [4, 1]}
    weights = {key: np.array(value, np.float32) for key, value in stored.items()}
    edit.output("y", edit.add("bn", o.BatchNorm(epsilon=0.0), x, weights=weights))
    got = run(edit.done(), {"x": np.array([[5, -1]], np.float32)})["y"]
    np.testing.assert_allclose(got, [[3, -1]])


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (o.Conv2D(6, (3, 3), (2, 2), activation="relu6"), [(8, 7, 4)]),
        (o.Conv2D(6, (3, 2), (1, 1), (2, 3), "valid", use_bias=False), [(9, 9, 4)]),
        (o.Conv2D(6, (3, 3), groups=2), [(5, 5, 4)]),
        (o.DepthwiseConv2D((3, 3), (2, 1), multiplier=2, activation="relu"), [(6, 7, 3)]),
        (o.DepthwiseConv2D((2, 3), dilation=(2, 1), padding="valid"), [(6, 7, 3)]),
        (o.Dense(5, activation="relu"), [(7,)]),
        (o.PRelu(), [(4, 4, 3)]),
        (o.HardSwish(), [(4, 4, 3)]),
        (o.LeakyRelu(), [(4, 4, 3)]),
        (o.Add("relu"), [(4, 4, 3), (4, 4, 3)]),
        (o.Sub("relu6"), [(4, 4, 3), (1, 1, 3)]),
        (o.Mul(), [(4, 4, 3), (4, 4, 1)]),
        (o.MaxPool2D((3, 2), (2, 1), "same"), [(5, 6, 2)]),
        (o.AvgPool2D((3, 2), (2, 1), "same"), [(5, 6, 2)]),
        (o.Mean(keepdims=True), [(5, 6, 2)]),
        (o.Concat(1), [(2, 6, 2), (3, 6, 2)]),
        (o.Pad(1, 2, 0, 3), [(2, 6, 2)]),
        (o.Conv2DTranspose(5, (3, 3), activation="relu6"), [(4, 5, 3)]),
        (o.Conv2DTranspose(5, (2, 4), (3, 1), use_bias=False), [(4, 5, 3)]),
        (o.Conv2DTranspose(5, (2, 3), (3, 2), "valid"), [(4, 5, 3)]),
        (o.Softmax(), [(4, 5, 3)]),
        (o.Softmax(), [(7,)]),
        (o.Div("relu"), [(4, 4, 3), (1, 1, 3)]),
        (o.Square(), [(4, 4, 3)]),
        (o.Abs(), [(4, 4, 3)]),
        (o.Maximum(), [(4, 4, 3), (4, 4, 3)]),
        (o.Minimum(), [(4, 4, 3), (1, 1, 3)]),
        (o.Slice((1, 0, 1), (2, -1, 1), (1, 3, 1)), [(4, 5, 3)]),
        (o.Slice((2,), (-1,), (2,)), [(7,)]),
        (o.Transpose((0, 3, 1, 2)), [(4, 5, 3)]),
        (o.MirrorPad(2, 1, 0, 4), [(4, 5, 3)]),
        (o.MirrorPad(4, 1, 0, 5, "symmetric"), [(4, 5, 3)]),
        (o.SpaceToDepth(2), [(4, 6, 3)]),
        (o.DepthToSpace(2), [(4, 6, 12)]),
        (o.Sum((1, 3)), [(4, 6, 5)]),
        (o.Sum((2,), keepdims=True), [(4, 6, 5)]),
    ],
    ids=lambda value: value.kind if isinstance(value, o.Op) else "",
)
def test_float_ops_agree_with_the_runtime(op: o.Op, shapes: list[tuple[int, ...]]) -> None:
    graph = graph_of(op, *shapes)
    inputs = random_inputs(graph)
    got, want = run(graph, inputs)["y"], run_on_runtime(graph, inputs, "reference")["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def two_layers() -> tuple[Graph, Value]:
    edit = Edit("two")
    x = edit.input("x", (None, 2))
    doubled = edit.add("doubled", o.Add(), x, x)
    edit.output("y", edit.add("kept", o.Relu(), doubled))
    return edit.done(), doubled


def test_all_values_are_named_after_their_nodes() -> None:
    graph, _ = two_layers()
    values = run(graph, {"x": np.array([[1, -2]], np.float32)}, all_values=True)
    assert {key: array.tolist() for key, array in values.items()} == {
        "x": [[1, -2]],
        "doubled": [[2, -4]],
        "kept": [[2, 0]],
    }


def test_float16_weights_count_as_their_float32_values() -> None:
    edit = Edit("half")
    kernel = np.array([[1 / 3]], np.float16)
    x = edit.input("x", (None, 1))
    edit.output("y", edit.add("fc", o.Dense(1, use_bias=False), x, weights={"kernel": kernel}))
    got = run(edit.done(), {"x": np.array([[3]], np.float32)})["y"]
    assert got.dtype == np.float32 and got[0, 0] == np.float32(kernel[0, 0]) * 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs \[\] given, wanted \['x'\]"),
        ({"x": np.zeros((1, 3), np.float32)}, r"%x: the input is float32\[1, 3\], wanted f32"),
        ({"x": np.zeros(2, np.float32)}, r"%x: the input is float32\[2\]"),
        ({"x": np.zeros((1, 2), np.int64)}, r"%x: the input is int64\[1, 2\]"),
    ],
)
def test_wrong_inputs_are_named(inputs: dict[str, NDArray[np.generic]], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        run(two_layers()[0], inputs)


def test_missing_values_are_named() -> None:
    edit = Edit("untrained")
    edit.output("y", edit.add("fc", o.Dense(1), edit.input("x", (None, 2))))
    with pytest.raises(GraphError, match="%fc: the weight has no values"):
        run(edit.done(), {"x": np.zeros((1, 2), np.float32)})


def test_integer_grids_the_runtime_refuses_are_errors() -> None:
    edit = Edit("grid")
    grid = Quant.per_tensor(0.1, 0)
    x = edit.input("x", (None, 2))
    stored = edit.add("q", o.Quantize(), x, type=TensorType(DType.I8, (None, 2), grid))
    wrong = TensorType(DType.I8, (None, 2), grid)
    edit.output("y", edit.add("s", o.Sigmoid(), stored, type=wrong))
    with pytest.raises(GraphError, match="%s: sigmoid on integers wants a result scale of 1/256"):
        run(edit.done(), {"x": np.zeros((1, 2), np.float32)})


def test_asymmetric_int8_kernels_are_errors() -> None:
    edit = Edit("kernel")
    step = Quant.per_tensor(0.5, 0)
    x = edit.input("x", (None, 2))
    stored = edit.add("q", o.Quantize(), x, type=TensorType(DType.I8, (None, 2), step))
    kernel = Weight.of(np.ones((2, 1), np.int8), Quant.per_tensor(0.5, 3))
    out = TensorType(DType.I8, (None, 1), step)
    dense = o.Dense(1, use_bias=False)
    edit.output("y", edit.add("fc", dense, stored, weights={"kernel": kernel}, type=out))
    with pytest.raises(GraphError, match="%fc: an i8 kernel must have zero point 0"):
        run(edit.done(), {"x": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize(("op", "storage"), [(o.Relu(), DType.I32), (o.HardSwish(), DType.I16)])
def test_wider_integers_have_no_arithmetic(op: o.Op, storage: DType) -> None:
    edit = Edit("wide")
    type = TensorType(storage, (None, 2), Quant.per_tensor(0.1, 0))
    stored = edit.add("q", o.Quantize(), edit.input("x", (None, 2)), type=type)
    edit.output("y", edit.add("r", op, stored, type=type))
    with pytest.raises(GraphError, match=f"%r: {op.kind} on {storage} has no arithmetic"):
        run(edit.done(), {"x": np.zeros((1, 2), np.float32)})
