"""Ops that codegen writes as several TFLite operators, found again in files.

How such an op looks in a file is said nowhere but in its emitter. What could be one is written
again by codegen and taken only where the file has those very operators, options and constants, by
whatever names: what is taken computes what the op computes, so no file can be misread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lmopt.codegen.tflite import emit
from lmopt.errors import GraphError
from lmopt.frontend.tflite_file import Operator, TfliteFile
from lmopt.frontend.tflite_importer import Importer, shortest
from lmopt.ir import ops
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Node
from lmopt.ir.types import DType, Shape, TensorType

_MOST_ELEMENTS = 2**24
"""Of an operand: a corrupt file must not make codegen write gigabytes of constants."""

Operators = Sequence[Operator]


def read_composite(importer: Importer, position: int) -> int:
    """Returns how many operators from `position` on are one op of the IR, after adding it; or 0."""
    for look in _looks():
        window = importer.file.operators[position : position + len(look.operators)]
        if tuple(operator.name for operator in window) != look.operators:
            continue
        if not _are_alone(importer.file, window):
            continue
        operands = look.operands_of(window)
        op = look.op_of(importer.file, window)
        if op is not None and _is_written_so(importer.file, window, op, operands):
            importer.add(window[-1], op, [importer.value(k) for k in operands])
            return len(window)
    return 0


@dataclass(frozen=True)
class _Look:
    """How an op looks in a file.

    Attributes:
        operators: The names of its operators, in order.
        operands: Where each operand is read first: the operator and the place among its inputs.
        op_of: Reads the op with its attributes from the operators; None where they have none.
    """

    operators: tuple[str, ...]
    operands: tuple[tuple[int, int], ...]
    op_of: Callable[[TfliteFile, Operators], ops.Op | None]

    def operands_of(self, window: Operators) -> list[int]:
        """Returns the tensors that the operators read as operands, -1 where there is none."""
        found = []
        for step, slot in self.operands:
            inputs = window[step].inputs
            found.append(inputs[slot] if slot < len(inputs) else -1)
        return found


def _always(op: ops.Op) -> Callable[[TfliteFile, Operators], ops.Op | None]:
    return lambda file, window: op


def _decode_by_mean(file: TfliteFile, window: Operators) -> ops.Op | None:
    beta = _of(window, "SOFTMAX").options[1].get("beta")
    return None if beta is None else ops.HeatmapDecode("softargmax", beta=shortest(beta))


def _decode_by_place(file: TfliteFile, window: Operators) -> ops.Op | None:
    # The sign of the slope is held at the border and then multiplied by the step.
    product = window[window.index(_of(window, "SIGN")) + 2]
    step = _stored(file, product, 1)
    return None if step is None or step.size != 1 else ops.HeatmapDecode(step=shortest(step.item()))


def _heatmap(file: TfliteFile, window: Operators) -> ops.Op | None:
    across, down = (
        _stored(file, operator, 1) for operator in window if operator.name == "SQUARED_DIFFERENCE"
    )
    picked = _of(window, "FULLY_CONNECTED")
    kernel, landmarks = _stored(file, picked, 1), file.tensor(picked.inputs[0]).type
    if across is None or down is None or kernel is None:
        return None
    if kernel.shape[-1:] != landmarks.shape[-1:]:  # codegen will write a matrix of that width
        return None
    return ops.LandmarkHeatmap((down.size, across.size))


_MAP, _POINTS, _MOVE = (None, 3, 4, 2), (None, 6), (None, 2, 3)
_SAMPLES: Sequence[
    tuple[ops.Op, tuple[Shape, ...], Callable[[TfliteFile, Operators], ops.Op | None]]
] = (
    (ops.HeatmapDecode("argmax"), (_MAP,), _decode_by_place),
    (ops.HeatmapDecode("softargmax"), (_MAP,), _decode_by_mean),
    (ops.SimilarityFit(), (_POINTS, _POINTS), _always(ops.SimilarityFit())),
    (ops.SimilarityFit(), (_POINTS, _POINTS[1:]), _always(ops.SimilarityFit())),
    (ops.InvertTransform(), (_MOVE,), _always(ops.InvertTransform())),
    (ops.TransformLandmarks(), (_POINTS, _MOVE), _always(ops.TransformLandmarks())),
    (ops.Warp(), (_MAP, _MOVE), _always(ops.Warp())),
    (ops.LandmarkHeatmap((3, 4)), (_POINTS,), _heatmap),
)


@cache
def _looks() -> tuple[_Look, ...]:
    looks = []
    for op, shapes, op_of in _SAMPLES:
        file = _written(op, [TensorType(DType.F32, shape) for shape in shapes])
        first = {
            index: (step, slot)
            for step, operator in reversed([*enumerate(file.operators)])
            for slot, index in reversed([*enumerate(operator.inputs)])
        }
        names = tuple(operator.name for operator in file.operators)
        looks.append(_Look(names, tuple(first[index] for _, index in file.inputs), op_of))
    return tuple(looks)


def _written(op: ops.Op, operands: Sequence[TensorType]) -> TfliteFile:
    """Returns a file of one op, its operands as inputs in their order."""
    edit = Edit(op.kind)
    inputs = [
        edit.put(Node(f"operand_{k}", ops.Input(), (), (type,))) for k, type in enumerate(operands)
    ]
    edit.output("result", edit.add("result", op, *inputs))
    return TfliteFile(emit(edit.done()), op.kind)


def _are_alone(file: TfliteFile, window: Operators) -> bool:
    """Returns whether nothing else reads what lies between the operators."""
    inner = {k for operator in window[:-1] for k in operator.outputs}
    others = (o for o in file.operators if not window[0].position <= o.position < _end(window))
    read = {k for operator in others for k in operator.inputs}
    return inner.isdisjoint(read | {index for _, index in file.outputs})


def _end(window: Operators) -> int:
    return window[0].position + len(window)


def _is_written_so(file: TfliteFile, window: Operators, op: ops.Op, operands: list[int]) -> bool:
    """Returns whether codegen writes `op` as these operators."""
    if min(operands) < 0:
        return False
    types = [file.tensor(index).type for index in operands]
    if any(math.prod(d or 1 for d in type.shape) > _MOST_ELEMENTS for type in types):
        return False
    try:
        written = _written(op, types)
    except GraphError:  # operands that the op does not take
        return False
    same = dict(zip((index for _, index in written.inputs), operands, strict=True))
    return all(
        _agree(written, ours, file, theirs, same)
        for ours, theirs in zip(written.operators, window, strict=True)
    )


def _agree(
    written: TfliteFile, ours: Operator, file: TfliteFile, theirs: Operator, same: dict[int, int]
) -> bool:
    """Returns whether operators are equal; notes which tensor of the file ours has become."""
    if len(ours.inputs) != len(theirs.inputs) or len(theirs.outputs) != 1 or -1 in theirs.inputs:
        return False
    if _plain_options(ours) != _plain_options(theirs):
        return False
    for mine, yours in zip(ours.inputs, theirs.inputs, strict=True):
        if mine in same:
            if same[mine] != yours:
                return False
        elif not _same_constant(written, mine, file, yours):
            return False
    (mine,), (yours,) = ours.outputs, theirs.outputs
    same[mine] = yours
    return written.tensor(mine).type == file.tensor(yours).type


def _same_constant(written: TfliteFile, mine: int, file: TfliteFile, yours: int) -> bool:
    ours, theirs = written.tensor(mine), file.tensor(yours)
    if ours.data is None or theirs.data is None or ours.type != theirs.type:
        return False
    return ours.data.tobytes() == theirs.data.tobytes()


def _plain_options(operator: Operator) -> tuple[str, dict[str, object]]:
    kind, fields = operator.options
    return kind, {key: np.asarray(value).tolist() for key, value in fields.items()}


def _of(window: Operators, name: str) -> Operator:
    return next(operator for operator in window if operator.name == name)


def _stored(file: TfliteFile, operator: Operator, slot: int) -> NDArray[np.generic] | None:
    if slot >= len(operator.inputs) or operator.inputs[slot] < 0:
        return None
    return file.tensor(operator.inputs[slot]).data
