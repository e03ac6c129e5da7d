"""The same graph for pictures of another size."""

from __future__ import annotations

from dataclasses import replace

from lmopt.errors import GraphError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.op import Op
from lmopt.ir.ops import LandmarkHeatmap, ResizeBilinear, ResizeNearest


def at_resolution(graph: Graph, height: int, width: int) -> Graph:
    """Returns `graph` for pictures of `height` x `width`; weights are shared.

    Ops that name the size of their result are scaled along.

    Raises:
        GraphError: There is not one picture for input, or a node depends on the size: its weights,
            a shape it names, or a map that would end between two pixels.
    """
    pictures = [node for node in graph.inputs if len(node.results[0].shape) == 4]
    if len(graph.inputs) != 1 or not pictures:
        raise GraphError(
            f"{len(graph.inputs)} input(s), {len(pictures)} of them a picture; wanted one picture",
            where=graph.name,
        )
    picture = pictures[0].results[0]
    batch, old_height, old_width, channels = picture.shape
    assert old_height is not None and old_width is not None
    if (old_height, old_width) == (height, width):
        return graph
    edit = Edit.of(graph)
    edit.set_type(pictures[0].value, picture.with_shape((batch, height, width, channels)))
    try:
        for node in graph.nodes:
            edit.set_op(node.name, scaled(node.op, (height, old_height), (width, old_width)))
        return edit.done()
    except GraphError as error:
        raise GraphError(
            f"made for pictures of {old_height}x{old_width}, not {height}x{width}: {error.what}",
            where=error.where,
            hint="choose another size, or a detector whose layers read maps of any size",
        ) from error


def scaled(op: Op, heights: tuple[int, int], widths: tuple[int, int]) -> Op:
    """Returns `op` for maps whose (new, old) heights and widths relate so.

    Raises:
        GraphError: A side that the op names would end between two pixels.
    """
    if not isinstance(op, ResizeBilinear | ResizeNearest | LandmarkHeatmap):
        return op
    sides = []
    for side, (new, old) in zip(op.size, (heights, widths), strict=True):
        scaled, rest = divmod(side * new, old)
        if rest:
            raise GraphError(f"{op.kind} to a side of {side} would become {side * new / old:g}")
        sides.append(scaled)
    return replace(op, size=(sides[0], sides[1]))
