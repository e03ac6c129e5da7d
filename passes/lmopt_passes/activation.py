"""Activations said with other ops, node by node."""

from __future__ import annotations

import numpy as np

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import Add, Constant, LeakyRelu, Mul, PRelu


def leaky_as_prelu(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a leaky relu a prelu whose slopes are all the same: the same values."""
    assert isinstance(node.op, LeakyRelu)
    channels = graph.type(node.inputs[0]).shape[-1]
    if channels is None:
        return False
    edit.set_op(node.name, PRelu())
    edit.set_weights(node.name, alpha=np.full(channels, node.op.alpha, np.float32))
    return True


def hard_swish_as_product(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes a hard swish `relu6(x + 3) / 6 * x`: the same values."""
    scaled = edit.add(edit.fresh(f"{node.name}_scaled"), Mul(), *_gate(edit, node), loc=node.loc)
    edit.set_op(node.name, Mul())
    edit.set_inputs(node.name, scaled, node.inputs[0])
    return True


def as_hard_sigmoid(edit: Edit, graph: Graph, node: Node) -> bool:
    """Makes an activation `relu6(x + 3) / 6`.

    Source: Howard et al., "Searching for MobileNetV3", 2019, section 5.2.
    """
    gate, sixth = _gate(edit, node)
    edit.set_op(node.name, Mul())
    edit.set_inputs(node.name, gate, sixth)
    return True


def _gate(edit: Edit, node: Node) -> tuple[Value, Value]:
    """Adds `relu6(x + 3)` of a node's operand, and a sixth to multiply it with."""

    def constant(stem: str, value: float) -> Value:
        array = np.array([value], np.float32)
        name = edit.fresh(f"{node.name}_{stem}")
        return edit.add(name, Constant((1,)), weights={"value": array}, loc=node.loc)

    three = constant("three", 3.0)
    gate = edit.add(
        edit.fresh(f"{node.name}_gate"), Add("relu6"), node.inputs[0], three, loc=node.loc
    )
    return gate, constant("sixth", 1 / 6)
