"""The annotation formats that can be read: one module each, listed in `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lmopt.data.readers import cofw, dlib, folder, matlab, pixels, pts, wflw
from lmopt.data.readers.row import Row


@dataclass(frozen=True)
class Reader:
    """One way annotated faces are kept.

    Attributes:
        layout: What it looks like, for messages.
        fits: Whether a folder, or a file where tables hold the annotations, looks like that;
            cheap.
        read: The faces there and what is wrong with others, given the name of their source.
    """

    layout: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, str], Iterable[Row]]


READERS: dict[str, Reader] = {
    "folder": Reader(folder.LAYOUT, folder.fits, folder.read),
    "300-W": Reader(pts.LAYOUT, pts.fits, pts.read),
    "WFLW": Reader(wflw.LAYOUT, wflw.fits, wflw.read),
    "dlib": Reader(dlib.LAYOUT, dlib.fits, dlib.read),
    "COFW": Reader(cofw.LAYOUT, cofw.fits, cofw.read),
    "COFW .mat": Reader(matlab.LAYOUT, matlab.fits, matlab.read),
    "pixels": Reader(pixels.LAYOUT, pixels.fits, pixels.read),
}
