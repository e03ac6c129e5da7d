"""What quantization costs, as JSON and as one self-contained HTML page."""

from __future__ import annotations

import math
from base64 import b64encode
from importlib.resources import files
from pathlib import Path

from lmopt.files import write_atomically
from lmopt.report.json_document import json_text
from lmopt.report.overlay import FOUND, TRUTH, face_jpeg
from lmopt.scoring.sensitivity import Cost, Sensitivity, TensorSensitivity

SIDE = 336

COST_HEADINGS = ("shift %", "expected drop", "NME change")
TENSOR_HEADINGS = (
    *("tensor", "op", "type", "low", "high"),
    *("clipped %", "own SNR dB", "SNR dB", "part"),
)


def cost_cells(cost: Cost) -> tuple[str, ...]:
    """Returns a cost as texts in the order of `COST_HEADINGS`."""
    return (f"{cost.shift_percent:.3f}", f"{cost.expected_drop:.4f}", f"{cost.nme_change:+.4f}")


def tensor_cells(tensor: TensorSensitivity) -> tuple[str, ...]:
    """Returns a tensor as texts in the order of `TENSOR_HEADINGS`."""
    return (
        *(f"%{tensor.name}", tensor.op, tensor.type),
        *(f"{tensor.low:.3g}", f"{tensor.high:.3g}", f"{tensor.clipped_percent:.3f}"),
        *(_decibels(tensor.own_snr_db), _decibels(tensor.snr_db), str(tensor.segment)),
    )


def _decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "-"


def page(found: Sensitivity) -> str:
    """Returns the page; it loads nothing from elsewhere."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("lmopt.report").joinpath("sensitivity.html").read_text()
    )
    most = max((part.alone.expected_drop for part in found.segments), default=0.0)
    return template.render(
        found=found,
        cost_headings=COST_HEADINGS,
        whole=cost_cells(found.whole),
        parts=[
            {
                "number": number,
                "name": part.name,
                "cells": cost_cells(part.alone),
                "percent": round(100 * part.alone.expected_drop / most) if most else 0,
            }
            for number, part in enumerate(found.segments)
        ],
        tensor_headings=TENSOR_HEADINGS,
        tensors=[tensor_cells(tensor) for tensor in found.tensors],
        faces=[
            {
                "picture": b64encode(
                    face_jpeg(
                        one.pixels,
                        ((one.float_points, TRUTH), (one.points, FOUND)),
                        found.contract,
                        SIDE,
                    )
                ).decode(),
                "text": f"{one.face}: landmark {one.landmark} moves {one.shift_percent:.1f} %, "
                f"NME {one.float_nme_percent:.2f} to {one.nme_percent:.2f} %",
            }
            for one in found.worst
        ],
    )


def write_sensitivity(found: Sensitivity, folder: Path) -> tuple[Path, ...]:
    """Returns the absolute paths of `sensitivity.json` and `sensitivity.html`, each written whole.

    Raises:
        InputError: The folder cannot be written.
    """
    root = folder.resolve()
    contents = {
        "sensitivity.json": json_text(found.to_json()) + "\n",
        "sensitivity.html": page(found),
    }
    for name, text in contents.items():
        write_atomically(root / name, text.encode())
    return tuple(root / name for name in contents)
