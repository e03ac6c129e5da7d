"""Random graphs through integer-interpreter-equals-runtime and through their error bounds.

    python -m benchmarks.bench_properties --graphs 2000

Kinds of graphs, in equal parts: one integer op on extreme grids, chains of integer ops from float
to float, and float graphs of several inputs and branches put on grids. As many of the last kind
again, with nodes left in float32, go through their bounds only: float32 sums have no order to
compare. Writes results/properties.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lmopt.files import write_atomically
from lmopt.ir.graph import Graph
from lmopt.quant.real import real_form
from lmopt.testing import (
    Case,
    QuantizedCase,
    assert_error_within_bound,
    assert_interpreter_equals_runtime,
    chain_cases,
    one_op_cases,
    quantized_graphs,
)
from lmopt.testing.integer_graphs import INTEGER_STORAGE, integer_kinds
from lmopt.testing.quantized import INTEGER_KINDS

RESULTS = Path(__file__).parent / "results" / "properties.json"
STORAGE = st.sampled_from(INTEGER_STORAGE)
FORMS: dict[str, st.SearchStrategy[Case] | st.SearchStrategy[QuantizedCase]] = {
    "one op": STORAGE.flatmap(
        lambda storage: st.sampled_from(sorted(integer_kinds(storage))).flatmap(
            lambda kind: one_op_cases(kind, storage, extreme=True)
        )
    ),
    "chain": STORAGE.flatmap(chain_cases),
    "quantized graph": quantized_graphs(kinds=INTEGER_KINDS),
}
MIXED = quantized_graphs()


class Tally:
    """What was run and what was found.

    Attributes:
        graphs: How many were checked, by what was checked.
        ops: How often each op kind occurred in them.
        differing, beyond: Messages with the graph as IR text.
    """

    def __init__(self) -> None:
        self.graphs: Counter[str] = Counter()
        self.ops: Counter[str] = Counter()
        self.differing: list[str] = []
        self.beyond: list[str] = []

    def check(self, case: Case | QuantizedCase) -> None:
        if isinstance(case, Case):
            graph, reference, stored = case.graph, real_form(case.graph), dict(case.inputs)
        else:
            graph, reference = case.quantized, case.reference
            stored = dict(case.inputs)
            for node in graph.inputs:
                grid = node.results[0].quant
                if grid is not None:
                    stored[node.name] = grid.quantize(stored[node.name], node.results[0].dtype)
        self.graphs["runtime"] += 1
        try:
            assert_interpreter_equals_runtime(graph, stored)
        except AssertionError as error:
            self.differing.append(str(error))
        self.check_bound(reference, graph, case)

    def check_mixed(self, case: QuantizedCase) -> None:
        self.check_bound(case.reference, case.quantized, case)

    def check_bound(self, reference: Graph, graph: Graph, case: Case | QuantizedCase) -> None:
        self.graphs["bound"] += 1
        self.ops.update(node.op.kind for node in graph.nodes)
        try:
            assert_error_within_bound(reference, graph, dict(case.inputs))
        except AssertionError as error:
            self.beyond.append(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, tally = time.perf_counter(), Tally()
    limits = settings(
        max_examples=-(-options.graphs // len(FORMS)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    runs = [(strategy, tally.check) for strategy in FORMS.values()]
    for strategy, check in [*runs, (MIXED, tally.check_mixed)]:
        seed(options.seed)(limits(given(strategy)(check)))()
        print(dict(tally.graphs), flush=True)
    document = {
        "compared_with_runtime": tally.graphs["runtime"],
        "bounds_checked": tally.graphs["bound"],
        "interpreter_differs_from_runtime": len(tally.differing),
        "bound_exceeded": len(tally.beyond),
        "nodes_by_op": dict(sorted(tally.ops.items())),
        "seed": options.seed,
        "numpy": np.__version__,
        "wall_s": round(time.perf_counter() - started, 1),
        "examples": [*tally.differing[:5], *tally.beyond[:5]],
    }
    write_atomically(RESULTS, json.dumps(document, indent=2).encode() + b"\n")
    print(json.dumps({k: v for k, v in document.items() if k != "nodes_by_op"}, indent=2))


if __name__ == "__main__":
    main()
