"""Emitters of the ops on coordinates: each becomes several built-in operators.

What is linear in one operand is a FULLY_CONNECTED with a constant matrix, which every runtime has
and which leaves the batch open.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.codegen.steps import Steps
from lmopt.codegen.writer import Writer
from lmopt.ir.graph import Node
from lmopt.ir.ops import HeatmapDecode, LandmarkHeatmap
from lmopt.ir.types import DType

# These act on the rows a, b, c, d of a matrix [[a, b], [c, d]].
_TURN_AND_SCALE = np.array([[1, 0, 0, 1], [0, -1, 1, 0], [0, 1, -1, 0], [1, 0, 0, 1]])
_ADJUGATE = np.array([[0, 0, 0, 1], [0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])
# a row times this times the row itself is ad - bc
_DETERMINANT = np.array([[0, 0, 0, 0.5], [0, 0, -0.5, 0], [0, -0.5, 0, 0], [0.5, 0, 0, 0]])


def heatmap_decode(writer: Writer, node: Node) -> None:
    """Writes SOFTMAX and the weighted mean of pixels, or ARG_MAX and a look at the neighbours."""
    op = node.op
    assert isinstance(op, HeatmapDecode)
    steps = Steps(writer, node)
    image = steps.operand(0)
    height, width, count = steps.dims(image)
    maps = steps.transposed(steps.reshape(image, [height * width, count]))
    if op.method == "softargmax":
        points = steps.linear(steps.softmax(maps, op.beta), _centers(height, width)[:2])
    else:
        points = _highest(steps, op.step, maps, height, width)
    steps.reshape(points, [2 * count], last=True)


def _highest(steps: Steps, step: float, maps: int, height: int, width: int) -> int:
    count, pixels = steps.dims(maps)
    place = steps.highest(maps)
    real = steps.unary("CAST", place, "CastOptions", DType.F32)
    # Half a pixel keeps the quotient clear of whole numbers, whatever the product rounds to.
    middle = steps.pair("ADD", real, 0.5)
    row = steps.unary("FLOOR", steps.pair("MUL", middle, 1.0 / width))
    column = steps.pair("SUB", real, steps.pair("MUL", row, float(width)))
    values = steps.reshape(maps, [count * pixels])
    first = steps.pair("ADD", place, np.arange(count) * pixels)

    def neighbour(distance: int) -> int:
        at = steps.pair("ADD", first, np.array(distance))
        held = steps.pair("MAXIMUM", at, np.array(0))
        return steps.gather(values, steps.pair("MINIMUM", held, np.array(count * pixels - 1)))

    def coordinate(pixel: int, size: int, distance: int) -> int:
        slope = steps.pair("SUB", neighbour(distance), neighbour(-distance))
        after = steps.pair("ADD", steps.unary("NEG", pixel, "NegOptions"), size - 1.0)
        inside = steps.pair("MINIMUM", steps.pair("MINIMUM", pixel, after), 1.0)
        turn = steps.pair("MUL", steps.unary("SIGN", slope), inside)
        center = steps.pair("ADD", steps.pair("ADD", pixel, steps.pair("MUL", turn, step)), 0.5)
        return steps.reshape(steps.pair("MUL", center, 1.0 / size), [count, 1])

    return steps.join([coordinate(column, width, 1), coordinate(row, height, width)])


def similarity_fit(writer: Writer, node: Node) -> None:
    """Writes the closed form of the least-squares similarity transform."""
    steps = Steps(writer, node)
    source_mean, source = _centered(steps, 0)
    target_mean, target = _centered(steps, 1)
    cross = steps.reshape(steps.product(source, target, adjX=True), [4])
    turned = steps.reshape(steps.linear(cross, _TURN_AND_SCALE), [2, 2])
    spread = steps.reduce("SUM", steps.pair("MUL", source, source), 1, 2)
    matrix = steps.pair("DIV", turned, spread)
    shift = steps.pair("SUB", target_mean, steps.product(source_mean, matrix, adjY=True))
    steps.join([matrix, steps.reshape(shift, [2, 1])], last=True)


def _centered(steps: Steps, position: int) -> tuple[int, int]:
    """Adds the mean [1, 2] of landmarks, and the landmarks [count, 2] without it."""
    flat = steps.operand(position)
    points = steps.reshape(flat, [steps.dims(flat)[0] // 2, 2])
    mean = steps.reduce("MEAN", points, 1)
    return mean, steps.pair("SUB", points, mean)


def invert_transform(writer: Writer, node: Node) -> None:
    """Writes the adjugate over the determinant, and the shift it moves back."""
    steps = Steps(writer, node)
    matrix, shift = _parted(steps, steps.operand(0))
    row = steps.reshape(matrix, [4])
    terms = steps.pair("MUL", row, steps.linear(row, _DETERMINANT))
    quotient = steps.pair("DIV", steps.linear(row, _ADJUGATE), steps.reduce("SUM", terms, 1))
    inverse = steps.reshape(quotient, [2, 2])
    back = steps.unary("NEG", steps.product(inverse, shift), "NegOptions")
    steps.join([inverse, back], last=True)


def transform_landmarks(writer: Writer, node: Node) -> None:
    """Writes the product of points and matrix, plus the shift."""
    steps = Steps(writer, node)
    landmarks = steps.operand(0)
    (flat,) = steps.dims(landmarks)
    matrix, shift = _parted(steps, steps.operand(1))
    turned = steps.product(steps.reshape(landmarks, [flat // 2, 2]), matrix, adjY=True)
    moved = steps.pair("ADD", turned, steps.reshape(shift, [1, 2]))
    steps.reshape(moved, [flat], last=True)


def _parted(steps: Steps, transform: int) -> tuple[int, int]:
    """Adds the matrix [2, 2] and the shift [2, 1] of a transform."""
    return steps.slice(transform, [0, 0], [2, 2]), steps.slice(transform, [0, 2], [2, 1])


def warp(writer: Writer, node: Node) -> None:
    """Writes the places of all pixels, GATHER of the four around each, and their weighted mean."""
    steps = Steps(writer, node)
    image = steps.operand(0)
    height, width, channels = steps.dims(image)
    pixels, size = height * width, np.array([[width], [height]])
    unit = steps.linear(steps.operand(1), _centers(height, width).T)
    place = steps.pair("SUB", steps.pair("MUL", unit, size), 0.5)
    held = steps.pair("MINIMUM", steps.pair("MAXIMUM", place, 0.0), size - 1)
    low = steps.pair("MINIMUM", steps.unary("FLOOR", held), size - 2)
    share = steps.pair("SUB", held, low)
    across, down = (
        steps.reshape(steps.slice(share, [k, 0], [1, pixels]), [pixels, 1]) for k in (0, 1)
    )
    column, row = (steps.slice(low, [k, 0], [1, pixels]) for k in (0, 1))
    index = steps.pair("ADD", steps.pair("MUL", row, float(width)), column)
    first = steps.unary("CAST", steps.reshape(index, [pixels]), "CastOptions", DType.I32)
    flat = steps.reshape(image, [pixels, channels])

    def around(offset: int) -> int:
        return steps.gather(flat, steps.pair("ADD", first, np.array(offset)))

    def between(start: int, end: int, share: int) -> int:
        change = steps.pair("MUL", steps.pair("SUB", end, start), share)
        return steps.pair("ADD", start, change)

    upper = between(around(0), around(1), across)
    lower = between(around(width), around(width + 1), across)
    steps.reshape(between(upper, lower, down), [height, width, channels], last=True)


def landmark_heatmap(writer: Writer, node: Node) -> None:
    """Writes squared distances along both axes, their least sum, and 1 / (1 + its root)."""
    op = node.op
    assert isinstance(op, LandmarkHeatmap)
    steps = Steps(writer, node)
    landmarks = steps.operand(0)
    (flat,) = steps.dims(landmarks)
    height, width = op.size

    def squares(axis: int, size: int, shape: tuple[int, int, int]) -> int:
        edges = steps.linear(landmarks, np.eye(flat)[axis::2] * size)
        places = steps.reshape(edges, [1, 1, flat // 2])
        return steps.pair("SQUARED_DIFFERENCE", places, (np.arange(size) + 0.5).reshape(shape))

    total = steps.pair("ADD", squares(0, width, (1, width, 1)), squares(1, height, (height, 1, 1)))
    distance = steps.unary("SQRT", steps.reduce("REDUCE_MIN", total, 3))
    steps.pair("DIV", steps.constant(1.0), steps.pair("ADD", distance, 1.0), last=True)


def _centers(height: int, width: int) -> NDArray[np.float64]:
    """Returns x, y and 1 of all pixel centres in unit coordinates, [3, height * width]."""
    rows, columns = np.indices((height, width)).reshape(2, -1)
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height, np.ones(height * width)])
