"""Faces side by side with their landmarks, numbers and boxes, to look an annotation over."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from lmopt.data.crop import Crop, cut, invert, transform
from lmopt.data.dataset import Dataset, Face
from lmopt.data.picture import read_picture
from lmopt.detector.contract import Contract, CropRule

SIDE = 320
POINT, HIDDEN, NUMBER, BOX = (60, 200, 90), (230, 60, 60), (255, 230, 0), (80, 150, 255)
"""Colours in RGB."""
_COLUMNS = 5


@dataclass(frozen=True)
class Tile:
    """A face with what is known about it drawn on it, as RGB bytes."""

    face: Face
    pixels: NDArray[np.uint8]


def tiles(
    faces: Dataset,
    *,
    numbers: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Tile, ...]:
    """Returns every face with landmarks, their numbers (yellow) and given box (blue).

    Landmarks are green, those known to be hidden red.

    Args:
        faces: The faces to draw, few.
        numbers: Whether landmarks get their numbers.
        on_progress: Called with the number of faces drawn.

    Raises:
        InputError: A picture cannot be read.
    """
    rule = CropRule("landmarks", 1.6)
    scheme = faces.scheme
    view = Contract(
        *(SIDE, SIDE, "rgb", (0.0,) * 3, (1.0,) * 3, rule, "view", "xyxy", "pixel", scheme)
    )
    drawn = []
    for face in faces.faces:
        drawn.append(Tile(face, _drawn(face, cut(read_picture(face), face, view), numbers)))
        if on_progress is not None:
            on_progress(len(drawn))
    return tuple(drawn)


def sheet_png(drawn: tuple[Tile, ...]) -> bytes:
    """Returns the faces as one PNG picture, five in a row."""
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    canvas = np.zeros((rows, SIDE, columns, SIDE, 3), np.uint8)
    for place, tile in enumerate(drawn):
        canvas[place // columns, :, place % columns] = tile.pixels
    return _encoded(canvas.reshape(rows * SIDE, columns * SIDE, 3), ".png")


def sheet_html(drawn: tuple[Tile, ...], title: str) -> str:
    """Returns the faces as one self-contained page with id, split, labels and place of each."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("lmopt.report").joinpath("contact_sheet.html").read_text()
    )
    cards = [
        {
            "picture": b64encode(_encoded(tile.pixels, ".jpg")).decode(),
            "id": tile.face.id,
            "split": tile.face.split,
            "labels": ", ".join(f"{name} {value:g}" for name, value in tile.face.labels.items()),
            "where": tile.face.where,
        }
        for tile in drawn
    ]
    return template.render(title=title, side=SIDE, cards=cards)


def _drawn(face: Face, crop: Crop, numbers: bool) -> NDArray[np.uint8]:
    import cv2

    canvas = np.ascontiguousarray(crop.pixels)
    if face.box is not None:
        corners = transform(invert(crop.to_picture), np.array(face.box).reshape(2, 2))
        (x0, y0), (x1, y1) = (corners * SIDE - 0.5).round().astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), BOX, 1)
    for number, (x, y) in enumerate((crop.landmarks * SIDE - 0.5).tolist()):
        tone = POINT if face.visible is None or face.visible[number] else HIDDEN
        cv2.circle(canvas, (round(x * 16), round(y * 16)), 28, tone, -1, cv2.LINE_AA, shift=4)
        if numbers:
            place = (round(x) + 3, round(y) - 2)
            cv2.putText(
                canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.28, NUMBER, 1, cv2.LINE_AA
            )
    return canvas


def _encoded(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
    assert done
    return data.tobytes()
