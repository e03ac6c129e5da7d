"""Random weights to start a training from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node
from lmopt.ir.types import Shape

Draw = Callable[[Shape, np.random.Generator], NDArray[np.float32]]


def initialize(graph: Graph, seed: int) -> Graph:
    """Returns `graph` with values drawn for every weight that has none.

    Kernels of convolutions are He normal, of dense layers Glorot uniform, batch norms the identity,
    biases 0. A node's values depend on the seed and its name alone.

    Raises:
        GraphError: An op has no initial values, as a constant has not.

    Source: He et al. 2015 (arXiv:1502.01852) eq. 10; Glorot and Bengio 2010 eq. 16.
    """
    edit = Edit.of(graph)
    for node in graph.nodes:
        drawn = {
            k: _draw(node, k, w.type.shape, seed)
            for k, w in node.weights.items()
            if w.array is None
        }
        if drawn:
            edit.set_weights(node.name, **drawn)
    return edit.done()


def _draw(node: Node, key: str, shape: Shape, seed: int) -> NDArray[np.float32]:
    draw = _DRAWS.get((node.op.kind, key)) or _CONSTANTS.get(key)
    if draw is None:
        raise GraphError(f"no initial values for '{key}' of {node.op.kind}", where=f"%{node.name}")
    state = hashlib.blake2b(f"{seed}/{node.name}/{key}".encode(), digest_size=16).digest()
    return draw(shape, np.random.default_rng(int.from_bytes(state, "little")))


def _he_normal(fan_in: int) -> Callable[[Shape, np.random.Generator], NDArray[np.float32]]:
    def draw(shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
        values = rng.standard_normal(_known(shape), np.float32)
        values *= np.float32(math.sqrt(2 / fan_in))
        return values

    return draw


def _conv(shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    return _he_normal(math.prod(_known(shape)[:3]))(shape, rng)


def _depthwise(shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    return _he_normal(math.prod(_known(shape)[:2]))(shape, rng)


def _dense(shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    limit = np.float32(math.sqrt(6 / sum(_known(shape))))
    values = rng.random(_known(shape), np.float32)
    values *= 2 * limit
    values -= limit
    return values


def _full(value: float) -> Draw:
    return lambda shape, rng: np.full(_known(shape), value, np.float32)


def _known(shape: Shape) -> tuple[int, ...]:
    return tuple(d for d in shape if d is not None)


_DRAWS: Mapping[tuple[str, str], Draw] = {
    ("conv2d", "kernel"): _conv,
    ("conv2d_transpose", "kernel"): _conv,
    ("depthwise_conv2d", "kernel"): _depthwise,
    ("dense", "kernel"): _dense,
}
_CONSTANTS: Mapping[str, Draw] = {
    "bias": _full(0.0),
    "gamma": _full(1.0),
    "beta": _full(0.0),
    "mean": _full(0.0),
    "variance": _full(1.0),
    "alpha": _full(0.25),
}
