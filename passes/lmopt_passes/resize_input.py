"""resize-input: the detector computes on a smaller picture; what it is fed stays as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmopt.errors import GraphError, PassError, UsageError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import (
    AvgPool2D,
    Conv2D,
    DepthwiseConv2D,
    MaxPool2D,
    Op,
    ResizeBilinear,
)
from lmopt.ir.refit import insert_shrinking
from lmopt.ir.resolution import scaled
from lmopt.ir.size import size_change, strip_weights
from lmopt.pipeline.base import Pass, PassContext, PassResult
from lmopt.pipeline.precondition import require_float
from lmopt_passes.map_fit import fit_where_faces_are

_Sides = tuple[int, int]


@dataclass(frozen=True)
class ResizeInput(Pass):
    """Puts a bilinear resize behind the input and fits what computes on it to the smaller picture.

    The file eats the same crops, so that an app changes nothing, and answers in the same
    coordinates: heatmaps are decoded to shares of their map, and a layer that learned to give
    pixels gives those of the crop. Layers run on the smaller maps as they are; what read a whole
    map is fitted to the smaller one (`lmopt.ir.refit`); where there are calibration faces, every
    kernel is then fitted to answer on them what it answered (`passes/lmopt_passes/map_fit.py`). A
    normalisation at the beginning of the graph computes on the smaller picture, which is the same:
    weights of an interpolation sum to 1. A resize of that kind at the beginning is replaced.

    Attributes:
        size: Longer side of the smaller picture; the other keeps its ratio to it. Below half of the
            input the resize leaves pixels out.
        reconstruct: Whether kernels are fitted where there are calibration faces.
        faces: Calibration faces, of the training split.
    """

    name: ClassVar[str] = "resize-input"
    size: int = 96
    reconstruct: bool = True
    faces: int = 100

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size is {self.size}, wanted at least 1")
        if self.faces < 1:
            raise UsageError(f"faces is {self.faces}, wanted at least 1")

    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        require_float(graph, self.name)
        picture = _picture(graph, self.name)
        old = _sides(graph, picture)
        if self.size >= max(old):
            return PassResult(graph, False, (f"it computes on {old[0]}x{old[1]} pixels already",))
        new = _scaled(old, self.size)
        try:
            result, fitted = _resized(graph, picture, new)
        except GraphError as error:
            raise PassError(
                f"{self.name} from {old[0]}x{old[1]} to {new[0]}x{new[1]} does not fit: "
                f"{error.what}",
                where=error.where,
                hint=_fitting(graph, picture, self.size),
            ) from error
        note = (
            f"{old[0]}x{old[1]} pixels -> {new[0]}x{new[1]} behind {picture}; "
            f"{size_change(graph, result)}"
        )
        notes = (note, *fitted, *_moved(graph, result))
        if self.reconstruct:
            result, refitted = fit_where_faces_are(graph, result, ctx, faces=self.faces)
            notes += refitted
        return PassResult(result, True, notes)


def _picture(graph: Graph, name: str) -> Value:
    """Returns the value that holds the picture the detector computes on."""
    pictures = [node.value for node in graph.inputs if len(node.results[0].shape) == 4]
    if len(graph.inputs) != 1 or not pictures:
        raise PassError(
            f"{name} wants one picture for input, got {len(graph.inputs)} input(s), "
            f"{len(pictures)} of them a picture",
            where=graph.name,
        )
    users = graph.users(pictures[0])
    if len(users) != 1 or not isinstance(op := users[0][0].op, ResizeBilinear):
        return pictures[0]
    return users[0][0].value if op == ResizeBilinear(op.size) else pictures[0]


def _resized(graph: Graph, picture: Value, sides: _Sides) -> tuple[Graph, tuple[str, ...]]:
    stem = graph.inputs[0].name
    name, op = Edit.of(graph).fresh(f"{stem}_resize"), ResizeBilinear(sides)
    along = _drawn(graph, picture, sides)
    result, notes = insert_shrinking(graph, picture, name, op, ResizeInput.name, along=along)
    for height, width, node in ((*_sides(result, Value(node)), node) for node in along):
        notes += (f"%{node} gives {height}x{width}",)
    if picture.node == stem:
        return result, notes
    edit = result.edit()
    edit.set_inputs(name, graph.inputs[0].value)
    edit.prune_dead()
    return edit.done(), notes


def _drawn(graph: Graph, picture: Value, sides: _Sides) -> dict[str, Op]:
    """Returns the ops, for the smaller picture, that draw maps beside it: a cascade's later stages.

    Their maps come from numbers, and stand in the same proportion to the picture as before.
    """
    seen, found = {picture}, dict[str, Op]()
    for node in graph.nodes:
        if seen.intersection(node.inputs):
            if node.results[0].rank == 4:
                seen.add(node.value)
        elif node.value != picture:
            try:
                op = scaled(node.op, *zip(sides, _sides(graph, picture), strict=True))
            except GraphError as error:
                raise GraphError(error.what, where=f"%{node.name}") from error
            if op != node.op:
                found[node.name] = op
    return found


def _moved(graph: Graph, result: Graph) -> list[str]:
    """Returns notes on strides that part their maps otherwise than before."""
    notes = []
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, Conv2D | DepthwiseConv2D | MaxPool2D | AvgPool2D):
            continue
        (tall, wide), (low, narrow) = (
            _sides(whose, whose.node(node.name).inputs[0]) for whose in (graph, result)
        )
        moved = (tall - low) % op.stride[0] or (wide - narrow) % op.stride[1]
        if op.padding == "same" and moved:
            notes.append(
                f"windows of %{node.name} begin elsewhere: its stride parts {low}x{narrow} "
                f"otherwise than {tall}x{wide}; landmarks may move until it is trained"
            )
    return notes


def _fitting(graph: Graph, picture: Value, size: int) -> str:
    """Returns the nearest sizes below and above `size` that fit, as a hint."""
    shapes, old = strip_weights(graph), _sides(graph, picture)
    found = [
        next((near for near in nears if _fits(shapes, picture, _scaled(old, near))), None)
        for nears in (range(size - 1, 0, -1), range(size + 1, max(old)))
    ]
    near = [str(size) for size in found if size is not None]
    return f"sizes near it that fit: {', '.join(near)}" if near else "no smaller size fits"


def _fits(shapes: Graph, picture: Value, sides: _Sides) -> bool:
    try:
        _resized(shapes, picture, sides)
    except GraphError:
        return False
    return True


def _sides(graph: Graph, picture: Value) -> _Sides:
    height, width = graph.type(picture).shape[1:3]
    assert height is not None and width is not None
    return height, width


def _scaled(old: _Sides, size: int) -> _Sides:
    """Returns sides in the ratio of `old`, the longer one `size`."""
    height, width = (max(1, round(side * size / max(old))) for side in old)
    return height, width
