"""Vectors that eight bits cannot hold: rare faces stretch their range, and the others drown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import ValueRange
from lmopt.pipeline.services import Calibrator, QuantScheme
from lmopt.quant.assign import plan_grids
from lmopt.quant.distortion import decibels
from lmopt.quant.grid import activation_grid

LEAST_DB = 15.0
"""Least ratio of what tells an ordinary face from another to its rounding error.

Measured in int8 (AFW, HELEN, LFPW; 200 training faces): -3 for the second hidden layer of dan2,
where three faces reach to 4.3 and half of all to 0.28; 30 to 40 for every other vector of it,
pfld-0.25@300w and pfld-1.0@300w.
"""


def drowned(
    graph: Graph,
    scheme: QuantScheme,
    ranges: Mapping[Value, ValueRange],
    calibrator: Calibrator,
    *,
    faces: int,
) -> Mapping[Value, float]:
    """Returns the vectors on grids whose differences between faces are lost, and their decibels.

    The signal of a face is its mean squared difference from the median over faces, its noise the
    mean squared rounding error; the ratio is that of their medians, which rare faces do not move.

    Args:
        graph: Float.
        scheme: Storage and what stays real.
        ranges: Of the values on grids.
        calibrator: Shows the vectors.
        faces: How many faces to look at.
    """
    plan = plan_grids(graph, scheme)
    vectors = [
        value
        for value in plan.owners
        if value in ranges
        and plan.storage[value.node] is scheme.storage
        and graph.type(value).rank == 2
    ]
    if not vectors:
        return {}
    found = {}
    for value, seen in calibrator.values(graph, vectors, faces=faces).items():
        grid = activation_grid(ranges[value], scheme.storage)
        error = grid.dequantize(grid.quantize(seen, scheme.storage)) - seen
        signal = float(np.median(np.mean((seen - np.median(seen, axis=0)) ** 2, axis=1)))
        ratio = decibels(signal, float(np.median(np.mean(error**2, axis=1))))
        if signal > 0 and ratio < LEAST_DB:
            found[value] = ratio
    return found
