"""Which channels of a graph hang together, and slicing them away everywhere at once.

Every value carries channels along its last axis. A channel made by a kernel lives on through
activations, pools and depthwise convolutions; a sum ties the channels of its operands together, a
concat lines them up, a flatten repeats them once per pixel. Channels tied to each other can only
be removed together: they form one entry of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.ops import (
    Concat,
    Constant,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Op,
    Reshape,
    Slice,
    SpaceToDepth,
    Sum,
    Transpose,
)
from lmopt.ir.types import TensorType, Weight

Ids = NDArray[np.int64]
Side = Literal["in", "out"]

CHANNEL_AXES: Mapping[str, Mapping[str, tuple[tuple[int, Side], ...]]] = {
    "conv2d": {"kernel": ((2, "in"), (3, "out")), "bias": ((0, "out"),)},
    "conv2d_transpose": {"kernel": ((2, "in"), (3, "out")), "bias": ((0, "out"),)},
    "depthwise_conv2d": {"kernel": ((2, "in"),), "bias": ((0, "out"),)},
    "dense": {"kernel": ((0, "in"), (1, "out")), "bias": ((0, "out"),)},
    "batch_norm": {name: ((0, "out"),) for name in ("gamma", "beta", "mean", "variance")},
    "prelu": {"alpha": ((0, "out"),)},
    "constant": {"value": ((-1, "out"),)},
}
"""For each weight of an op kind, the axes that run over operand or result channels."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that the same nodes make: any subset of them can be removed from all at once.

    Attributes:
        id: Name of the first node that makes them; `name.1`, ... when it makes several groups.
        size: Number of channels.
        removable: Whether they may go; inputs, outputs and grouped convolutions pin theirs.
        sources: Names of the nodes whose kernels make them, in topological order.
        channels: Their numbers in the `ChannelMap`.
    """

    id: str
    size: int
    removable: bool
    sources: tuple[str, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class ChannelMap:
    """The channels of a graph.

    Attributes:
        groups: All groups, in topological order of their first source.
        count: Number of channels.
        of: For each value the channel number of every position of its last axis.
    """

    groups: tuple[ChannelGroup, ...]
    count: int
    of: Mapping[Value, Ids]

    def group(self, id: str) -> ChannelGroup:
        """Returns a group by id.

        Raises:
            GraphError: There is none.
        """
        for group in self.groups:
            if group.id == id:
                return group
        raise GraphError(f"no channel group '{id}'; there are {[g.id for g in self.groups]}")


def channel_groups(graph: Graph) -> tuple[ChannelGroup, ...]:
    """Returns the channel groups of a graph, in topological order of their first source."""
    return map_channels(graph).groups


def map_channels(graph: Graph) -> ChannelMap:
    """Returns the channels of every value and their groups."""
    ties = Ties(graph)
    ties.follow(TRANSFER)
    return ties.resolve()


def slice_channels(
    graph: Graph, keep: Mapping[str, Sequence[int]], channels: ChannelMap | None = None
) -> Graph:
    """Returns `graph` with only the kept channels of some groups, everywhere they run.

    Kernels, biases, batch norms, slopes, constants and the rows of dense kernels are sliced.
    Outputs stay equal when all removed channels were zero.

    Args:
        graph: A float graph.
        keep: Positions to keep by group id; the other groups stay whole.
        channels: The graph's channel map, where it is known already.

    Raises:
        GraphError: An unknown group, one that is pinned, a bad position, a quantized graph.
    """
    known = channels or map_channels(graph)
    alive = living(known, keep)
    edit = Edit.of(graph)
    for node in graph.nodes:
        _slice_node(edit, node, known, alive)
    return edit.done()


def living(channels: ChannelMap, keep: Mapping[str, Sequence[int]]) -> NDArray[np.bool_]:
    """Returns for each channel number whether it stays; see `slice_channels`."""
    alive = np.ones(channels.count, bool)
    for id, positions in keep.items():
        group = channels.group(id)
        kept = sorted(set(positions))
        if len(kept) == group.size:
            continue
        if not group.removable:
            raise GraphError(f"the channels of group '{id}' cannot be removed")
        if not kept or kept[0] < 0 or kept[-1] >= group.size:
            raise GraphError(f"group '{id}' has channels 0 to {group.size - 1}, got {kept[:4]}...")
        numbers = np.array(group.channels)
        alive[numbers] = False
        alive[numbers[kept]] = True
    return alive


def _slice_node(edit: Edit, node: Node, channels: ChannelMap, alive: NDArray[np.bool_]) -> None:
    masks: dict[Side, NDArray[np.bool_]] = {"out": alive[channels.of[node.value]]}
    if node.inputs:
        masks["in"] = alive[channels.of[node.inputs[0]]]
    if all(mask.all() for mask in masks.values()):
        return
    edit.set_op(node.name, _resized(node.op, int(masks["out"].sum())))
    axes = CHANNEL_AXES.get(node.op.kind, {})
    edit.set_weights(
        node.name,
        **{k: _slice_weight(node, w, axes[k], masks) for k, w in node.weights.items()},
    )


def _slice_weight(
    node: Node,
    weight: Weight,
    axes: tuple[tuple[int, Side], ...],
    masks: Mapping[Side, NDArray[np.bool_]],
) -> Weight:
    if weight.type.quant is not None:
        raise GraphError("channels cannot be removed from quantized weights", where=f"%{node.name}")
    cuts = [(axis, masks[side]) for axis, side in axes if not masks[side].all()]
    shape = list(weight.type.shape)
    for axis, mask in cuts:
        shape[axis] = int(mask.sum())
    if weight.array is None:
        return Weight(TensorType(weight.type.dtype, tuple(shape)))
    array = weight.array
    for axis, mask in cuts:
        array = np.compress(mask, array, axis)
    return Weight.of(array)


def _resized(op: Op, channels: int) -> Op:
    if isinstance(op, Conv2D | Conv2DTranspose):
        return replace(op, filters=channels)
    if isinstance(op, Dense):
        return replace(op, units=channels)
    if isinstance(op, (Constant, Reshape)) and op.shape[-1] != -1:
        return replace(op, shape=(*op.shape[:-1], channels))
    return op


Transfer = Callable[["Ties", Node, Sequence[Ids]], Ids]
"""From the channels of an op's operands to those of its result."""


