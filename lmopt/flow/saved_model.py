"""SavedModels of a detector, in float32 and float16, for runtimes that take no .tflite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.detector.document import contract_to_json
from lmopt.errors import BackendError
from lmopt.files import whole_folder
from lmopt.flow.workbench import Workbench
from lmopt.frontend.savedmodel import CONTRACT_FILE
from lmopt.ir.graph import Graph
from lmopt.runtime.runner import Runner
from lmopt.scoring.metrics import nme_percent
from lmopt.scoring.protocols import to_picture
from lmopt.target.profile import Target
from lmopt.training.saved_model import FORMS, export

FACES = 32
"""Validation faces that the answers are compared on."""
LIMITS: Mapping[str, float] = {"float32": 0.01, "float16": 0.5}
"""How far the landmarks may lie from the .tflite's on average, in percent of the crop's side."""
_RECORD = "comparison.json"


@dataclass(frozen=True)
class SavedModel:
    """A written SavedModel, and how its answers compare with those of the float .tflite.

    Attributes:
        form: float32 or float16; inputs and outputs are float32 in both.
        path: Its folder.
        mean_percent, largest_percent: Distance of its landmarks from the .tflite's, in percent of
            the crop's side.
        pictures: What both were shown, in words.
        nme_change: Points of NME that it loses against the .tflite on these faces; None when what
            both were shown were no faces.
    """

    form: str
    path: str
    mean_percent: float
    largest_percent: float
    pictures: str
    nme_change: float | None

    def __str__(self) -> str:
        nme = "" if self.nme_change is None else f", NME {self.nme_change:+.3f} points"
        return (
            f"SavedModel {self.form}: landmarks {self.mean_percent:.2g} % of the crop from the "
            f".tflite's on average, {self.largest_percent:.2g} % at most{nme}, on {self.pictures}"
        )


def takes_saved_models(target: Target) -> bool:
    """Returns whether a target runs SavedModels and no .tflite."""
    return target.runtime is not None and target.runtime.format == "savedmodel"


def write_saved_models(bench: Workbench, graph: Graph, folder: Path) -> tuple[SavedModel, ...]:
    """Returns the SavedModels of a graph, written whole and compared with its .tflite before.

    Args:
        bench: Whose validation faces are shown to both; without faces drawn pictures are.
        graph: Float, with weights.
        folder: Is to hold `float32` and `float16`; a new place.

    Raises:
        PassError: The graph holds integers.
        InputError: There is something at the folder, or it cannot be written.
        BackendError: TensorFlow fails, or the answers differ.
    """
    contract = bench.detector.require_contract()
    shown = _shown(bench, contract)
    source = graph.inputs[0].name
    feeds = {source: contract.normalize(shown.pixels)}
    with Runner(bench.file(graph)) as runner:
        wanted = contract.decode(runner.run(feeds)[contract.output])
    with whole_folder(folder) as place:
        answers = export(graph, place, feeds)
        made = []
        for form in FORMS:
            found = contract.decode(answers[form][contract.output])
            made.append(_compared(form, folder / form, found, wanted, shown))
            extra = place / form / CONTRACT_FILE
            extra.parent.mkdir(exist_ok=True)
            extra.write_text(contract_to_json(contract), encoding="utf-8")
        record = json.dumps([asdict(one) for one in made], indent=2)
        (place / _RECORD).write_text(record, encoding="utf-8")
    return tuple(made)


def saved_models_at(folder: Path) -> tuple[SavedModel, ...]:
    """Returns the SavedModels that were written to a folder, as they were compared then."""
    rows = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    return tuple(SavedModel(**row) for row in rows)


@dataclass(frozen=True, eq=False)
class _Shown:
    """Pictures for both models; with faces also what turns their landmarks into an NME."""

    pixels: NDArray[np.uint8]
    pictures: str
    bench: Workbench | None

    def nme_percent(self, points: NDArray[np.float64]) -> float | None:
        if self.bench is None:
            return None
        protocol = self.bench.protocol("validation")
        count = len(points)
        placed = to_picture(points, protocol.crops.to_picture[:count])
        scheme = protocol.contract.scheme
        errors = nme_percent(placed, protocol.truth[:count], scheme, protocol.normaliser)
        return float(errors.mean())


def _shown(bench: Workbench, contract: Contract) -> _Shown:
    if bench.faces is not None:
        pixels = bench.protocol("validation").crops.pixels[:FACES]
        return _Shown(pixels, f"{len(pixels)} validation faces", bench)
    shape = (FACES, contract.height, contract.width, contract.channels)
    drawn = np.random.default_rng(bench.seed).integers(0, 256, shape, np.uint8)
    return _Shown(drawn, f"{FACES} pictures of noise (no faces were given)", None)


def _compared(
    form: str,
    path: Path,
    found: NDArray[np.float64],
    wanted: NDArray[np.float64],
    shown: _Shown,
) -> SavedModel:
    distance = 100 * np.linalg.norm(found - wanted, axis=-1)
    mean = float(distance.mean())
    if not mean <= LIMITS[form]:  # NaN is no answer either
        raise BackendError(
            f"its landmarks lie {mean:.3g} % of the crop from those of the .tflite on average, "
            f"allowed {LIMITS[form]:g} %",
            where=f"SavedModel {form}",
            hint="float16 ends at 65504 and has 11 bits: ship float32"
            if form == "float16"
            else "report this: both are to compute the same graph",
        )
    before, after = shown.nme_percent(wanted), shown.nme_percent(found)
    change = None if before is None or after is None else after - before
    return SavedModel(form, str(path), mean, float(distance.max()), shown.pictures, change)
