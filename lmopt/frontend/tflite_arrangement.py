"""Readers of TFLite operators that reshape, cut, join, turn and pad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ai_edge_litert import schema_py_generated as schema

from lmopt.errors import GraphError
from lmopt.frontend.slicing import known_dims, slice_of
from lmopt.frontend.tflite_file import Operator
from lmopt.frontend.tflite_importer import Importer, options_of
from lmopt.ir import ops
from lmopt.ir.graph import Value

_MIRRORS: dict[int, Literal["reflect", "symmetric"]] = {
    schema.MirrorPadMode.REFLECT: "reflect",
    schema.MirrorPadMode.SYMMETRIC: "symmetric",
}


def concat(importer: Importer, operator: Operator) -> None:
    """Reads CONCATENATION."""
    fields = options_of(operator, "ConcatenationOptions")
    inputs = [importer.value(k) for k in operator.inputs]
    axis = int(fields["axis"])
    rank = importer.type(inputs[0]).rank
    op = ops.Concat(-1 if axis == rank - 1 else axis)
    importer.add_activated(operator, op, inputs, fields["fusedActivationFunction"])


def reshape(importer: Importer, operator: Operator) -> None:
    """Reads RESHAPE, SQUEEZE and EXPAND_DIMS: the result's shape in the file says it all."""
    x = importer.value(operator.inputs[0])
    shape = importer.file.tensor(operator.outputs[0]).type.shape
    if None in shape[1:] and operator.name == "RESHAPE" and len(operator.inputs) == 2:
        numbers = importer.integers(operator.inputs[1], "shape")
        shape = (shape[0], *(None if d == -1 else d for d in numbers[1:]))
    if shape[1:].count(None) > 1:
        raise GraphError(f"its result has the open shape {list(shape)}")
    # A flattening stays one when a pass changes the image before it.
    dims = (-1,) if len(shape) == 2 else tuple(-1 if d is None else d for d in shape[1:])
    importer.add(operator, ops.Reshape(dims), [x])


def pad(importer: Importer, operator: Operator) -> None:
    """Reads PAD, and PADV with zeros, of height and width."""
    if len(operator.inputs) == 3:
        fill = importer.weight(operator.inputs[2], "padding value")
        if fill.real().any():
            raise GraphError(f"it pads with {fill.real().reshape(-1)[0]:g}; wanted 0")
    top, bottom, left, right = _margins(importer, operator)
    op = ops.Pad(top, bottom, left, right)
    importer.add(operator, op, [importer.value(operator.inputs[0])])


def mirror_pad(importer: Importer, operator: Operator) -> None:
    """Reads MIRROR_PAD of height and width."""
    mode = int(options_of(operator, "MirrorPadOptions")["mode"])
    if mode not in _MIRRORS:
        raise GraphError(f"its mode is {mode}; wanted reflect or symmetric")
    top, bottom, left, right = _margins(importer, operator)
    op = ops.MirrorPad(top, bottom, left, right, _MIRRORS[mode])
    importer.add(operator, op, [importer.value(operator.inputs[0])])


def _margins(importer: Importer, operator: Operator) -> Sequence[int]:
    widths = importer.known(operator.inputs[1], "paddings")
    if len(widths) != 8 or any(widths[:2] + widths[6:]) or min(widths) < 0:
        raise GraphError(f"it pads by {widths}; wanted height and width of an NHWC tensor only")
    return widths[2:6]


def transpose(importer: Importer, operator: Operator) -> None:
    """Reads TRANSPOSE."""
    order = tuple(importer.known(operator.inputs[1], "order"))
    importer.add(operator, ops.Transpose(order), [importer.value(operator.inputs[0])])


def blocks(make: Callable[[int], ops.Op], kind: str) -> Callable[[Importer, Operator], None]:
    """Returns the reader of SPACE_TO_DEPTH or DEPTH_TO_SPACE."""

    def read(importer: Importer, operator: Operator) -> None:
        op = make(int(options_of(operator, kind)["blockSize"]))
        importer.add(operator, op, [importer.value(operator.inputs[0])])

    return read


