"""The schemes of integers, and what a user wants to stay out of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import replace

from lmopt.errors import PassError, UsageError
from lmopt.ir.graph import Graph
from lmopt.ir.types import DType
from lmopt.pipeline.services import QuantScheme

INT8 = QuantScheme(DType.I8, per_channel=True)
INT16 = QuantScheme(DType.I16, per_channel=True)
UINT8 = QuantScheme(DType.U8, per_channel=False)


def check_faces(count: int) -> None:
    """Raises UsageError unless `count` is a number of calibration faces."""
    if count < 0:
        raise UsageError(f"faces is {count}, wanted 0 (as many as pay) or more")


def keeping(graph: Graph, scheme: QuantScheme, patterns: Sequence[str]) -> QuantScheme:
    """Returns a scheme under which the nodes that match a pattern stay in float32.

    Raises:
        PassError: A pattern matches no node.
    """
    real: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter((node.name for node in graph.nodes), pattern)
        if not found:
            raise PassError(
                f"keep-float: no node is called '{pattern}'",
                where=graph.name,
                hint="lmopt inspect --ir shows the names",
            )
        real.update(found)
    return replace(scheme, real=frozenset(real) - {node.name for node in graph.inputs})
