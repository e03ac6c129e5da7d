"""`lmopt sensitivity`: where quantization costs accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmopt.cli.options import ContractOption, DataOption, JsonOption, SeedOption, SourceArgument
from lmopt.cli.terminal import ProgressView, console, note, print_json, table

if TYPE_CHECKING:
    from lmopt.scoring.sensitivity import Sensitivity

SHOWN_TENSORS = 8


def sensitivity(
    detector: SourceArgument,
    data: DataOption = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="int8 (default) or uint8: fold-batchnorm,quantize-STORAGE.",
            show_default=False,
        ),
    ] = None,
    passes: Annotated[
        str | None,
        typer.Option(
            "--passes",
            metavar="PIPELINE",
            help="Instead of --storage; its last pass quantizes: prune{...},quantize-int8{...}.",
            show_default=False,
        ),
    ] = None,
    segments: Annotated[
        int, typer.Option("--segments", help="Parts the graph is cut into, each tried alone.")
    ] = 16,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write JSON and a page with the worst faces there; the same command resumes.",
            show_default=False,
        ),
    ] = None,
    contract: ContractOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Show what quantization costs, per tensor, part and face, on validation faces."""
    import lmopt
    from lmopt.files import require_writable
    from lmopt.report.sensitivity import write_sensitivity

    pipeline = _pipeline(storage, passes)
    if out is not None:
        require_writable(out / "sensitivity.json")
    with ProgressView() as view:
        found = lmopt.sensitivity(
            detector,
            data,
            passes=pipeline,
            segments=segments,
            contract=contract,
            seed=seed,
            cache=None if out is None else out / "cache",
            listen=view,
        )
    written = () if out is None else write_sensitivity(found, out)
    if json:
        files = {"files": written} if written else {}
        print_json({**found.to_json(), **files})
        return
    _show(found)
    if not written:
        note("next: --out DIR draws these faces")
    note("next: quantize-mixed leaves the costly parts in float32")
    for path in written:
        typer.echo(f"wrote {path}")


def _pipeline(storage: str | None, passes: str | None) -> str:
    from lmopt.errors import UsageError

    if passes is not None:
        if storage is not None:
            raise UsageError(
                "--storage besides --passes", where="--storage", hint="name it in the pipeline"
            )
        return passes
    if storage not in (None, "int8", "uint8"):
        raise UsageError(
            f"'{storage}' is no storage",
            where="--storage",
            hint="choose int8 or uint8; others by --passes fold-batchnorm,quantize-int16",
        )
    return f"fold-batchnorm,quantize-{storage or 'int8'}"


def _show(found: Sensitivity) -> None:
    from lmopt.report.sensitivity import (
        COST_HEADINGS,
        TENSOR_HEADINGS,
        cost_cells,
        tensor_cells,
    )

    typer.echo(
        f"{found.detector}, {found.pipeline}: {found.faces} validation faces of {found.data}, "
        f"float NME {found.float_nme_percent:.3f} %"
    )
    parts = table("", "part, quantized alone", *COST_HEADINGS, right=COST_HEADINGS, title="parts")
    for number, part in enumerate(found.segments):
        parts.add_row(str(number), part.name, *cost_cells(part.alone))
    parts.add_row("", "everything", *cost_cells(found.whole))
    console().print(parts)
    noisy = sorted(found.tensors, key=lambda tensor: tensor.own_snr_db)[:SHOWN_TENSORS]
    tensors = table(
        *TENSOR_HEADINGS, right=TENSOR_HEADINGS[3:], title=f"the {len(noisy)} noisiest grids"
    )
    for tensor in noisy:
        tensors.add_row(*tensor_cells(tensor))
    console().print(tensors)
    worst = (f"{one.face} {one.shift_percent:.1f} %" for one in found.worst[:3])
    typer.echo(f"largest shift of a landmark: {', '.join(worst)}")
