"""Kernels behind a change fitted, one after the other, to give of what they get what they gave."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Node, Value
from lmopt.ir.interp import compute
from lmopt.ir.interp.window import taps
from lmopt.ir.op import Op, window_size
from lmopt.ir.ops import AvgPool2D, Conv2D, Dense, DepthwiseConv2D, ResizeBilinear
from lmopt.ir.ops.convolution import Padding
from lmopt.ir.types import Weight
from lmopt.pipeline.base import PassContext, Tell
from lmopt.pipeline.services import Calibrator

PLACES = 64
"""Places of each map that a fit looks at, at most."""
MOST_ROWS = 2048
"""Rows of the largest kernel that is fitted: the work grows with their third power."""
HELD = tuple(10.0**power for power in range(-3, 3))
"""Parts of its rows' mean variance by which a kernel may be held to what it was."""
TINY = 1e-30
MOST_VALUES = 1 << 26
"""Values of answers that are kept at a time: 256 MiB."""

Array = NDArray[np.float64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class _Layer:
    """A kernel to fit.

    Attributes:
        name: Of its node.
        smaller: Makes a new pixel's wanted answer of the old ones; None where there are as many.
    """

    name: str
    smaller: Op | None


def fit_where_faces_are(
    before: Graph, after: Graph, ctx: PassContext, *, faces: int
) -> tuple[Graph, tuple[str, ...]]:
    """Returns what `fit_behind` does, or `after` as it is without calibration faces or weights."""
    calibrator = ctx.calibrator_if_any
    if calibrator is None or not after.is_initialized:
        return after, ()
    return fit_behind(before, after, calibrator, faces=faces, tell=ctx.tell)


def fit_behind(
    before: Graph,
    after: Graph,
    calibrator: Calibrator,
    *,
    faces: int,
    tell: Tell = lambda what, done, total: None,
) -> tuple[Graph, tuple[str, ...]]:
    """Returns `after` with its kernels fitted to answer like those of `before`, and which ones.

    Every kernel that meets other values is fitted by least squares on faces, in the order of the
    graph, so that each makes up for what those before it left: its answers, before the activation,
    shall be the old ones; where there are fewer now, the mean of those under the new pixel, or
    what a bilinear resize makes of them. How strongly it is held to what it was is chosen by
    generalised cross-validation.

    Args:
        before: As it was, with weights.
        after: With an op more, or less; nodes have the names of before.
        calibrator: Shows faces.
        faces: To look at, at most.
        tell: Receives how many kernels of how many are fitted.

    Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017
        (arXiv:1707.06168), section 3.2, for fitting layer by layer; Golub et al., "Generalized
        Cross-Validation", 1979.
    """
    changed = _changed(before, after)
    layers = {node.name: layer for node in changed if (layer := _layer(before, node)) is not None}
    if not layers:
        return after, ()
    edit, fitted = after.edit(), dict[str, float]()
    now = _entering(before, changed, calibrator, faces)
    rng = np.random.default_rng(0)
    last = {value: node.name for node in changed for value in node.inputs}
    for part in _parts(changed, layers, faces):
        wanted = _wanted(
            before, [layers[n.name] for n in part if n.name in layers], calibrator, faces
        )
        for node in part:
            operands = [now[value] for value in node.inputs]
            if node.name in wanted:
                node, fitted[node.name] = _fitted(node, operands[0], wanted[node.name], rng)
                tell("fitting kernels on faces", len(fitted), len(layers))
                edit.set_op(node.name, node.op)
                edit.set_weights(node.name, **node.weights)
            now[node.value] = compute(node, operands, after.input_types(node))
            for value in {v for v in node.inputs if last[v] == node.name}:
                del now[value]
    least = min(fitted, key=lambda name: fitted[name])
    notes = [
        f"{len(fitted)} kernels fitted on up to {faces} faces; they explain at least "
        f"{fitted[least]:.0%} of the variance of what they gave, %{least} the least"
    ]
    large = [f"%{n.name}" for n in changed if "kernel" in n.weights and _rows(n) > MOST_ROWS]
    if large:
        notes.append(f"too large to be fitted on faces: {', '.join(large)}")
    return edit.done(), tuple(notes)


def _changed(before: Graph, after: Graph) -> list[Node]:
    """Returns the nodes that are new, read something else, or are behind one of these, in order."""
    found: dict[str, Node] = {}
    for node in after.nodes:
        kept = node.name in before and node.inputs == before.node(node.name).inputs
        if not kept or any(value.node in found for value in node.inputs):
            found[node.name] = node
    return list(found.values())


def _layer(before: Graph, node: Node) -> _Layer | None:
    """Returns how a node is fitted; None where it has no kernel that can be."""
    if node.name not in before:
        return None
    if isinstance(node.op, Conv2D):
        fits = node.op.groups == 1
    elif isinstance(node.op, DepthwiseConv2D):
        fits = node.op.multiplier == 1
    else:
        fits = isinstance(node.op, Dense)
    if not fits or _rows(node) > MOST_ROWS:
        return None
    old, new = (_sides(each) for each in (before.node(node.name), node))
    if old == new:
        return _Layer(node.name, None)
    if len(old) != 2:
        return None
    size = tuple(-(-a // b) for a, b in zip(old, new, strict=True))
    paddings: tuple[Padding, ...] = ("same", "valid")
    for padding in paddings:
        made = tuple(window_size(a, k, k, 1, padding) for a, k in zip(old, size, strict=True))
        if made == new:
            window = (size[0], size[1])
            return _Layer(node.name, AvgPool2D(window, window, padding))
    return _Layer(node.name, ResizeBilinear((new[0], new[1])))


def _sides(node: Node) -> tuple[int, ...]:
    return tuple(side or 1 for side in node.results[0].shape[1:-1])


def _rows(node: Node) -> int:
    shape = node.weight("kernel").type.shape
    taken = shape[:2] if isinstance(node.op, DepthwiseConv2D) else shape[:-1]
    return math.prod(size or 1 for size in taken)


def _parts(nodes: Sequence[Node], layers: Mapping[str, _Layer], faces: int) -> Iterator[list[Node]]:
    """Yields nodes in order, together as long as their answers fit into memory."""
    part: list[Node] = []
    held = 0
    for node in nodes:
        size = faces * node.results[0].elements if node.name in layers else 0
        if part and held + size > MOST_VALUES:
            yield part
            part, held = [], 0
        part.append(node)
        held += size
    yield part


def _entering(
    before: Graph, changed: Sequence[Node], calibrator: Calibrator, faces: int
) -> dict[Value, Floats]:
    """Returns the values on faces that changed nodes read of the rest of the graph."""
    names = {node.name for node in changed}
    read = (value for node in changed for value in node.inputs if value.node not in names)
    return dict(calibrator.values(before, list(dict.fromkeys(read)), faces=faces))


def _wanted(
    before: Graph, layers: Sequence[_Layer], calibrator: Calibrator, faces: int
) -> dict[str, Floats]:
    """Returns what layers shall answer on faces, by node."""
    edit, places = before.edit(), dict[str, Value]()
    for layer in layers:
        node = before.node(layer.name)
        value = _sum(edit, node)
        if layer.smaller is not None:
            value = edit.add(edit.fresh(f"{node.name}_wanted"), layer.smaller, value)
        places[node.name] = value
    found = calibrator.values(edit.done(), list(places.values()), faces=faces)
    return {name: found[value] for name, value in places.items()}


def _sum(edit: Edit, node: Node) -> Value:
    """Returns what a kernel gives before its activation."""
    assert isinstance(node.op, Conv2D | DepthwiseConv2D | Dense)
    if node.op.activation == "none":
        return node.value
    op = replace(node.op, activation="none")
    return edit.add(edit.fresh(f"{node.name}_sum"), op, *node.inputs, weights=node.weights)


def _fitted(
    node: Node, operand: Floats, wanted: Floats, rng: np.random.Generator
) -> tuple[Node, float]:
    """Returns a node whose kernel and bias come nearest, and the part of variance they explain."""
    op, kernel = node.op, node.weight("kernel").real().astype(np.float64)
    assert isinstance(op, Conv2D | DepthwiseConv2D | Dense)
    x, y = _samples(node, operand, wanted, rng)
    if isinstance(op, DepthwiseConv2D):
        found, bias, explained = _solved(x, y, kernel.reshape(-1, x.shape[0]).T[:, :, None])
        found = found[:, :, 0].T
    else:
        found, bias, explained = _solved(x, y, kernel.reshape(1, -1, y.shape[2]))
    weights = {
        "kernel": Weight.of(np.ascontiguousarray(found.reshape(kernel.shape), np.float32)),
        "bias": Weight.of(bias.reshape(-1).astype(np.float32)),
    }
    return replace(node, op=replace(op, use_bias=True), weights=weights), explained


def _solved(x: Array, y: Array, start: Array) -> tuple[Array, Array, float]:
    """Returns the kernel and bias for samples, and the part of the variance they explain.

    The kernel is held to a multiple of `start`, from 0 to 1, that fits best.

    Shapes:
        x: [slices, samples, rows]; y: [slices, samples, columns]; start: [slices, rows, columns].
    """
    count = x.shape[1]
    x_mean, y_mean = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    x, y = x - x_mean, y - y_mean
    inner, cross = x.swapaxes(1, 2) @ x / count, x.swapaxes(1, 2) @ y / count
    whole = (y**2).sum(axis=(1, 2)) / count
    norm = (start * (inner @ start)).sum(axis=1, keepdims=True)
    start = start * np.clip((start * cross).sum(axis=1, keepdims=True) / (norm + TINY), 0, 1)
    # One scale for all rows: what hardly varied on these faces may well on others.
    scale = math.sqrt(float(np.diagonal(inner, axis1=1, axis2=2).mean()) + TINY)
    rest = (cross - inner @ start) / scale
    missed = whole - (start * (2 * cross - inner @ start)).sum(axis=(1, 2))
    values, turns = np.linalg.eigh(inner / scale**2)
    values, turned = np.maximum(values, 0)[:, :, None], turns.swapaxes(1, 2) @ rest

    def change(held: float) -> tuple[float, Array, float]:
        steps = turned / (values + held)
        errors = missed - (steps * (2 * turned - values * steps)).sum(axis=(1, 2))
        free = 1 - ((values / (values + held)).sum(axis=(1, 2)) + 1) / count
        return float((errors / np.maximum(free, 1e-3) ** 2).sum()), steps, float(errors.sum())

    _, steps, error = min(map(change, HELD), key=lambda found: found[0])
    kernel = start + turns @ steps / scale
    explained = 1 - error / (float(whole.sum()) + TINY)
    return kernel, y_mean - x_mean @ kernel, explained


def _samples(
    node: Node, operand: Floats, wanted: Floats, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Returns what a kernel meets at some places and shall give there.

    Shapes:
        [slices, places, taps] and [slices, places, columns]; a depthwise kernel has a slice per
        channel, any other one slice.
    """
    op = node.op
    if isinstance(op, Dense):
        x, y = operand.reshape(-1, operand.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
        return np.asarray(x[None], np.float64), np.asarray(y[None], np.float64)
    assert isinstance(op, Conv2D | DepthwiseConv2D)
    views = list(taps(operand, op.kernel, op.stride, op.dilation, op.padding, 0.0))
    rows, columns = divmod(rng.permutation(math.prod(wanted.shape[1:3]))[:PLACES], wanted.shape[2])
    seen = np.stack([view[:, rows, columns] for view in views], axis=2).astype(np.float64)
    seen = seen.reshape(-1, *seen.shape[2:])
    given: Array = wanted[:, rows, columns].astype(np.float64).reshape(len(seen), -1)
    if isinstance(op, DepthwiseConv2D):
        return seen.transpose(2, 0, 1), given.T[:, :, None]
    return seen.reshape(1, len(seen), -1), given[None]
