"""The process that writes SavedModels: a graph, a folder and feeds on stdin, answers on stdout."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import LmoptError
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import BatchNorm
from lmopt.training.backend import tf
from lmopt.training.lower import LOWERINGS
from lmopt.training.saved_model import FORMS, SIGNATURE

BATCH = 8


def main() -> None:
    """Writes what stdin asks for and answers with what the written models say."""
    # Whatever TensorFlow prints must not get into the answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    graph, folder, feeds = pickle.load(sys.stdin.buffer)
    try:
        answer: object = {form: _written(graph, folder / form, form, feeds) for form in FORMS}
    except LmoptError as error:
        answer = error
    with answers:
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)


def _written(
    graph: Graph, folder: Path, form: str, feeds: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    module = Network(graph, tf.as_dtype(form))
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.function})
    answer = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    (spec,) = answer.structured_input_signature[1]  # TensorFlow may have changed the name
    (feed,) = feeds.values()
    parts = [
        answer(**{spec: tf.constant(feed[start : start + BATCH])})
        for start in range(0, len(feed), BATCH)
    ]
    return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}


class Network(tf.Module):  # type: ignore[misc]
    """A graph with its weights in one float type, computed in it between float32 ends.

    Ops on coordinates and batch norms stay in float32: their small differences vanish in float16.
    """

    def __init__(self, graph: Graph, dtype: Any) -> None:
        super().__init__()
        self.graph = graph
        self.dtype = dtype
        self.parameters = {
            node.name: {
                key: tf.Variable(tf.cast(weight.real(), self._dtype_of(node)), trainable=False)
                for key, weight in node.weights.items()
            }
            for node in graph.nodes
        }
        specs = [
            tf.TensorSpec(node.results[0].shape, tf.float32, name=node.name)
            for node in graph.inputs
        ]
        self.function = tf.function(self.run, input_signature=specs)

    def _dtype_of(self, node: Node) -> Any:
        precise = node.op.float_only or isinstance(node.op, BatchNorm)
        return tf.float32 if precise else self.dtype

    def run(self, *feeds: Any) -> dict[str, Any]:
        """Returns the outputs in float32, by name, for a batch of every input."""
        given = dict(zip((node.name for node in self.graph.inputs), feeds, strict=True))
        values: dict[str, Any] = {}
        for node in self.graph.nodes:
            operands = [values[value.node] for value in node.inputs] or [given.get(node.name)]
            dtype = self._dtype_of(node)
            cast = [x if x is None else tf.cast(x, dtype) for x in operands]
            weights = self.parameters[node.name]
            values[node.name] = LOWERINGS[node.op.kind](node, cast, weights, False)
        return {name: tf.cast(values[value.node], tf.float32) for name, value in self.graph.outputs}


if __name__ == "__main__":
    main()
