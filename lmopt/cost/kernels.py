"""From a graph to the kernels an engine launches, and who runs each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lmopt.ir.graph import Graph, Node
from lmopt.target.profile import Target

KernelClass = Literal["conv", "depthwise", "dense", "memory"]

FREE = frozenset({"input", "constant", "reshape"})
"""Ops that move no data at run time."""
FUSED_ACTIVATIONS = frozenset({"relu", "relu6"})
_CLASSES: dict[str, KernelClass] = {
    "conv2d": "conv",
    "conv2d_transpose": "conv",
    "depthwise_conv2d": "depthwise",
    "dense": "dense",
}


@dataclass(frozen=True)
class Kernel:
    """One launch: a node with the activation that is fused into it.

    Attributes:
        node: Name of the node that does the work.
        work: What limits it.
        storage: Element type it computes in.
        macs: Multiply-accumulates.
        nbytes: Bytes read and written: operands, weights and result.
        delegated: Whether the target's engine runs it, else its fallback.
    """

    node: str
    work: KernelClass
    storage: str
    macs: int
    nbytes: int
    delegated: bool


def kernels(graph: Graph, target: Target) -> tuple[Kernel, ...]:
    """Returns the kernels of a graph on a target, in execution order."""
    return tuple(
        _kernel(graph, node, target)
        for node in graph.nodes
        if node.op.kind not in FREE and not _is_fused(graph, node)
    )


def islands(found: tuple[Kernel, ...]) -> int:
    """Returns how often execution changes between the engine and its fallback."""
    return sum(a.delegated != b.delegated for a, b in pairwise(found))


def _is_fused(graph: Graph, node: Node) -> bool:
    if node.op.kind not in FUSED_ACTIVATIONS:
        return False
    before = graph.producer(node.inputs[0])
    return before.op.kind in _CLASSES and len(graph.users(node.inputs[0])) == 1


def _kernel(graph: Graph, node: Node, target: Target) -> Kernel:
    operands = graph.input_types(node)
    result = node.results[0]
    storage = result.dtype.value if result.quant is not None else _float_storage(target)
    moved = sum(t.nbytes for t in operands) + sum(t.nbytes for t in node.results)
    moved += sum(weight.type.nbytes for weight in node.weights.values())
    return Kernel(
        node=node.name,
        work=_CLASSES.get(node.op.kind, "memory"),
        storage=storage,
        macs=node.op.macs(operands),
        nbytes=moved,
        delegated=node.op.kind in target.supported_ops and storage in target.storage,
    )


def _float_storage(target: Target) -> str:
    """Returns what the engine computes float nodes in: half precision where it has nothing else."""
    return "f32" if "f32" in target.storage else "f16"
