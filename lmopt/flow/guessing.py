"""The use case behind `inspect --guess-contract`: which contract makes sense of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lmopt.codegen.tflite import emit
from lmopt.data.crop import Crops, cut_all
from lmopt.data.dataset import Dataset
from lmopt.detector.contract import (
    Color,
    Contract,
    CoordinateOrder,
    CoordinateUnit,
    CropRule,
)
from lmopt.detector.detector import Detector
from lmopt.detector.document import contract_to_document
from lmopt.errors import InputError
from lmopt.flow.events import Activity, Listener, ignore
from lmopt.flow.folding import folded
from lmopt.flow.sources import Faces, as_detector, as_faces, is_model_file, read_bytes
from lmopt.runtime.runner import Runner, TensorInfo, from_model_output, to_model_input
from lmopt.scoring.metrics import default_normaliser, nme_percent

FACES = 60
MARGINS = (1.0, 1.1, 1.25, 1.4, 1.5)
RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Statistics of ImageNet in RGB bytes.

Source: torchvision's models, (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225) times 255.
"""


@dataclass(frozen=True)
class Guess:
    """A plausible contract and the NME it gives on some training faces, in percent."""

    contract: Contract
    nme_percent: float

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "nme_percent": self.nme_percent,
            "contract": contract_to_document(self.contract),
        }


def guess_contract(
    source: str | Path | Detector, data: Faces = None, *, listen: Listener = ignore
) -> tuple[Guess, ...]:
    """Returns plausible contracts of a model, best first.

    The model is run once on up to 60 training faces per normalisation, colour order and crop
    margin; every coordinate order and unit is then read from the same answers.

    Args:
        source: A .tflite, a Keras file, or a detector; a contract it has is not looked at.
        data: Annotated folders, or a dataset; None means the embedded rendered faces.
        listen: Receives progress events.

    Raises:
        InputError: The model takes no single picture, or no output fits the landmarks.
        BackendError: The runtime fails on the file.
    """
    faces = _some(as_faces(data, None, listen).split("train"))
    if not isinstance(source, Detector) and is_model_file(source):
        model = read_bytes(Path(source))
    else:
        detector = as_detector(source, None)
        detector.require_weights()
        model = emit(folded(detector.graph))
    with Runner(model, name=str(getattr(source, "name", source))) as runner:
        image, outputs = _border(runner, faces, str(getattr(source, "name", source)))
        found: list[Guess] = []
        inputs = list(_inputs(image, outputs[0].name, faces))
        cropped: dict[tuple[Color, CropRule], Crops] = {}
        for done, contract in enumerate(inputs):
            listen(Activity("trying contracts", done, len(inputs)))
            key = (contract.color, contract.crop)
            if key not in cropped:
                cropped[key] = cut_all(faces, contract)
            crops = cropped[key]
            answer = runner.run(
                {image.name: to_model_input(contract.normalize(crops.pixels), image)}
            )
            for info in outputs:
                values = from_model_output(answer[info.name], info)
                found += _read(replace(contract, output=info.name), values, crops)
    return tuple(sorted(found, key=lambda guess: guess.nme_percent))


def _some(faces: Dataset) -> Dataset:
    step = -(-len(faces) // FACES)
    chosen = {face.id for face in faces.faces[::step]}
    return faces.keep(lambda face: face.id in chosen)


def _border(runner: Runner, faces: Dataset, where: str) -> tuple[TensorInfo, list[TensorInfo]]:
    shapes = [info.shape for info in runner.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        raise InputError(
            f"the model's inputs are {[list(shape) for shape in shapes]}, wanted one picture "
            "[1, height, width, 1 or 3]",
            where=where,
            hint="lmopt knows detectors that take one picture",
        )
    wanted = 2 * faces.scheme.count
    outputs = [info for info in runner.outputs if int(np.prod(info.shape)) == wanted]
    if not outputs:
        sizes = ", ".join(f"'{i.name}' {list(i.shape)}" for i in runner.outputs)
        raise InputError(
            f"no output gives {wanted} numbers for the {faces.scheme.count} landmarks of the "
            f"faces; there are {sizes}",
            where=where,
            hint="give --data annotated like the model",
        )
    return runner.inputs[0], outputs


def _inputs(image: TensorInfo, output: str, faces: Dataset) -> Iterator[Contract]:
    _, height, width, channels = image.shape
    colors: tuple[Color, ...] = ("gray",) if channels == 1 else ("rgb", "bgr")
    for color in colors:
        for margin in MARGINS:
            for mean, std in _normalisations(color).values():
                yield Contract(
                    height=height,
                    width=width,
                    color=color,
                    mean=mean,
                    std=std,
                    crop=CropRule("landmarks", margin, True),
                    output=output,
                    order="xyxy",
                    unit="unit",
                    scheme=faces.scheme,
                )


def _normalisations(
    color: Color,
) -> Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    count = 1 if color == "gray" else 3
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = (RGB_MEAN, RGB_STD)
    if color == "bgr":
        statistics = (RGB_MEAN[::-1], RGB_STD[::-1])
    elif color == "gray":
        statistics = ((float(np.mean(RGB_MEAN)),), (float(np.mean(RGB_STD)),))
    return {
        "0..1": ((0.0,) * count, (255.0,) * count),
        "-1..1": ((127.5,) * count, (127.5,) * count),
        "0..255": ((0.0,) * count, (1.0,) * count),
        "ImageNet": statistics,
    }


def _read(contract: Contract, values: NDArray[np.float32], crops: Crops) -> list[Guess]:
    found = []
    scheme = contract.scheme
    for order in get_args(CoordinateOrder):
        for unit in get_args(CoordinateUnit):
            tried = replace(contract, order=order, unit=unit)
            # Square crops: errors in unit coordinates have the same ratios as in the picture.
            errors = nme_percent(
                tried.decode(values), crops.landmarks, scheme, default_normaliser(scheme)
            )
            mean = float(errors.mean())
            if np.isfinite(mean):
                found.append(Guess(tried, mean))
    return found
