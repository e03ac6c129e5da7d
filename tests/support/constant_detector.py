"""A detector whose answer is known: fixed landmarks, as long as it sees the colour it expects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Dense, Mean

PULLS = (0.5, 0.3, 0.1)


def constant_detector(
    contract: Contract, points: NDArray[np.float64], expects: tuple[int, int, int] | None = None
) -> Graph:
    """Returns a graph that answers `points` as the contract encodes them.

    Args:
        contract: What it eats and gives.
        points: Landmarks in unit coordinates of the crop.
        expects: Pixel of an evenly coloured crop, in the contract's order; the answer goes wrong
            for any other mean input. None answers the same whatever it sees.
    """
    answer = contract.encode(points[None])[0]
    kernel = np.zeros((contract.channels, len(answer)), np.float32)
    bias = answer
    if expects is not None:
        kernel += np.array(PULLS, np.float32)[:, None]
        bias = answer - contract.normalize(np.array(expects, np.uint8)) @ kernel
    edit = Edit("constant")
    image = edit.input("image", (None, contract.height, contract.width, contract.channels))
    weights = {"kernel": kernel, "bias": bias.astype(np.float32)}
    dense = edit.add("dense", Dense(len(answer)), edit.add("mean", Mean(), image), weights=weights)
    edit.output(contract.output, dense)
    return edit.done()
