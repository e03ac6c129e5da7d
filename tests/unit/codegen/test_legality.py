"""What the runtime would refuse is an error with node and next step, before a byte is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lmopt.codegen import writer
from lmopt.codegen.tflite import emit
from lmopt.errors import BackendError, GraphError
from lmopt.ir import Edit, Graph, Quant, TensorType, Weight, ops
from lmopt.ir.types import DType
from lmopt.runtime.runner import Runner
from lmopt.target.limits import STEP_RATIOS
from tests.support import op_zoo


def one(op, *, shape=(None, 4, 4, 3), dtype=DType.F32, quant=None, result=None, weights=None):
    """input -> op, with the types forced to what a test wants to see refused."""
    edit = Edit("one")
    x = edit.input("image", shape)
    edit.set_type(x, TensorType(dtype, shape, quant))
    y = edit.add("node", op, x, weights=weights, type=result)
    edit.output("landmarks", y)
    return edit.done()


def stored(shape, dtype, quant):
    return Weight.of(np.ones(shape, dtype.numpy), quant)


GRID = Quant.per_tensor(0.5, 0)
I8 = TensorType(DType.I8, (None, 4, 4, 3), GRID)
U8 = TensorType(DType.U8, (None, 4, 4, 3), GRID)
I16 = TensorType(DType.I16, (None, 4, 4, 3), GRID)
POINT = ops.Conv2D(3, (1, 1))


def conv(type, kernel, bias, op=POINT):
    return one(
        op,
        dtype=type.dtype,
        quant=type.quant,
        result=type,
        weights={"kernel": kernel, "bias": bias},
    )


def channels(axis, count=3, zero=0):
    return Quant((0.5,) * count, (zero,) * count, axis)


BIAS = stored((3,), DType.I32, Quant.per_tensor(0.25, 0))
BIASES = stored((3,), DType.I32, channels(0))
REFUSED = {
    "no values yet": lambda: one(POINT),
    "only the batch may be unknown": lambda: one(ops.Relu(), shape=(None, None, 3)),
    "sigmoid in i8 gives scale 0.00390625": lambda: one(
        ops.Sigmoid(), dtype=DType.I8, quant=GRID, result=I8
    ),
    "hard_swish of i16 is not in the runtime": lambda: one(
        ops.HardSwish(), dtype=DType.I16, quant=GRID, result=I16
    ),
    "the zero point of 16-bit values must be 0": lambda: one(
        ops.Relu(), dtype=DType.I16, quant=GRID, result=replace(I16, quant=Quant.per_tensor(0.5, 1))
    ),
    "quantize of i16 to u8 is not in the runtime": lambda: one(
        ops.Quantize(), dtype=DType.I16, quant=GRID, result=U8
    ),
    "bias' is i32[3]<0.25:0>, wanted i64": lambda: conv(
        I16, stored((1, 1, 3, 1), DType.I8, GRID), BIAS, ops.DepthwiseConv2D((1, 1))
    ),
    "kernel' is i8[1,1,3,3]<0.5:0>, wanted u8": lambda: conv(
        U8, stored((1, 1, 3, 3), DType.I8, GRID), BIAS
    ),
    "an int8 kernel must have zero point 0": lambda: conv(
        I8, stored((1, 1, 3, 3), DType.I8, Quant.per_tensor(0.5, 1)), BIAS
    ),
    "a uint8 kernel must have one scale": lambda: conv(
        U8,
        stored((1, 1, 3, 3), DType.U8, channels(3)),
        stored((3,), DType.I32, Quant((0.25,) * 3, (0,) * 3, 0)),
    ),
    "per output channel lies on axis 3; got 3 scales on axis 2": lambda: conv(
        I8,
        stored((1, 1, 3, 3), DType.I8, channels(2)),
        stored((3,), DType.I32, Quant((0.25,) * 3, (0,) * 3, 0)),
    ),
    "the zero point of a bias must be 0": lambda: conv(
        I8,
        stored((1, 1, 3, 3), DType.I8, GRID),
        stored((3,), DType.I32, Quant.per_tensor(0.25, 1)),
    ),
    "wanted i32": lambda: conv(
        I8,
        stored((1, 1, 3, 3), DType.I8, GRID),
        stored((3,), DType.I8, Quant.per_tensor(0.25, 0)),
    ),
    "in a float node": lambda: one(
        POINT,
        weights={
            "kernel": stored((1, 1, 3, 3), DType.I8, GRID),
            "bias": np.ones(3, np.float32),
        },
    ),
    "no integer batch_norm": lambda: one(
        ops.BatchNorm(),
        dtype=DType.I8,
        quant=GRID,
        result=I8,
        weights={k: stored((3,), DType.I8, GRID) for k in ("gamma", "beta", "mean", "variance")},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_with_its_node(message):
    graph = REFUSED[message]()
    with pytest.raises(GraphError) as caught:
        emit(graph)
    assert message in str(caught.value)
    assert caught.value.where in ("%node", "%image")


def test_missing_values_name_the_training_call():
    with pytest.raises(GraphError, match=r"lmopt train"):
        emit(one(POINT))


def test_an_output_must_be_computed():
    edit = Edit("identity")
    x = edit.input("image", (None, 4))
    edit.output("same", x)
    with pytest.raises(GraphError, match="'same' is the input %image"):
        emit(edit.done())


def test_a_constant_has_the_type_it_holds():
    edit = Edit("constant")
    x = edit.input("image", (None, 4))
    edit.set_type(x, TensorType(DType.I8, (None, 4), GRID))
    values = Weight.of(np.ones(4, np.float32))
    type = TensorType(DType.I8, (4,), GRID)
    constant = edit.add("node", ops.Constant((4,)), weights={"value": values}, type=type)
    result = TensorType(DType.I8, (None, 4), GRID)
    edit.output("landmarks", edit.add("sum", ops.Add(), x, constant, type=result))
    with pytest.raises(GraphError, match=r"the value is f32\[4\] where the node gives i8\[4\]"):
        emit(edit.done())


def test_an_unverified_graph_is_verified():
    graph = op_zoo.detector()
    with pytest.raises(GraphError, match="output 'landmarks' is %nowhere"):
        emit(
            Graph(
                graph.name,
                graph.nodes,
                (("landmarks", replace(graph.outputs[0][1], node="nowhere")),),
            )
        )


def too_fine(op, ratio):
    """input(s) -> op, one step of the operands being `ratio` steps of the result."""
    edit = Edit("fine")
    grid = Quant.per_tensor(1.0, 0)
    x = edit.input("image", (None, 4, 4, 3))
    edit.set_type(x, TensorType(DType.I8, (None, 4, 4, 3), Quant.per_tensor(ratio, 0)))
    operands = [x]
    if op.arity == 2:
        operands.append(edit.input("other", (None, 4, 4, 3)))
        edit.set_type(operands[1], TensorType(DType.I8, (None, 4, 4, 3), grid))
    weights = {
        key: stored(shape, DType.I32 if key == "bias" else DType.I8, grid)
        for key, shape in op.params([I8]).items()
    }
    if "bias" in weights:
        weights["bias"] = stored((3,), DType.I32, Quant.per_tensor(ratio, 0))
    y = edit.add("node", op, *operands, weights=weights, type=replace(I8, quant=grid))
    edit.output("landmarks", y)
    return edit.done()


@pytest.mark.parametrize(
    "op",
    [
        POINT,
        ops.DepthwiseConv2D(),
        ops.Dense(3),
        ops.Add(),
        ops.Sub(),
        ops.Mul(),
        ops.HardSwish(),
    ],
    ids=lambda op: op.kind,
)
def test_a_grid_too_fine_for_the_kernels_is_a_failed_candidate(op):
    limit = STEP_RATIOS[op.kind]
    with pytest.raises(BackendError, match=rf"is {limit} steps of the result.* less than {limit}"):
        emit(too_fine(op, float(limit)))
    with Runner(emit(too_fine(op, limit * 0.99))) as runner:  # what is let through loads
        assert runner.outputs[0].name == "landmarks"


def test_weights_beyond_what_a_file_holds(monkeypatch):
    monkeypatch.setattr(writer, "_LARGEST", 1000)
    with pytest.raises(GraphError, match=r"the weights take \d+ bytes; a TFLite file holds 1000"):
        emit(op_zoo.detector())
