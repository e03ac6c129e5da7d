"""Times many models by turns: each is loaded, timed for a moment and put away again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmopt.errors import BackendError
from lmopt.latency import host
from lmopt.runtime.runner import Runner

VISIT_MS = 30.0
MOST_RUNS = 200
WARMUP = 2


@dataclass(frozen=True)
class VisitTime:
    """What one visit told.

    Attributes:
        name: Of the model.
        threads: CPU threads.
        us: Median time of an inference; None where the runtime did not take the model.
        failure: Why not.
    """

    name: str
    threads: int
    us: float | None
    failure: str = ""


def visits(models: Mapping[str, Path], order: Iterable[tuple[str, int]]) -> Iterator[VisitTime]:
    """Yields what every visit told; the machine is held exclusively meanwhile.

    Far more models can be compared so than stay loaded at one time. What a model that the runtime
    refuses or crashes on leaves behind is a worker less, which is started anew.

    Args:
        models: Files by name.
        order: Names and thread counts, as they are to be visited.

    Raises:
        InputError: A file cannot be read.
    """
    with host.exclusive("timing many models"), ExitStack() as stack:
        runners: dict[int, Runner] = {}
        for name, threads in order:
            try:
                if threads not in runners:
                    made = Runner(models[name], threads=threads)
                    runners[threads] = stack.enter_context(made)
                else:
                    runners[threads].load(models[name])
                yield VisitTime(name, threads, _us(runners[threads]))
            except BackendError as error:
                if threads in runners:
                    runners.pop(threads).close()
                yield VisitTime(name, threads, None, str(error))


def _us(runner: Runner) -> float:
    typical_ms = float(np.median(runner.time(warmup=WARMUP, runs=3)))
    runs = int(np.clip(VISIT_MS / max(typical_ms, 1e-6), 3, MOST_RUNS))
    return float(np.median(runner.time(warmup=0, runs=runs))) * 1e3
