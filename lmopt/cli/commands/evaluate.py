"""`lmopt evaluate`: NME of the bytes that ship."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmopt.cli.options import (
    ContractOption,
    DataOption,
    DetectorModelOption,
    JsonOption,
    SourceArgument,
    check_detector,
)
from lmopt.cli.terminal import ProgressView, print_json


def evaluate(
    detector: SourceArgument,
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    contract: ContractOption = None,
    normaliser: Annotated[
        str | None,
        typer.Option(
            "--normaliser",
            help="inter-ocular, inter-pupil, box or box-diagonal.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            "--box",
            help="Crop from the box of the 'landmarks', the same 'jittered' as by a face detector, "
            "the 'given' one of the data, or that of a 'detector' (--detector-model).",
            show_default=False,
        ),
    ] = None,
    detector_model: DetectorModelOption = None,
    json: JsonOption = False,
) -> None:
    """Score a detector or .tflite on annotated faces; without --data on rendered ones."""
    import lmopt
    from lmopt.data.dataset import Split
    from lmopt.detector.contract import BoxSource
    from lmopt.flow.sources import kind_of_faces
    from lmopt.scoring.metrics import Normaliser

    _one_of("--split", split, Split)
    if check_detector(box, detector_model):
        box = None
    _one_of("--box", box, BoxSource)
    _one_of("--normaliser", normaliser, Normaliser)
    with ProgressView() as view:
        score = lmopt.evaluate(
            detector,
            data,
            split=split,  # type: ignore[arg-type]  # checked above, as the next ones
            contract=contract,
            normaliser=normaliser,  # type: ignore[arg-type]
            box=box,  # type: ignore[arg-type]
            detector_model=detector_model,
            listen=view,
        )
    kind = kind_of_faces(data or ())
    if json:
        print_json({"detector": detector, "data": kind, **score.to_json()})
        return
    typer.echo(f"NME            {score.nme_percent:.3f} % ({score.normaliser})")
    typer.echo(f"AUC at 8 %     {score.auc:.3f}")
    typer.echo(f"failures       {score.failure_rate_percent:.1f} % of faces above 8 %")
    skipped = f", {score.skipped} without a box left out" if score.skipped else ""
    typer.echo(f"faces          {score.faces} {kind} of {score.dataset}, {score.split}{skipped}")
    typer.echo(f"crop           {score.crop}")
    typer.echo(f"model digest   {score.digest}")


def _one_of(option: str, value: str | None, known: Any) -> None:
    from typing import get_args

    from lmopt.errors import UsageError

    choices = get_args(known)
    if value is not None and value not in choices:
        raise UsageError(
            f"'{value}' is no {option.removeprefix('--')}",
            where=option,
            hint=f"choose {', '.join(choices)}",
        )
