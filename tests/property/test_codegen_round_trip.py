"""Drawn graphs survive the way into a file and back; drawn damage never gets past InputError."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmopt.codegen.tflite import emit
from lmopt.errors import GraphError, InputError
from lmopt.frontend.tflite import metadata, read
from lmopt.ir import Edit, ops
from lmopt.ir.interp import run
from lmopt.ir.types import DType
from tests.support import op_zoo

ACTIVATION = st.sampled_from(["none", "relu", "relu6"])
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
LAYERS = st.one_of(
    st.builds(
        ops.Conv2D, st.integers(1, 6), PAIR, PAIR, use_bias=st.booleans(), activation=ACTIVATION
    ),
    st.builds(ops.Conv2D, st.just(4), PAIR, dilation=PAIR, groups=st.just(1)),
    st.builds(ops.DepthwiseConv2D, PAIR, PAIR, multiplier=st.integers(1, 2), activation=ACTIVATION),
    st.builds(ops.Dense, st.integers(1, 5), st.booleans(), ACTIVATION),
    st.builds(ops.MaxPool2D, PAIR, PAIR, st.just("same")),
    st.builds(ops.AvgPool2D, PAIR, PAIR, st.just("same")),
    st.builds(ops.Pad, *[st.integers(0, 2)] * 4),
    st.builds(ops.ResizeBilinear, PAIR),
    st.builds(ops.ResizeNearest, PAIR, st.booleans(), st.just(False)),
    st.builds(ops.LeakyRelu, st.floats(0.0625, 0.875, width=32)),
    st.builds(ops.Mean, st.just(True)),
    st.sampled_from(
        [ops.Relu(), ops.Relu6(), ops.PRelu(), ops.Sigmoid(), ops.Tanh(), ops.HardSwish()]
    ),
    st.sampled_from([ops.Add(), ops.Sub("relu"), ops.Mul(), ops.Concat(), ops.Concat(2)]),
    st.builds(
        ops.Conv2DTranspose,
        st.integers(1, 4),
        PAIR,
        PAIR,
        st.sampled_from(["same", "valid"]),
        st.booleans(),
        ACTIVATION,
    ),
    st.builds(
        lambda begin, stride: ops.Slice(begin, (-1, 2, -1), stride),
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.just(0)),
        st.tuples(st.integers(1, 2), st.just(1), st.integers(1, 2)),
    ),
    st.builds(
        ops.MirrorPad, *[st.integers(0, 1)] * 4, mode=st.sampled_from(["reflect", "symmetric"])
    ),
    st.sampled_from(
        [ops.Maximum(), ops.Minimum(), ops.Transpose((0, 1, 2, 3)), ops.Transpose((0, 2, 1, 3))]
    ),
)
BATCH = st.sampled_from([None, 1])


@st.composite
def graphs(draw):
    edit = Edit("drawn")
    values = [edit.input("image", (draw(BATCH), draw(st.integers(3, 6)), 5, 3))]
    for position, op in enumerate(draw(st.lists(LAYERS, min_size=1, max_size=6))):
        x = values[draw(st.integers(0, len(values) - 1))]
        # A two-operand op takes the value twice: shapes always fit.
        try:
            values.append(edit.add(f"node{position}", op, *[x] * (1 if op.arity == 1 else 2)))
        except GraphError:  # a slice or mirror of a map too small for it
            continue
    assume(len(values) > 1)
    edit.output("last", values[-1])
    if len(values) > 2 and draw(st.booleans()):
        edit.output("before", values[-2])
    return op_zoo.initialized(edit.done())


STORAGE = {"int8": DType.I8, "uint8": DType.U8, "int16x8": DType.I16}
FORMS = st.sampled_from(["float32", "float16", *STORAGE])


def in_form(graph, form):
    if form == "float16":
        return op_zoo.halved(graph)
    if form == "float32":
        return graph
    return op_zoo.on_grids(graph, STORAGE[form])


@settings(max_examples=80, deadline=None)
@given(graphs(), FORMS)
def test_a_drawn_graph_comes_back(graph, form):
    graph = in_form(graph, form)
    data = emit(graph, metadata={"a": "é"})
    back, texts = read(data, "drawn")
    assert texts == {"a": "é"}
    feeds = op_zoo.inputs(graph, 1, seed=4)
    want, got = run(graph, feeds), run(back, feeds)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    assert [node.op.kind for node in back.nodes] == [node.op.kind for node in graph.nodes]
    again = emit(back, metadata=texts)
    assert emit(read(again, "again")[0], metadata=texts) == again


SOUND = emit(op_zoo.on_grids(op_zoo.detector(), DType.I8), metadata={"lmopt.contract": "{}"})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_an_input_error_or_goes_unnoticed(data):
    damaged = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of a file is weights; the structure is where damage matters.
        near = data.draw(st.sampled_from([8, 200, len(SOUND) - 4000]))
        place = data.draw(st.integers(near, min(near + 4000, len(SOUND)) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    for look in (lambda: read(bytes(damaged), "damaged"), lambda: metadata(bytes(damaged))):
        try:
            look()
        except InputError as error:
            assert "damaged" in str(error) or "model" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SOUND) - 1))
def test_a_file_cut_short_is_an_input_error(length):
    try:
        read(SOUND[:length], "short")
    except InputError as error:
        assert str(error).startswith("short: ")
    else:
        raise AssertionError(f"{length} of {len(SOUND)} bytes were read as a model")
