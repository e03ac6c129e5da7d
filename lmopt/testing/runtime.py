"""Graphs on the runtime, thousands of them: one worker process for each set of kernels."""

from __future__ import annotations

import atexit
from typing import Any

from numpy.typing import NDArray

from lmopt.codegen.tflite import emit
from lmopt.errors import BackendError
from lmopt.ir.graph import Graph
from lmopt.runtime.runner import Kernels, Runner
from lmopt.testing.case import Arrays

_RUNNERS: dict[Kernels, Runner] = {}


def run_on_runtime(
    graph: Graph, inputs: Arrays, kernels: Kernels = "reference"
) -> dict[str, NDArray[Any]]:
    """Returns what LiteRT makes of the emitted graph, item by item, by output name.

    Raises:
        BackendError: The runtime refuses the file or crashes on it; the next call gets a new
            worker.
    """
    data = emit(graph)
    try:
        if kernels in _RUNNERS:
            _RUNNERS[kernels].load(data)
        else:
            _RUNNERS[kernels] = Runner(data, kernels=kernels)
        return _RUNNERS[kernels].run(dict(inputs))
    except BackendError:
        if kernels in _RUNNERS:
            _RUNNERS.pop(kernels).close()
        raise


def close_runtimes() -> None:
    """Ends the workers; the next run starts new ones."""
    while _RUNNERS:
        _RUNNERS.popitem()[1].close()


atexit.register(close_runtimes)
