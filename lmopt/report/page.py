"""A result as one self-contained HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files

from lmopt.exploration.result import OptimizeResult
from lmopt.report import storage, summary
from lmopt.report.overlay import Strip


def page(result: OptimizeResult, plot: bytes, some: Sequence[Strip], worst: Sequence[Strip]) -> str:
    """Returns the page; it loads nothing from elsewhere.

    Args:
        result: What was found.
        plot: The front as PNG.
        some: Faces with landmarks, per model.
        worst: Those on which what is recommended fails most, likewise.
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
        search=result.environment.get("search"),
        estimated=summary.is_estimated(result),
        busy=bool(result.environment.get("busy")),
        doubts=[
            text for key in ("device_notes", "doubts") for text in result.environment.get(key, ())
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
        choices=summary.choices(result),
        albums=[
            {"title": title, "strips": [_shown(strip) for strip in strips]}
            for title, strips in (
                ("Landmarks on test faces", some),
                (f"Where {pick} fails most", worst),
            )
            if strips
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


def _shown(strip: Strip) -> dict[str, object]:
    pictures = zip(strip.pictures, strip.captions, strict=True)
    return {
        "title": strip.title,
        "pictures": [{"data": _base64(data), "caption": text} for data, text in pictures],
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
