"""Frames of one scene in their order: a folder of pictures, or a video OpenCV can read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError

_HINT = "give a folder of pictures named in their order, or a video"


def read_frames(place: Path) -> Iterator[NDArray[np.uint8]]:
    """Returns the frames in RGB, one by one; the pictures of a folder in the order of their names.

    Shapes:
        uint8[height, width, 3] each.

    Raises:
        InputError: Nothing there, no frame in it, or a frame that cannot be decoded.
    """
    if place.is_dir():
        yield from _pictures(place)
    elif place.is_file():
        yield from _video(place)
    else:
        raise InputError("no such folder or video", where=str(place), hint=_HINT)


def _pictures(folder: Path) -> Iterator[NDArray[np.uint8]]:
    import cv2

    files = sorted(file for file in folder.iterdir() if cv2.haveImageReader(str(file)))
    if not files:
        raise InputError("no picture in this folder", where=str(folder), hint=_HINT)
    for file in files:
        pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise InputError("the frame cannot be decoded", where=str(file), hint="remove it")
        yield np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _video(file: Path) -> Iterator[NDArray[np.uint8]]:
    import cv2

    video = cv2.VideoCapture(str(file))
    try:
        count = 0
        while True:
            more, pixels = video.read()
            if not more:
                break
            count += 1
            yield np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        if not count:
            raise InputError("no frame of this video can be read", where=str(file), hint=_HINT)
    finally:
        video.release()
