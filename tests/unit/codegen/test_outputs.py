"""Emitted files compute what the reference interpreter computes, op by op."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt.codegen.table import EMITTERS
from lmopt.codegen.tflite import emit
from lmopt.ir.interp import run
from lmopt.ir.ops import OPS
from lmopt.ir.types import DType
from lmopt.runtime.runner import Runner
from tests.support import op_zoo

ITEMS = 3
KERNELS = ("default", "builtin", "reference")
REAL = [*op_zoo.CASES, *op_zoo.FLOAT_ONLY, *op_zoo.COMPOSED]
FORMS = {"i8": DType.I8, "u8": DType.U8, "i16": DType.I16}
FUNCTIONS = ("sigmoid", "tanh", "softmax", "softmax_flat", "exp")
"""In float32 between 16-bit values, where the last bit of a function may decide about a step."""


def outcome(graph, kernels):
    feeds = op_zoo.inputs(graph, ITEMS, seed=5)
    with Runner(emit(graph), kernels=kernels) as runner:
        got = runner.run(feeds)
    return run(graph, feeds), got


@pytest.fixture(scope="module", params=KERNELS)
def real(request):
    return outcome(op_zoo.zoo(integer=False, composed=True), request.param)


@pytest.fixture(scope="module")
def half():
    return outcome(op_zoo.halved(op_zoo.zoo(integer=False, composed=True)), "default")


@pytest.fixture(scope="module", params=FORMS)
def exact(request):
    return outcome(op_zoo.on_grids(op_zoo.zoo(integer=True), FORMS[request.param]), "reference")


@pytest.fixture(scope="module", params=FORMS)
def shipped(request):
    return outcome(op_zoo.on_grids(op_zoo.zoo(integer=True), FORMS[request.param]), "default")


def test_every_op_has_an_emitter():
    assert EMITTERS.keys() == OPS.keys()


@pytest.mark.parametrize("name", REAL)
def test_float(real, name):
    want, got = (outputs[name] for outputs in real)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", REAL)
def test_float16_weights(half, name):
    want, got = (outputs[name] for outputs in half)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", op_zoo.CASES)
def test_integers_equal_the_reference_kernels(exact, name):
    want, got = (outputs[name] for outputs in exact)
    assert got.dtype == want.dtype
    if got.dtype == np.int16 and name in FUNCTIONS:
        assert np.abs(got.astype(int) - want.astype(int)).max() <= 1
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", op_zoo.CASES)
def test_integers_are_within_a_step_of_the_shipped_kernels(shipped, name):
    want, got = (outputs[name].astype(int) for outputs in shipped)
    assert np.ptp(want) > 10
    assert np.abs(got - want).max() <= 1


@pytest.mark.parametrize("storage", FORMS)
def test_float_edges_around_integers(storage):
    graph = op_zoo.on_grids(op_zoo.detector(), FORMS[storage], edge=True)
    want, got = outcome(graph, "reference")
    assert got["landmarks"].dtype == np.float32
    np.testing.assert_array_equal(got["landmarks"], want["landmarks"])
