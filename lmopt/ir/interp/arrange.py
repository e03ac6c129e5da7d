"""Moving elements about: one function per op kind, whatever the element type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from lmopt.ir.interp.call import Array, Call, Kernel
from lmopt.ir.ops import DepthToSpace, MirrorPad, Slice, SpaceToDepth, Transpose


def _slice(call: Call) -> Array:
    op = cast(Slice, call.node.op)
    cuts = [
        slice(begin, None if size == -1 else begin + (size - 1) * stride + 1, stride)
        for begin, size, stride in zip(op.begin, op.size, op.stride, strict=True)
    ]
    return call.x[(slice(None), *cuts)]


def _transpose(call: Call) -> Array:
    return np.transpose(call.x, cast(Transpose, call.node.op).order)


def _mirror_pad(call: Call) -> Array:
    op = cast(MirrorPad, call.node.op)
    margins = ((0, 0), (op.top, op.bottom), (op.left, op.right), (0, 0))
    return np.asarray(np.pad(call.x, margins, mode=op.mode))


def _space_to_depth(call: Call) -> Array:
    block = cast(SpaceToDepth, call.node.op).block
    batch, height, width, channels = call.x.shape
    cells = call.x.reshape(batch, height // block, block, width // block, block, channels)
    flat = (batch, height // block, width // block, block * block * channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(flat)


def _depth_to_space(call: Call) -> Array:
    block = cast(DepthToSpace, call.node.op).block
    batch, height, width, channels = call.x.shape
    cells = call.x.reshape(batch, height, width, block, block, channels // block**2)
    flat = (batch, height * block, width * block, channels // block**2)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(flat)


ARRANGE: Mapping[str, Kernel] = {
    "slice": _slice,
    "transpose": _transpose,
    "mirror_pad": _mirror_pad,
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
    "maximum": lambda call: np.maximum(call.x, call.operands[1]),
    "minimum": lambda call: np.minimum(call.x, call.operands[1]),
}
"""Exact in floats and on any grid."""
