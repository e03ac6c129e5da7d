"""`lmopt evaluate`: how well the bytes that ship find landmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmopt.cli.options import (
    SOURCE,
    ContractOption,
    DataOption,
    DetectorModelOption,
    JsonOption,
    LabelsOption,
    SourceArgument,
    check_detector,
)
from lmopt.cli.terminal import ProgressView, console, print_json, table

if TYPE_CHECKING:
    from lmopt.data.dataset import Box
    from lmopt.scoring.evaluation import Evaluation
    from lmopt.scoring.rows import Scored
    from lmopt.scoring.suite import ProtocolName


def evaluate(
    detector: SourceArgument,
    data: DataOption = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="nme (default), categories, boxes, resolution, blur, occlusion, stability, "
            "regions or all; repeatable.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar=SOURCE,
            help="Another model: compared face by face, with a 95 % interval.",
            show_default=False,
        ),
    ] = None,
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
    labels: LabelsOption = None,
    stability_faces: Annotated[
        int, typer.Option("--stability-faces", help="Faces that 'stability' looks at.")
    ] = 10,
    copies: Annotated[int, typer.Option("--copies", help="Noisy copies of each of them.")] = 200,
    frames: Annotated[
        Path | None,
        typer.Option(
            "--frames",
            metavar="PATH",
            help="Folder of frames, or a video, of one still face for 'stability'.",
            show_default=False,
        ),
    ] = None,
    frame_box: Annotated[
        str | None,
        typer.Option(
            "--frame-box",
            metavar="X0,Y0,X1,Y1",
            help="That face's box in pixels.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of jitter, occlusion and noise.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write JSON, a CSV per protocol and plots there.",
            show_default=False,
        ),
    ] = None,
    detector_model: DetectorModelOption = None,
    json: JsonOption = False,
) -> None:
    """Score a detector or model file on annotated faces; without --data on rendered ones."""
    import lmopt
    from lmopt.data.dataset import Split
    from lmopt.detector.contract import BoxSource
    from lmopt.files import require_writable
    from lmopt.flow.sources import kind_of_faces
    from lmopt.report.evaluation import write_evaluation
    from lmopt.scoring.metrics import Normaliser
    from lmopt.scoring.settings import Settings

    _one_of("--split", split, Split)
    if check_detector(box, detector_model):
        box = None
    _one_of("--box", box, BoxSource)
    _one_of("--normaliser", normaliser, Normaliser)
    settings = Settings(
        copies=copies,
        stability_faces=stability_faces,
        frames=frames,
        frame_box=None if frame_box is None else _box(frame_box),
        seed=seed,
    )
    if out is not None:
        require_writable(out / "evaluation.json")
    with ProgressView() as view:
        found = lmopt.evaluate_protocols(
            detector,
            data,
            protocols=protocol or ("nme",),
            against=against,
            split=split,  # type: ignore[arg-type]  # checked above, as the next ones
            contract=contract,
            normaliser=normaliser,  # type: ignore[arg-type]
            box=box,  # type: ignore[arg-type]
            detector_model=detector_model,
            labels=labels,
            settings=settings,
            listen=view,
        )
    written = () if out is None else write_evaluation(found, out)
    kind = kind_of_faces(data or ())
    if json:
        nme = _nme(found)
        files = {"files": written} if written else {}
        head = {} if nme is None else nme.score.to_json()
        print_json({"detector": detector, "data": kind, **head, **found.to_json(), **files})
        return
    for name in found.rows:
        _show(name, found, kind)
    for path in written:
        typer.echo(f"wrote {path}")


def _nme(found: Evaluation) -> Scored | None:
    from lmopt.scoring.rows import Scored

    return next((row for row in found.rows.get("nme", ()) if isinstance(row, Scored)), None)


def _show(name: ProtocolName, found: Evaluation, kind: str) -> None:
    from lmopt.report.evaluation import cells, headings, notes

    nme = _nme(found) if name == "nme" else None
    if nme is not None:
        _show_nme(nme, kind)
        if found.against is None:
            return
    title = f"{name}: {found.model}"
    title += f" against {found.against}" if found.against is not None else ""
    names = headings(name, found)
    shown = table(*names, title=title, right=names[1:])
    for line in cells(name, found):
        shown.add_row(*line)
    console().print(shown)
    for text in notes(name, found):
        typer.echo(text)
    if name == "nme":
        for comparison in found.comparisons.get(name, ()):
            if comparison is not None:
                changed = (f"{face} {change:+.2f}" for face, change in comparison.changed[:5])
                typer.echo(f"changed most   {', '.join(changed)}")


def _show_nme(row: Scored, kind: str) -> None:
    score = row.score
    typer.echo(f"NME            {score.nme_percent:.3f} % ({score.normaliser})")
    typer.echo(f"AUC at 8 %     {score.auc:.3f}")
    typer.echo(f"failures       {score.failure_rate_percent:.1f} % of faces above 8 %")
    typer.echo(f"accuracy       {row.accuracy:.3f} of coordinates on the true pixel of the input")
    worst = ", ".join(f"{face} {nme:.1f}" for face, nme in row.worst(3))
    typer.echo(f"worst          {worst}")
    skipped = f", {score.skipped} without a box left out" if score.skipped else ""
    typer.echo(f"faces          {score.faces} {kind} of {score.dataset}, {score.split}{skipped}")
    typer.echo(f"crop           {score.crop}")
    typer.echo(f"model digest   {score.digest}")


def _box(text: str) -> Box:
    from lmopt.errors import UsageError

    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"'{text}' is no box", where="--frame-box", hint="like 10,10,90,90"
        ) from None
    return (x0, y0, x1, y1)


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
