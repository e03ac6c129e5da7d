"""What a user writes to test a model of their own, and what the assertions say when it is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

import lmopt.testing
from lmopt.codegen.tflite import emit
from lmopt.errors import UsageError
from lmopt.ir import DType
from lmopt.quant.bounds import InputRange
from lmopt.testing import (
    assert_error_within_bound,
    assert_interpreter_equals_runtime,
    assert_requantize_monotone,
    assert_scale_invariant,
    inputs,
    put_on_grids,
    quantized_graphs,
    run_on_runtime,
)
from tests.support import op_zoo

FLOAT = op_zoo.detector()
BATCH = op_zoo.inputs(FLOAT, 8, seed=1)
SMALL = put_on_grids(FLOAT, BATCH, DType.I8, edge="uint8")


def test_the_documented_lines_test_files(tmp_path: Path):
    (tmp_path / "mine.tflite").write_bytes(emit(FLOAT))
    (tmp_path / "small.tflite").write_bytes(emit(SMALL))
    lines = textwrap.dedent(lmopt.testing.__doc__.split("::\n", 1)[1])
    script = lines.replace("max_examples=20", "max_examples=2") + "\ntest_small()\nprint('held')\n"
    (tmp_path / "test_small.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "test_small.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "held\n", done.stderr


@settings(max_examples=3, deadline=None)
@given(inputs(SMALL))
def test_inputs_cover_the_grid_in_the_inputs_type(x):
    assert {name: array.dtype for name, array in x.items()} == {"image": np.uint8}
    assert x["image"].shape == (2, 16, 16, 3)
    assert_interpreter_equals_runtime(SMALL, x)
    assert_error_within_bound(FLOAT, SMALL, x)


def test_inputs_outside_the_claimed_range_are_beyond_the_bound():
    claimed = {"image": InputRange(0, 1e-3, 0.0)}
    with pytest.raises(AssertionError, match=r"(?s)beyond its bound\ngraph small\n%image = input"):
        assert_error_within_bound(FLOAT, SMALL, {"image": BATCH["image"]}, claimed)


def test_a_difference_from_the_runtime_prints_the_graph(monkeypatch: pytest.MonkeyPatch):
    def off(graph, x):
        return {name: array ^ 1 for name, array in run_on_runtime(graph, x).items()}

    monkeypatch.setattr("lmopt.testing.assertions.run_on_runtime", off)
    x = {"image": np.zeros((1, 16, 16, 3), np.uint8)}
    with pytest.raises(AssertionError, match=r"(?s)10 of 10 elements, by 1 at most\ngraph small\n"):
        assert_interpreter_equals_runtime(SMALL, x)


def test_a_drawn_case_shrinks_and_prints_as_ir():
    case = find(
        quantized_graphs(max_nodes=3, kinds=("relu", "dense")),
        lambda case: any(node.op.kind == "relu" for node in case.quantized.nodes),
        settings=settings(
            database=None, deadline=None, max_examples=500, phases=[Phase.generate, Phase.shrink]
        ),
    )
    kinds = [node.op.kind for node in case.quantized.nodes]
    assert kinds.count("relu") == 1 and len(kinds) <= 6
    assert "= relu(" in repr(case) and repr(case).startswith("\ngraph drawn\n")


def test_scaling_and_order_hold_for_a_detector():
    assert_requantize_monotone(SMALL)
    x = op_zoo.inputs(SMALL, 1, seed=0)
    with pytest.raises(UsageError, match=r"conv2d of .* is not invariant"):
        assert_scale_invariant(SMALL, x)
