"""From a graph to the kernels an engine launches, and who runs each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.types import DType, TensorType
from lmopt.target.profile import DEFAULT_FUSION, Fusion, Target

KernelClass = Literal["pointwise", "square", "window", "depthwise", "dense", "memory"]
"""What limits a kernel: 1x1 convolutions, 3x3 of stride 1 (which some runtimes multiply in fewer
steps), all other windows, depthwise, fully connected; the rest only moves and maps elements."""
CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)

FREE = frozenset({"input", "constant", "reshape"})
"""Ops that move no data at run time."""
ARITHMETIC = frozenset({"conv2d", "conv2d_transpose", "depthwise_conv2d", "dense"})
COMPOSITE: Mapping[str, tuple[int, int]] = {
    "heatmap_decode": (53, 6),
    "landmark_heatmap": (11, 8),
    "similarity_fit": (18, 18),
    "invert_transform": (12, 12),
    "transform_landmarks": (7, 7),
    "warp": (37, 12),
}
"""Operators that codegen writes for an op, and how often its tensors pass through memory (a guess:
most of the operators work on less than the whole)."""

_LEFT_IN_EIGHT_BITS = frozenset(
    ("avg_pool2d", "hard_swish", "maximum", "minimum", "prelu", "relu", "relu6", "resize_nearest")
)
LEFT_BY_XNNPACK: Mapping[str, frozenset[str]] = {
    "f32": frozenset({"resize_nearest"}),
    **dict.fromkeys(("i8", "u8"), _LEFT_IN_EIGHT_BITS),
}
"""Ops by storage that TensorFlow Lite's XNNPACK delegate leaves to the runtime's own kernels.

Source: LiteRT 2.3.0, operators that its interpreter still lists beside the delegate's in networks
    of two 1x1 convolutions with the op between them.
"""


@dataclass(frozen=True)
class Kernel:
    """One launch: a node with what the engine fuses into it.

    Attributes:
        node: Name of the node that does the work.
        work: What limits it.
        storage: Element type it computes in.
        macs: Multiply-accumulates.
        moved_bytes: Activations read and written.
        weight_bytes: Weights read.
        launches: Kernels that the runtime starts for it.
        refused: Why the target's engine does not run it; empty where it does.
        fused: Nodes that run within it.
        kind: Of the node's op.
        operand, result: Shapes of the first operand and the result, without the batch.
        window: Height and width of what a convolution looks at; (1, 1) of all else.
        groups: Of a convolution's channels.
        resumes: Whether a CPU changes for it from XNNPACK to the runtime's own kernels, or back.
    """

    node: str
    work: KernelClass
    storage: str
    macs: int
    moved_bytes: int
    weight_bytes: int = 0
    launches: int = 1
    refused: str = ""
    fused: tuple[str, ...] = ()
    kind: str = ""
    operand: tuple[int, ...] = ()
    result: tuple[int, ...] = ()
    window: tuple[int, int] = (1, 1)
    groups: int = 1
    resumes: bool = False

    @property
    def delegated(self) -> bool:
        """Returns whether the target's engine runs it, else its fallback."""
        return not self.refused

    @property
    def nbytes(self) -> int:
        """Returns the bytes read and written: operands, weights and result."""
        return self.moved_bytes + self.weight_bytes


def kernels(graph: Graph, target: Target) -> tuple[Kernel, ...]:
    """Returns the kernels of a graph on a target, in execution order."""
    hosts = _hosts(graph, target.fusion or DEFAULT_FUSION)
    guests: dict[str, list[str]] = {}
    for guest in hosts:
        guests.setdefault(_root(hosts, guest), []).append(guest)
    found = [
        _kernel(graph, node, guests.get(node.name, ()), target)
        for node in graph.nodes
        if node.op.kind not in FREE and node.name not in hosts
    ]
    left = [kernel.kind in LEFT_BY_XNNPACK.get(kernel.storage, ()) for kernel in found]
    changes = [before != after for before, after in pairwise(left)]
    return (
        *found[:1],
        *(replace(kernel, resumes=k) for kernel, k in zip(found[1:], changes, strict=True)),
    )


def islands(found: Sequence[Kernel]) -> int:
    """Returns how often execution changes between the engine and its fallback."""
    return sum(a.delegated != b.delegated for a, b in pairwise(found))


