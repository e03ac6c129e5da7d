"""Encoded pictures as arrays, and their sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Face, no_picture
from lmopt.errors import InputError

_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""What a whole file ends with, by what it begins with."""
_LONGEST_START = max(map(len, _ENDS))
_TAIL = 1024


def read_picture(face: Face) -> NDArray[np.uint8]:
    """Returns the picture of a face in RGB.

    EXIF rotation is ignored: landmarks are annotated on the stored pixels.

    Shapes:
        uint8[height, width, 3].

    Raises:
        InputError: The file is missing, cut off or no picture.
    """
    import cv2

    data = picture_bytes(face)
    if _is_cut_off(data):
        raise _unusable(face, len(data), "is cut off")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if pixels is None:
        raise _unusable(face, len(data), "is no picture that can be decoded")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def picture_bytes(face: Face) -> bytes:
    """Returns the encoded picture of a face, or raises InputError."""
    try:
        return face.image.read_bytes()
    except OSError as error:
        raise no_picture(face, error) from error


def picture_size(face: Face) -> tuple[int, int]:
    """Returns width and height of a face's picture; of a file, only both ends are read.

    Raises:
        InputError: The file is missing, cut off or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    picture, size = face.image, 0
    try:
        with (
            picture.open("rb") if isinstance(picture, Path) else io.BytesIO(picture.read_bytes())
        ) as file:
            ends = file.read(_LONGEST_START)
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _TAIL))
            ends += file.read()
            # Some cameras append data of their own: then the whole file decides.
            if _is_cut_off(ends) and _is_cut_off(picture.read_bytes()):
                raise _unusable(face, size, "is cut off")
            file.seek(0)
            with Image.open(file) as image:
                return image.size
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unusable(face, size, "is no picture that can be decoded") from error
    except OSError as error:
        raise no_picture(face, error) from error


def _is_cut_off(data: bytes) -> bool:
    # Decoders fill what is missing with gray and go on: a detector must not be fed that.
    return any(
        data.startswith(start) and end not in data[len(data) // 2 :] for start, end in _ENDS.items()
    )


def _unusable(face: Face, size: int, problem: str) -> InputError:
    return InputError(
        f"picture {face.image} ({size} bytes) {problem}",
        where=face.where,
        hint="replace the picture, or remove its annotation",
    )
