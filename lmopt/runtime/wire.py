"""Frames between the runner and its worker: a JSON header, then raw arrays. No pickles.

A frame is the header's length (uint32, little endian), the header, and the bytes of the arrays in
the header's order. A length of more than `LARGEST_HEADER` means that something else wrote.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST_HEADER = 1 << 26
_LENGTH = struct.Struct("<I")

Arrays = Mapping[str, NDArray[Any]]


class WireError(Exception):
    """The other side closed its end, or wrote something that is not a frame."""


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Arrays) -> None:
    """Writes one frame and flushes it."""
    flat = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [[name, str(a.dtype), list(arrays[name].shape)] for name, a in flat.items()]
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in flat.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Returns the next frame's header and arrays.

    Raises:
        WireError: The stream ended, or holds no frame.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, np.empty(_LENGTH.size, np.uint8)).tobytes())
    if length > LARGEST_HEADER:
        raise WireError(f"a header of {length} bytes")
    text = _exactly(stream, np.empty(length, np.uint8)).tobytes()
    try:
        header = json.loads(text)
    except ValueError as error:
        raise WireError("a header that is not JSON") from error
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in header.pop("arrays"):
        array = np.empty(shape, dtype)
        _exactly(stream, array.reshape(-1).view(np.uint8))
        arrays[name] = array
    return header, arrays


def _exactly(stream: IO[bytes], buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    view = memoryview(buffer.data)
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise WireError("the stream ended")
        filled += count
    return buffer
