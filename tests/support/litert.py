"""LiteRT in this process, for tests that run thousands of tiny legal graphs.

The program itself never does this: it runs files in a worker process (`lmopt.runtime`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.codegen.tflite import emit
from lmopt.ir import Graph


def run_litert(
    graph: Graph, inputs: Mapping[str, NDArray[Any]], kernels: Literal["reference", "default"]
) -> dict[str, NDArray[Any]]:
    """Returns what LiteRT makes of the emitted file, item by item, by output name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolvers = {"reference": OpResolverType.BUILTIN_REF, "default": OpResolverType.AUTO}
    interpreter = Interpreter(
        model_content=emit(graph),
        num_threads=1,
        experimental_op_resolver_type=resolvers[kernels],
    )
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    items = [
        runner(**{name: array[k : k + 1] for name, array in inputs.items()})
        for k in range(len(next(iter(inputs.values()))))
    ]
    return {name: np.concatenate([item[name] for item in items]) for name in items[0]}
