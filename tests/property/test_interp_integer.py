"""The integer interpreter against the runtime, on random graphs and identical integers.

LMOPT_EXAMPLES sets the number of graphs per op and storage type.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmopt.ir import DType
from lmopt.ir.interp import run
from tests.support.integer_graphs import INTEGER_STORAGE, ONE_OP, Case, chain_cases, one_op_cases
from tests.support.litert import run_litert

EXAMPLES = int(os.environ.get("LMOPT_EXAMPLES", "15"))
CHECKS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def assert_bit_exact(case: Case) -> None:
    got, want = run(case.graph, case.inputs), run_litert(case.graph, case.inputs, "reference")
    assert set(got) == set(want)
    for name in want:
        assert got[name].dtype == want[name].dtype
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize("storage", INTEGER_STORAGE)
@pytest.mark.parametrize("kind", ONE_OP)
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