def work_of(node: Node) -> KernelClass:
    """Returns what limits a node's kernel."""
    match node.op.kind:
        case "conv2d":
            window, stride = node.op.kernel, node.op.stride  # type: ignore[attr-defined]
            if window == (1, 1):
                return "pointwise"
            plain = window == (3, 3) and stride == (1, 1) and node.op.groups == 1  # type: ignore[attr-defined]
            return "square" if plain else "window"
        case "conv2d_transpose":
            return "window"
        case "depthwise_conv2d":
            return "depthwise"
        case "dense":
            return "dense"
        case _:
            return "memory"


def _hosts(graph: Graph, fusion: Fusion) -> dict[str, str]:
    """Returns for every fused node the node whose kernel it runs in (maybe fused itself)."""
    hosts: dict[str, str] = {}
    for node in graph.nodes:
        kind = node.op.kind
        is_integer = node.results[0].quant is not None
        if kind == "pad" and fusion.pads:
            uses = graph.users(node.value)
            if len(uses) == 1 and uses[0][0].op.kind in ("conv2d", "depthwise_conv2d"):
                hosts[node.name] = uses[0][0].name
        elif kind in fusion.activations and (fusion.integers or not is_integer):
            before = graph.producer(node.inputs[0])
            if _only_user(graph, node.inputs[0]) and (
                before.op.kind in fusion.into or before.name in hosts
            ):
                hosts[node.name] = before.name
        elif kind == "add" and fusion.sums:
            # The later of the operands adds the other to what it holds already.
            for value in reversed(node.inputs):
                if graph.producer(value).op.kind in ARITHMETIC and _only_user(graph, value):
                    hosts[node.name] = value.node
                    break
    return hosts


def _only_user(graph: Graph, value: Value) -> bool:
    return len(graph.users(value)) == 1 and not graph.is_output(value)


def _root(hosts: dict[str, str], name: str) -> str:
    while name in hosts:
        name = hosts[name]
    return name


def _kernel(graph: Graph, node: Node, guests: Sequence[str], target: Target) -> Kernel:
    operands = graph.input_types(node)
    result = node.results[0]
    storage = result.dtype.value if result.quant is not None else _float_storage(node, target)
    halved = storage == "f16"
    moved = sum(_bytes(tensor, halved) for tensor in (*operands, *node.results))
    for guest in guests:
        # A fused sum still reads its other operand.
        moved += sum(_bytes(t, halved) for t in graph.input_types(graph.node(guest))[1:])
    launches, passes = COMPOSITE.get(node.op.kind, (1, 1))
    return Kernel(
        node=node.name,
        work=work_of(node),
        storage=storage,
        macs=node.op.macs(operands),
        moved_bytes=moved * passes,
        weight_bytes=sum(_bytes(weight.type, halved) for weight in node.weights.values()),
        launches=launches,
        refused=_refusal(node, storage, target),
        fused=tuple(guests),
        kind=node.op.kind,
        operand=_sides(operands[0]) if operands else (),
        result=_sides(node.results[0]),
        window=getattr(node.op, "kernel", (1, 1)),
        groups=getattr(node.op, "groups", 1),
    )


def _sides(tensor: TensorType) -> tuple[int, ...]:
    return tuple(side or 1 for side in tensor.shape[1:])


def _bytes(tensor: TensorType, halved: bool) -> int:
    """Returns what a kernel moves of a tensor: floats in the width that it computes in."""
    return 2 * tensor.elements if halved and tensor.dtype.is_float else tensor.nbytes


def _refusal(node: Node, storage: str, target: Target) -> str:
    if node.op.kind not in target.supported_ops:
        return f"the engine has no {node.op.kind}"
    if not target.computes(storage):
        return f"the engine does not compute in {storage}"
    return ""


def _float_storage(node: Node, target: Target) -> str:
    """Returns what the engine computes a float node in.

    Delegates of mobile GPUs halve everything when they load it, CUDA computes in the precision of
    the file, and CPUs unpack half precision; an engine without float32 has only the half.
    """
    match target.engine:
        case "gpu" if "f16" in target.storage:
            return "f16"
        case "cuda" if any(w.type.dtype is DType.F16 for w in node.weights.values()):
            return "f16"
        case _:
            return "f32" if "f32" in target.storage else "f16"
