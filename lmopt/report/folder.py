"""The reports of a run, written to its output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmopt.data.dataset import Dataset
from lmopt.detector.contract import Contract
from lmopt.exploration.result import OptimizeResult
from lmopt.files import write_atomically
from lmopt.report.json_document import json_text
from lmopt.report.overlay import Strip, overlays, some_faces, worst_faces
from lmopt.report.page import page
from lmopt.report.plot import front_png
from lmopt.report.summary import recommended

FACES = 6
"""Faces with landmarks on the page."""


@dataclass(frozen=True)
class Reports:
    """Absolute paths of what was written."""

    json: Path
    plot: Path
    page: Path


def write_reports(
    result: OptimizeResult, folder: Path, contract: Contract, faces: Dataset | None
) -> Reports:
    """Returns the paths of `front.json`, `front.png` and `report.html`, each written whole.

    Args:
        result: What was found.
        folder: Where to write.
        contract: Of the models.
        faces: Test faces, a few of which are drawn on the page; None draws none.

    Raises:
        InputError: The folder cannot be written, or a picture cannot be read.
        BackendError: The runtime fails on a file.
    """
    root = folder.resolve()
    reports = Reports(root / "front.json", root / "front.png", root / "report.html")
    write_atomically(reports.json, (json_text(result.to_json()) + "\n").encode())
    plot = front_png(result)
    write_atomically(reports.plot, plot)
    models = {c.pipeline: Path(c.trained.model) for c in (result.baseline, *result.front)}
    some: tuple[Strip, ...] = ()
    worst: tuple[Strip, ...] = ()
    if faces is not None:
        some = overlays(models, contract, some_faces(faces, FACES))
        pick = recommended(result)
        compared = {c.pipeline: models[c.pipeline] for c in (result.baseline, pick)}
        failing = worst_faces(faces, models[pick.pipeline], contract, FACES)
        worst = overlays(compared, contract, failing)
    write_atomically(reports.page, page(result, plot, some, worst).encode())
    return reports