class Ties:
    """Union-find over the channels of all values.

    Attributes:
        graph: The graph.
        of: For each value followed so far the channels of its last axis, as given.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.of: dict[Value, Ids] = {}
        self._parent: list[int] = []
        self._made: list[str | None] = []
        self._pinned: list[int] = []

    def follow(self, transfer: Mapping[str, Transfer]) -> None:
        """Finds the channels of every value; those of the outputs are pinned."""
        for node in self.graph.nodes:
            operands = [self.of[value] for value in node.inputs]
            self.of[node.value] = transfer[node.op.kind](self, node, operands)
        for _, value in self.graph.outputs:
            self.pin(self.of[value])

    def fresh(self, count: int, source: str | None = None) -> Ids:
        """Returns new channels, made by the kernel of `source` if one is named."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        self._made.extend([source] * count)
        return np.arange(start, start + count)

    def pin(self, ids: Ids) -> None:
        """Forbids that channels change."""
        self._pinned.extend(np.unique(ids).tolist())

    def tie(self, left: Ids, right: Ids) -> None:
        """Makes channels one, position by position."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            roots = sorted((self._root(a), self._root(b)))
            self._parent[roots[1]] = roots[0]

    def width(self, value: Value) -> int:
        """Returns the length of a value's last axis."""
        shape = self.graph.type(value).shape
        return (shape[-1] or 1) if shape else 1

    def _root(self, atom: int) -> int:
        while self._parent[atom] != atom:
            self._parent[atom] = atom = self._parent[self._parent[atom]]
        return atom

    def numbered(self) -> tuple[Ids, NDArray[np.bool_]]:
        """Returns the number of each channel, one for tied ones, and which numbers are pinned."""
        roots = np.array([self._root(atom) for atom in range(len(self._parent))], np.int64)
        firsts, numbers = np.unique(roots, return_inverse=True)
        pinned = np.zeros(len(firsts), bool)
        pinned[numbers[self._pinned]] = True
        return numbers, pinned

    def resolve(self) -> ChannelMap:
        """Returns the channels of every value and their groups."""
        numbers, pinned = self.numbered()
        sources: list[list[str]] = [[] for _ in pinned]
        for atom, name in enumerate(self._made):
            if name is not None:
                sources[numbers[atom]].append(name)
        members: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
        for number, made in enumerate(sources):
            # A channel that one kernel makes twice has no single position there: it stays.
            free = bool(made) and len(set(made)) == len(made) and not pinned[number]
            members.setdefault((free, tuple(dict.fromkeys(made))), []).append(number)
        groups: list[ChannelGroup] = []
        taken: dict[str, int] = {}
        for (free, made_by), found in members.items():
            if not made_by:
                continue
            seen = taken[made_by[0]] = taken.get(made_by[0], -1) + 1
            id = made_by[0] if seen == 0 else f"{made_by[0]}.{seen}"
            groups.append(ChannelGroup(id, len(found), free, made_by, tuple(found)))
        of = {value: numbers[ids].astype(np.int64) for value, ids in self.of.items()}
        return ChannelMap(tuple(groups), len(pinned), of)


