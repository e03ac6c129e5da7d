"""Property-based tests of quantized detectors: strategies for hypothesis, and assertions.

Test a model of your own::

    import lmopt
    from hypothesis import given, settings
    from lmopt.testing import assert_error_within_bound, assert_interpreter_equals_runtime, inputs

    FLOAT, SMALL = lmopt.load("mine.tflite").graph, lmopt.load("small.tflite").graph

    @settings(deadline=None, max_examples=20)
    @given(inputs(SMALL))
    def test_small(x):
        assert_interpreter_equals_runtime(SMALL, x)
        assert_error_within_bound(FLOAT, SMALL, x)
"""

from __future__ import annotations

from importlib.util import find_spec

from lmopt.errors import UsageError

if find_spec("hypothesis") is None:
    raise UsageError(
        "lmopt.testing needs hypothesis, which is not installed",
        hint="pip install 'lmopt[testing]'",
    )

from lmopt.testing.assertions import (
    assert_error_within_bound,
    assert_interpreter_equals_runtime,
    assert_requantize_monotone,
    assert_same_values,
    assert_scale_invariant,
)
from lmopt.testing.case import Case, QuantizedCase
from lmopt.testing.float_graphs import graphs
from lmopt.testing.integer_graphs import chain_cases, one_op_cases
from lmopt.testing.quantized import inputs, put_on_grids, quantized_graphs
from lmopt.testing.runtime import close_runtimes, run_on_runtime

__all__ = [
    "Case",
    "QuantizedCase",
    "assert_error_within_bound",
    "assert_interpreter_equals_runtime",
    "assert_requantize_monotone",
    "assert_same_values",
    "assert_scale_invariant",
    "chain_cases",
    "close_runtimes",
    "graphs",
    "inputs",
    "one_op_cases",
    "put_on_grids",
    "quantized_graphs",
    "run_on_runtime",
]
