"""Quantized graphs equal the runtime, and stay within the bounds stated before they run."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmopt.ir import Edit
from lmopt.ir import ops as o
from lmopt.ir.ops import OPS
from lmopt.ir.types import DType
from lmopt.quant.kernel_error import ANOTHER_STEP
from lmopt.quant.real import real_form
from lmopt.quant.rules import RULES
from lmopt.testing import (
    Case,
    QuantizedCase,
    assert_error_within_bound,
    assert_interpreter_equals_runtime,
    assert_requantize_monotone,
    assert_scale_invariant,
    chain_cases,
    one_op_cases,
    quantized_graphs,
)
from lmopt.testing.integer_graphs import INTEGER_STORAGE, ONE_OP, integer_kinds
from lmopt.testing.quantized import INTEGER_KINDS
from tests.property.test_interp_default_kernels import stated

FEW = settings(
    max_examples=int(os.environ.get("LMOPT_EXAMPLES", "2")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
MORE = settings(FEW, max_examples=10 * FEW.max_examples)


def test_every_op_has_a_rule():
    assert set(RULES) == set(OPS) - {"input", "constant"}


def test_the_ops_with_another_step_are_those_of_the_table():
    assert {kind for kind, (steps, _) in stated().items() if steps} == ANOTHER_STEP


@pytest.mark.parametrize("kind", ONE_OP)
def test_one_op_stays_within_its_bound(kind: str):
    @FEW
    @given(
        st.sampled_from([s for s in INTEGER_STORAGE if kind in integer_kinds(s)]).flatmap(
            lambda s: one_op_cases(kind, s, extreme=True)
        )
    )
    def check(case: Case) -> None:
        assert_error_within_bound(real_form(case.graph), case.graph, case.inputs)
        assert_requantize_monotone(case.graph)

    check()


@MORE
@given(st.sampled_from(INTEGER_STORAGE).flatmap(chain_cases))
def test_a_chain_stays_within_its_bound(case: Case):
    assert_error_within_bound(real_form(case.graph), case.graph, case.inputs)


@MORE
@given(quantized_graphs(kinds=INTEGER_KINDS))
def test_integer_graphs_equal_the_runtime(case: QuantizedCase):
    stored = {
        node.name: case.inputs[node.name]
        if node.results[0].quant is None
        else node.results[0].quant.quantize(case.inputs[node.name], node.results[0].dtype)
        for node in case.quantized.inputs
    }
    assert_interpreter_equals_runtime(case.quantized, stored)


@MORE
@given(quantized_graphs())
def test_quantized_graphs_stay_within_their_bounds(case: QuantizedCase):
    assert_error_within_bound(case.reference, case.quantized, case.inputs)


@FEW
@given(st.sampled_from(["conv2d", "dense", "mean", "concat"]), st.data())
def test_ops_that_scale_do(kind: str, data: st.DataObject):
    case = data.draw(one_op_cases(kind, DType.I8))
    if any(getattr(node.op, "activation", "none") == "relu6" for node in case.graph.nodes):
        return
    assert_scale_invariant(case.graph, case.inputs)


def test_a_failing_example_prints_as_ir_text():
    edit = Edit("wrong")
    x = edit.input("x", (None, 3))
    edit.output("y", edit.add("half", o.Dense(1, use_bias=False), x, weights={
        "kernel": np.full((3, 1), 0.5, np.float32)
    }))  # fmt: skip
    graph = edit.done()
    edit = graph.edit()
    edit.set_weights("half", kernel=np.full((3, 1), 0.75, np.float32))
    other, inputs = edit.done(), {"x": np.ones((1, 3), np.float32)}
    from lmopt.testing import assert_same_values

    assert_same_values(graph, graph, inputs)
    with pytest.raises(AssertionError, match=r"(?s)'y' changed by 0.5 .*%half = dense\(%x\)"):
        assert_same_values(graph, other, inputs)
