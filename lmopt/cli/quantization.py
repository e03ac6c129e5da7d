"""The tables of `lmopt inspect --quantization`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lmopt.cli.terminal import console, note, table

if TYPE_CHECKING:
    from lmopt.flow.quantization import LandmarkReport, QuantizationReport, TensorReport

_GRID: tuple[str, ...] = ("scale", "zero point", "range")
_ERRORS: tuple[str, ...] = (
    "bound",
    "bound within grids",
    "expected rms",
    "measured rms",
    "measured largest",
)


def show_quantization(report: QuantizationReport) -> None:
    """Prints grids, and errors where there is a float model."""
    if not any(row.scale for row in report.tensors):
        typer.echo(f"nothing in {report.name} is quantized")
        return
    errors = _ERRORS[: 0 if report.against is None else 5 if report.faces else 3]
    shown = table("tensor", "op", "type", *_GRID, *errors, right=("zero point", *errors))
    for row in report.tensors:
        shown.add_row(row.name, row.op, row.type, *_grid(row), *_errors(row)[: len(errors)])
    console().print(shown)
    for reason in dict.fromkeys(row.reason for row in report.tensors if row.reason):
        typer.echo(f"no bound: {reason}")
    if report.landmarks is not None:
        _show_landmarks(report.landmarks, report.faces)
    if report.against is None:
        note("next: --against FLOAT_MODEL shows how far each tensor can be from the float model")


def _grid(row: TensorReport) -> tuple[str, str, str]:
    if row.scale is None:
        return "", "", ""
    return f"{row.scale:.4g}", str(row.zero_point), f"{row.low:.4g} .. {row.high:.4g}"


def _errors(row: TensorReport) -> tuple[str, ...]:
    numbers = (
        row.bound, row.bound_within_grids, row.expected_rms, row.measured_rms,
        row.measured_largest,
    )  # fmt: skip
    return tuple("" if number is None else f"{number:.3g}" for number in numbers)


def _show_landmarks(found: LandmarkReport, faces: int) -> None:
    rows = {
        "bound, any picture": (found.bound_px, found.bound_nme),
        "bound within grids": (found.bound_within_grids_px, found.bound_within_grids_nme),
        "expected": (found.expected_px, found.expected_nme),
        f"measured, {faces} faces": (found.measured_px, found.measured_nme),
    }
    for name, (pixels, points) in rows.items():
        if pixels is not None:
            nme = "" if points is None else f", {points:.3g} points of NME"
            typer.echo(f"landmarks  {name:24} {pixels:.3g} px{nme}")
