"""Starting a training from the weights of another graph that shares layers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node
from lmopt.ir.ops import BatchNorm, Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D

_Biased = Conv2D | Conv2DTranspose | DepthwiseConv2D | Dense


@dataclass(frozen=True)
class Inheritance:
    """A graph and which of its nodes hold another one's weights."""

    graph: Graph
    nodes: frozenset[str]


def inherit(graph: Graph, donor: Graph) -> Inheritance:
    """Returns `graph` with the weights of those nodes that `donor` has too: same name and shapes.

    A batch norm follows the layer before it. Where the donor's is folded into that layer, the node
    takes kernel and bias and loses its batch norm.

    Raises:
        GraphError: They share no layer.
    """
    edit, given = Edit.of(graph), {node.name: node for node in donor.nodes}
    inherited = set()
    for node in graph.nodes:
        theirs = given.get(node.name)
        if not node.weights or theirs is None or not _fits(node, theirs):
            continue
        if isinstance(node.op, BatchNorm) and node.inputs[0].node not in inherited:
            continue
        norm = _norm_behind(graph, node)
        folds = norm is not None and norm.name not in given
        if theirs.weights.keys() != node.weights.keys() and not folds:
            continue
        edit.set_weights(node.name, **theirs.weights)
        inherited.add(node.name)
        if norm is not None and folds and isinstance(node.op, _Biased):
            edit.set_op(node.name, replace(node.op, use_bias=True))
            edit.rewire(norm.value, node.value)
            edit.remove(norm.name)
    if not inherited:
        raise GraphError(
            f"'{donor.name}' has no layer of the same name and shape",
            where=graph.name,
            hint="start from a detector of the same family, such as dan2 from dan1",
        )
    return Inheritance(edit.done(), frozenset(inherited))


def _norm_behind(graph: Graph, node: Node) -> Node | None:
    """Returns the batch norm that could have been folded into a node."""
    users = graph.users(node.value)
    if (
        len(users) == 1
        and isinstance(users[0][0].op, BatchNorm)
        and not graph.is_output(node.value)
    ):
        return users[0][0]
    return None


def _fits(node: Node, theirs: Node) -> bool:
    extra = theirs.weights.keys() - node.weights.keys()
    return (
        node.op.kind == theirs.op.kind
        and node.weights.keys() <= theirs.weights.keys()
        and extra <= {"bias"}
        and all(w.type.shape == theirs.weights[k].type.shape for k, w in node.weights.items())
    )
