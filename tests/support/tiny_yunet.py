"""A face detector for `cv2.FaceDetectorYN` that finds bright cells of 8x8 pixels.

The ONNX file is written field by field (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 40, 48
"""Sides of every box it finds, around the centre of a bright cell."""
_VARINT, _BYTES = 0, 2
_INTS, _FLOAT, _INT64 = 7, 1, 7


def write_tiny_yunet(path: Path) -> Path:
    """Writes the detector."""
    nodes: list[bytes] = []
    tensors: list[bytes] = []
    outputs = [
        (f"{kind}_{stride}", channels)
        for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    ]
    for name, channels in outputs:
        stride = int(name.rpartition("_")[2])
        weights = np.zeros((channels, 3, stride, stride), np.float32)
        bias = np.zeros(channels, np.float32)
        if channels == 1:
            weights += (20 / 255 / weights.size) if stride == 8 else 0.0
            bias -= 10 if stride == 8 else 20
        elif channels == 4:
            bias[:] = 0.5, 0.5, np.log(WIDTH / stride), np.log(HEIGHT / stride)
        tensors += [
            _tensor(f"{name}/w", weights),
            _tensor(f"{name}/b", bias),
            _tensor(f"{name}/shape", np.array([1, -1, channels], np.int64)),
        ]
        sides = {"kernel_shape": (stride, stride), "strides": (stride, stride)}
        nodes.append(_node("Conv", ["input", f"{name}/w", f"{name}/b"], f"{name}/conv", sides))
        last = f"{name}/conv"
        if channels == 1:
            nodes.append(_node("Sigmoid", [last], f"{name}/score", {}))
            last = f"{name}/score"
        nodes.append(_node("Transpose", [last], f"{name}/last", {"perm": (0, 2, 3, 1)}))
        nodes.append(_node("Reshape", [f"{name}/last", f"{name}/shape"], name, {}))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tiny")
    graph += b"".join(_field(5, tensor) for tensor in tensors)
    graph += _field(11, _info("input", (1, 3, "height", "width")))
    graph += b"".join(_field(12, _info(n, (1, f"{n}/n", c))) for n, c in outputs)
    opset = _field(1, b"") + _number(2, 13)
    path.write_bytes(_number(1, 8) + _field(8, opset) + _field(7, graph))
    return path


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _tensor(name: str, values: NDArray[np.generic]) -> bytes:
    kind = _INT64 if values.dtype == np.int64 else _FLOAT
    dims = b"".join(_number(1, side) for side in values.shape)
    return dims + _number(2, kind) + _field(8, name.encode()) + _field(9, values.tobytes())


def _node(op: str, inputs: Sequence[str], output: str, ints: Mapping[str, Sequence[int]]) -> bytes:
    body = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    body += _field(3, output.encode()) + _field(4, op.encode())
    for name, values in ints.items():
        listed = b"".join(_number(8, value) for value in values)
        body += _field(5, _field(1, name.encode()) + listed + _number(20, _INTS))
    return body


def _info(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(
        _field(1, _number(1, side) if isinstance(side, int) else _field(2, side.encode()))
        for side in shape
    )
    tensor = _number(1, _FLOAT) + _field(2, dims)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))