def strided_slice(importer: Importer, operator: Operator) -> None:
    """Reads STRIDED_SLICE as a slice, and as a reshape where it drops dimensions."""
    fields = options_of(operator, "StridedSliceOptions")
    x = importer.value(operator.inputs[0])
    begin, end, stride = (
        importer.known(k, role)
        for k, role in zip(operator.inputs[1:], ("begin", "end", "stride"), strict=True)
    )
    shape = importer.type(x).shape
    masks = {key: int(fields[f"{key}Mask"]) for key in ("begin", "end", "shrinkAxis")}
    if fields["ellipsisMask"] or fields["newAxisMask"] or len(begin) != len(shape):
        raise GraphError("it adds dimensions or leaves some out; wanted all of the operand's")
    if min(stride) < 1 or masks["shrinkAxis"] & 1:
        raise GraphError(f"its strides are {stride}; wanted at least 1, and the batch whole")
    if fields.get("offset"):
        end = [a + b for a, b in zip(begin, end, strict=True)]
    pieces = []
    for axis, dim in enumerate(shape):
        first = None if masks["begin"] >> axis & 1 else begin[axis]
        last = None if masks["end"] >> axis & 1 else end[axis]
        if masks["shrinkAxis"] >> axis & 1:
            last = None if begin[axis] == -1 else begin[axis] + 1
        if dim is None:
            if first not in (None, 0) or last is not None or stride[axis] != 1:
                raise GraphError("it cuts the batch")
            continue
        piece = range(*slice(first, last, stride[axis]).indices(dim))
        if axis == 0 and len(piece) != dim:
            raise GraphError("it cuts the batch")
        pieces.append(piece)
    op = slice_of(pieces[-(len(shape) - 1) :], shape[1:])
    dims = tuple(
        len(piece)
        for axis, piece in enumerate(pieces[-(len(shape) - 1) :], 1)
        if not masks["shrinkAxis"] >> axis & 1
    )
    if not masks["shrinkAxis"]:
        importer.add(operator, op, [x])
    else:
        part = importer.insert(f"{x.node}/part", op, x)
        importer.add(operator, ops.Reshape(dims), [part])


def plain_slice(importer: Importer, operator: Operator) -> None:
    """Reads SLICE."""
    x = importer.value(operator.inputs[0])
    begin = importer.known(operator.inputs[1], "begin")
    size = importer.known(operator.inputs[2], "size")
    shape = importer.type(x).shape
    if len(begin) != len(shape) or begin[0] or size[0] not in (-1, shape[0]):
        raise GraphError(f"it takes {size} from {begin} on; wanted the batch whole")
    pieces = [
        range(first, dim if length == -1 else first + length)
        for first, length, dim in zip(begin[1:], size[1:], known_dims(shape[1:]), strict=True)
    ]
    importer.add(operator, slice_of(pieces, shape[1:]), [x])


def split(importer: Importer, operator: Operator) -> None:
    """Reads SPLIT into equal parts."""
    (axis,) = importer.known(operator.inputs[0], "axis")
    x = importer.value(operator.inputs[1])
    count = len(operator.outputs)
    dim = _axis_dim(importer, x, axis)
    if dim % count:
        raise GraphError(f"it cuts {dim} into {count} parts")
    _cut(importer, operator, x, axis, [dim // count] * count)


def split_v(importer: Importer, operator: Operator) -> None:
    """Reads SPLIT_V into parts of given sizes."""
    x = importer.value(operator.inputs[0])
    sizes = importer.known(operator.inputs[1], "sizes")
    (axis,) = importer.known(operator.inputs[2], "axis")
    if -1 in sizes:
        rest = _axis_dim(importer, x, axis) - sum(size for size in sizes if size != -1)
        sizes = [rest if size == -1 else size for size in sizes]
    _cut(importer, operator, x, axis, sizes)


def unpack(importer: Importer, operator: Operator) -> None:
    """Reads UNPACK: parts of length 1 without their dimension."""
    x = importer.value(operator.inputs[0])
    axis = int(options_of(operator, "UnpackOptions")["axis"])
    _cut(importer, operator, x, axis, [1] * _axis_dim(importer, x, axis), drop=True)


def pack(importer: Importer, operator: Operator) -> None:
    """Reads PACK: operands joined along a new dimension."""
    inputs = [importer.value(k) for k in operator.inputs]
    rank = importer.type(inputs[0]).rank + 1
    axis = int(options_of(operator, "PackOptions")["axis"]) % rank
    wide = []
    for value in inputs:
        dims = known_dims(importer.type(value).shape[1:])
        grown = ops.Reshape((*dims[: axis - 1], 1, *dims[axis - 1 :]))
        wide.append(importer.insert(f"{value.node}/wide", grown, value))
    importer.add(operator, ops.Concat(axis), wide)


def _cut(
    importer: Importer,
    operator: Operator,
    x: Value,
    axis: int,
    sizes: Sequence[int],
    drop: bool = False,
) -> None:
    shape = importer.type(x).shape
    axis %= len(shape)
    if len(sizes) != len(operator.outputs):
        raise GraphError(f"it gives {len(operator.outputs)} results of {len(sizes)} parts")
    start = 0
    for output, size in enumerate(sizes):
        pieces = [range(dim) for dim in known_dims(shape[1:])]
        pieces[axis - 1] = range(start, start + size)
        start += size
        op = slice_of(pieces, shape[1:])
        if drop:
            part = importer.insert(f"{x.node}/part", op, x)
            dims = tuple(len(piece) for k, piece in enumerate(pieces, 1) if k != axis)
            importer.add(operator, ops.Reshape(dims), [part], output=output)
        else:
            importer.add(operator, op, [x], output=output)


def _axis_dim(importer: Importer, x: Value, axis: int) -> int:
    shape = importer.type(x).shape
    dim = shape[axis] if -len(shape) <= axis < len(shape) else None
    if dim is None or axis % len(shape) == 0:
        raise GraphError(f"it cuts dimension {axis} of {list(shape)}; wanted one after the batch")
    return dim