def opaque(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    """Returns new, pinned channels for the result of an op through which none can be followed."""
    for ids in operands:
        ties.pin(ids)
    result = ties.fresh(ties.width(node.value))
    ties.pin(result)
    return result


def _make(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    result = ties.fresh(ties.width(node.value), node.name)
    if isinstance(node.op, Conv2D) and node.op.groups > 1:
        ties.pin(operands[0])
        ties.pin(result)
    return result


def _pass(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    return operands[0]


def _constant(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    return ties.fresh(ties.width(node.value))


def _depthwise(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, DepthwiseConv2D)
    return np.repeat(operands[0], node.op.multiplier)


def _elementwise(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    left, right = operands
    if len(left) == len(right):
        ties.tie(left, right)
        return left
    wide, narrow = (left, right) if len(left) > len(right) else (right, left)
    ties.pin(narrow)  # it stands for every channel of the other operand
    return wide


def _concat(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, Concat)
    rank = ties.graph.type(node.value).rank
    if node.op.axis % rank == rank - 1:
        return np.concatenate(operands)
    for ids in operands[1:]:
        ties.tie(operands[0], ids)
    return operands[0]


def _reshape(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    shape = ties.graph.type(node.inputs[0]).shape[1:]
    if len(shape) == 0:
        return opaque(ties, node, operands)
    dims = tuple(d or 1 for d in shape)
    rows = np.broadcast_to(operands[0], dims).reshape(-1, ties.width(node.value))
    if (rows != rows[0]).any():  # pixels and channels get mixed
        return opaque(ties, node, operands)
    return np.array(rows[0])


def _slice(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, Slice)
    return _last_axis(ties, node, operands, node.op.is_whole(len(node.op.begin)))


def _transpose(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, Transpose)
    return _last_axis(ties, node, operands, node.op.order[-1] == len(node.op.order) - 1)


def _sum(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, Sum)
    rank = ties.graph.type(node.inputs[0]).rank
    return _last_axis(ties, node, operands, rank - 1 not in node.op.axes)


def _last_axis(ties: Ties, node: Node, operands: Sequence[Ids], kept: bool) -> Ids:
    return operands[0] if kept else opaque(ties, node, operands)


def _space_to_depth(ties: Ties, node: Node, operands: Sequence[Ids]) -> Ids:
    assert isinstance(node.op, SpaceToDepth)
    return np.tile(operands[0], node.op.block**2)


TRANSFER: Mapping[str, Transfer] = {
    "input": opaque,
    "constant": _constant,
    "conv2d": _make,
    "depthwise_conv2d": _depthwise,
    "dense": _make,
    "add": _elementwise,
    "sub": _elementwise,
    "mul": _elementwise,
    "concat": _concat,
    "reshape": _reshape,
    "conv2d_transpose": _make,
    "div": _elementwise,
    "maximum": _elementwise,
    "minimum": _elementwise,
    "softmax": opaque,
    "slice": _slice,
    "transpose": _transpose,
    "sum": _sum,
    "space_to_depth": _space_to_depth,
    "depth_to_space": opaque,
    **dict.fromkeys(
        (
            "heatmap_decode",
            "similarity_fit",
            "invert_transform",
            "transform_landmarks",
            "warp",
            "landmark_heatmap",
        ),
        opaque,
    ),
    **dict.fromkeys(
        (
            "batch_norm",
            "relu",
            "relu6",
            "leaky_relu",
            "prelu",
            "sigmoid",
            "tanh",
            "hard_swish",
            "max_pool2d",
            "avg_pool2d",
            "mean",
            "pad",
            "resize_bilinear",
            "resize_nearest",
            "quantize",
            "dequantize",
            "exp",
            "sqrt",
            "rsqrt",
            "square",
            "abs",
            "mirror_pad",
        ),
        _pass,
    ),
}
"""For each op kind, how channels that live or go as a whole pass it."""
