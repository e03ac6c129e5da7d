"""The integer interpreter against the runtime, on random graphs and identical integers.

LMOPT_EXAMPLES sets the number of graphs per op and storage type.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmopt.ir import DType, Edit, Loc, Node, Quant, TensorType
from lmopt.ir import ops as o
from lmopt.ir.interp import run
from lmopt.testing import run_on_runtime
from lmopt.testing.integer_graphs import (
    INTEGER_STORAGE,
    ONE_OP,
    Case,
    chain_cases,
    integer_kinds,
    one_op_cases,
)

EXAMPLES = int(os.environ.get("LMOPT_EXAMPLES", "10"))
CHECKS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def assert_bit_exact(case: Case) -> None:
    got, want = run(case.graph, case.inputs), run_on_runtime(case.graph, case.inputs, "reference")
    assert set(got) == set(want)
    for name in want:
        assert got[name].dtype == want[name].dtype
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize(
    ("kind", "storage"), [(k, s) for k in ONE_OP for s in INTEGER_STORAGE if k in integer_kinds(s)]
)
def test_one_op_equals_the_reference_kernel(kind: str, storage: DType) -> None:
    @CHECKS
    @given(one_op_cases(kind, storage, extreme=True))
    def check(case: Case) -> None:
        assert_bit_exact(case)

    check()


@settings(CHECKS, max_examples=4 * EXAMPLES)
@given(st.sampled_from(INTEGER_STORAGE).flatmap(chain_cases))
def test_chain_from_float_to_float_equals_the_reference_kernels(case: Case) -> None:
    assert_bit_exact(case)


def test_sigmoid_of_a_sigmoid_has_a_near_tie() -> None:
    """At 1/128 the sigmoid is a hair below 128.5 / 256: only float32 step by step gets it right."""
    edit = Edit("tie")
    grid = Quant.per_tensor(1 / 256, -128)
    type = TensorType(DType.I8, (None, 256), grid)
    x = edit.put(Node("x", o.Input(), (), (type,), loc=Loc("x")))
    edit.output("y", edit.add("s", o.Sigmoid(), x, type=type))
    inputs = {"x": np.arange(-128, 128, dtype=np.int8)[None]}
    assert_bit_exact(Case(edit.done(), inputs))
    assert run(edit.done(), inputs)["y"][0, 2] == 0


@pytest.mark.parametrize("op", [o.Sigmoid(), o.Tanh()], ids=lambda op: op.kind)
@pytest.mark.parametrize("scale", [2**-12, 2**-11 * 0.9995, 2**-13, 1e-7, 2.4e-4, 5.3])
def test_sixteen_bit_functions_of_every_value(op: o.Sigmoid | o.Tanh, scale: float) -> None:
    """Scales near 2**-12 and 2**-11 count as powers of two; 5.3 is the last before an overflow."""
    values = np.arange(-(2**15), 2**15).astype(np.int16)[None]
    type = TensorType(DType.I16, (None, values.size), Quant.per_tensor(float(np.float32(scale)), 0))
    edit = Edit("all")
    x = edit.put(Node("x", o.Input(), (), (type,), loc=Loc("x")))
    result = TensorType(DType.I16, type.shape, Quant.per_tensor(1 / 32768, 0))
    edit.output("y", edit.add("f", op, x, type=result))
    assert_bit_exact(Case(edit.done(), {"x": values}))
