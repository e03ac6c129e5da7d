"""How far the kernels that run by default are from exact arithmetic: ROUNDING.md, measured."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from lmopt.ir.interp import DEFAULT_STEPS, run
from lmopt.ir.interp.integer import INTEGER
from lmopt.testing import run_on_runtime
from lmopt.testing.integer_graphs import INTEGER_STORAGE, ONE_OP, Case, integer_kinds, one_op_cases

# stored as it is: there is no kernel
UNTABLED = {"constant"}


def stated() -> dict[str, tuple[int, float]]:
    """Returns the table's largest difference and share, by op kind."""
    text = files("lmopt.ir.interp").joinpath("ROUNDING.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row] for row in rows[1:]]
    return {row[0]: (int(row[4]), float(row[5].removesuffix("%")) / 100) for row in cells}


def test_the_table_states_every_integer_op() -> None:
    assert set(stated()) == set(INTEGER) - UNTABLED == set(ONE_OP)
    for kind, (steps, _) in stated().items():
        assert DEFAULT_STEPS[kind] == steps


@pytest.mark.parametrize("kind", ONE_OP)
def test_default_kernels_stay_within_the_table(kind: str) -> None:
    steps, share = stated()[kind]
    differing = elements = 0

    def check(case: Case) -> None:
        nonlocal differing, elements
        got = run(case.graph, case.inputs)["y"]
        want = run_on_runtime(case.graph, case.inputs, "default")["y"]
        difference = np.abs(got.astype(np.int64) - want.astype(np.int64))
        assert difference.max() <= steps
        differing += int(np.count_nonzero(difference))
        elements += difference.size

    for storage in [storage for storage in INTEGER_STORAGE if kind in integer_kinds(storage)]:
        # the same graphs every time: a share is a statement about a sample
        settings(
            max_examples=11,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        )(given(one_op_cases(kind, storage))(check))()
    # few graphs, whose grids weigh much: five times the share of many, and one element
    assert differing <= 5 * share * elements + (share > 0)
