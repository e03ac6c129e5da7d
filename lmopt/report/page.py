"""A result as one self-contained HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files

from lmopt.exploration.result import OptimizeResult
from lmopt.report import storage, summary
from lmopt.report.overlay import Strip


def page(result: OptimizeResult, plot: bytes, strips: Sequence[Strip]) -> str:
    """Returns the page; it loads nothing from elsewhere.

    Args:
        result: What was found.
        plot: The front as PNG.
        strips: Faces with landmarks, per model.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("lmopt.report").joinpath("page.html").read_text())
    pick = summary.recommended(result).pipeline
    shown = [result.baseline, *result.front]
    return template.render(
        detector=result.detector,
        target=result.target,
        faces=summary.faces(result),
        where=summary.where(result),
        estimated=summary.is_estimated(result),
        busy=bool(result.environment.get("busy")),
        doubts=[
            text for key in ("phone_notes", "doubts") for text in result.environment.get(key, ())
        ],
        recommendation=summary.recommendation(result),
        plot=_base64(plot),
        columns=summary.columns(result),
        rows=[
            {
                "cells": summary.cells(row, result),
                "pick": row.role != "baseline" and row.pipeline == pick,
            }
            for row in summary.rows(result)
        ],
        storage=None
        if result.storage is None
        else {
            "choice": storage.choice(result.storage),
            "columns": storage.columns(result.storage),
            "rows": [storage.cells(row, result.storage) for row in result.storage.rows],
            "remarks": storage.remarks(result.storage),
        },
        strips=[
            {"title": strip.title, "pictures": [_base64(picture) for picture in strip.pictures]}
            for strip in strips
        ],
        others=[
            *(
                {"status": "dominated", "pipeline": d.candidate.pipeline, "reason": d.reason}
                for d in result.dominated
            ),
            *(f.to_json() for f in result.failures),
        ],
        files=[
            {"pipeline": c.pipeline, "digest": c.trained.digest, "path": c.trained.model}
            for c in dict.fromkeys(shown)
        ],
        environment=list(result.environment.items()),
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
