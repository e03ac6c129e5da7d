"""Picture files as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face
from lmopt.errors import InputError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_picture(face: Face) -> NDArray[np.uint8]:
    """Returns the picture of a face in RGB.

    EXIF rotation is ignored: landmarks are annotated on the stored pixels.

    Shapes:
        uint8[height, width, 3].

    Raises:
        InputError: The file is missing, cut off or no picture.
    """
    import cv2

    hint = "replace the picture, or remove its annotation"
    try:
        data = face.image.read_bytes()
    except OSError as error:
        raise InputError(
            f"picture {face.image} cannot be read: {error.strerror}", where=face.where, hint=hint
        ) from error
    # libjpeg fills what is missing with gray and goes on: a detector must not be fed that.
    cut_off = data.startswith(_JPEG_START) and _JPEG_END not in data[len(data) // 2 :]
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    buffer = np.frombuffer(data, np.uint8)
    pixels = cv2.imdecode(buffer, flags) if data and not cut_off else None
    if pixels is None:
        problem = "is cut off" if cut_off else "is no picture that can be decoded"
        raise InputError(
            f"picture {face.image} ({len(data)} bytes) {problem}", where=face.where, hint=hint
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
