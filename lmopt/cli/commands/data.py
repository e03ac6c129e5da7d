"""`lmopt data`: annotated faces counted, shown, brought into one layout, and rendered."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmopt.cli.options import (
    DetectorModelOption,
    JsonOption,
    LabelsOption,
    SeedOption,
    StrictOption,
    check_detector,
)
from lmopt.cli.terminal import ProgressView, console, note, print_json, table

if TYPE_CHECKING:
    from lmopt.data.dataset import Dataset

app = typer.Typer(
    help="Look at annotated faces, convert and render them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PATH", help="Folders or tables; none means the rendered faces."),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="LABEL",
        help="Only faces with this label, such as 300-W's common, challenging, full.",
        show_default=False,
    ),
]


@app.callback()
def _group() -> None:
    """Look at annotated faces, convert and render them."""


@app.command()
def stats(
    paths: PathsArgument = None,
    labels: LabelsOption = None,
    only: OnlyOption = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Count the faces of every source by split, their labels, and what cannot be used."""
    from lmopt.data.dataset import summary
    from lmopt.flow.sources import kind_of_faces

    faces = _faces(paths, labels, only, strict)
    rows = summary(faces)
    kind = kind_of_faces(paths or ())
    having = Counter(
        name for face in faces.faces for name, value in face.labels.items() if value == 1.0
    )
    if json:
        print_json(
            {
                **_about(faces),
                "kind": kind,
                "labels": dict(sorted(having.items())),
                "sources": [asdict(row) for row in rows],
            }
        )
        return
    numbers = ("train", "validation", "test", "with box")
    shown = table("source", *numbers, right=numbers)
    for row in rows:
        shown.add_row(row.source, *map(str, (row.train, row.validation, row.test, row.boxes)))
    console().print(shown)
    if having:
        typer.echo("labels: " + ", ".join(f"{name} {n}" for name, n in sorted(having.items())))
    typer.echo(
        f"{len(faces)} {kind}, {faces.scheme.count} landmarks ({faces.scheme.name}), "
        f"digest {faces.digest}"
    )


@app.command()
def view(
    paths: PathsArgument = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Contact sheet: .html or .png.")
    ] = Path("faces.html"),
    faces: Annotated[
        int, typer.Option("--faces", min=1, help="How many, spread over the data.")
    ] = 40,
    numbers: Annotated[
        bool, typer.Option("--numbers/--no-numbers", help="Number the landmarks.")
    ] = True,
    labels: LabelsOption = None,
    only: OnlyOption = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Draw faces with landmarks, numbers and boxes on a contact sheet."""
    from lmopt.errors import UsageError
    from lmopt.files import require_writable, write_atomically
    from lmopt.flow.events import Activity
    from lmopt.report.contact_sheet import sheet_html, sheet_png, tiles
    from lmopt.report.overlay import some_faces

    if out.suffix.lower() not in {".html", ".png"}:
        raise UsageError(
            f"'{out}' is neither .html nor .png", where="--out", hint="end the name in one of them"
        )
    require_writable(out)
    all_faces = _faces(paths, labels, only, strict)
    chosen = some_faces(all_faces, faces)
    with ProgressView() as show:
        drawn = tiles(
            chosen,
            numbers=numbers,
            on_progress=lambda done: show(Activity("drawing", done, len(chosen))),
        )
    is_page = out.suffix.lower() == ".html"
    page = sheet_html(drawn, f"{len(drawn)} of {len(all_faces)} faces of {all_faces.name}")
    write_atomically(out, page.encode() if is_page else sheet_png(drawn))
    _written(out, {**_about(all_faces), "drawn": len(drawn)}, json, f"{len(drawn)} faces")


@app.command("import")
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Folders or tables; 'rendered' means the rendered faces."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="New folder; one below it per source.")
    ],
    labels: LabelsOption = None,
    only: OnlyOption = None,
    box: Annotated[
        str,
        typer.Option("--box", help="Boxes to write: the 'given' ones, or a 'detector's."),
    ] = "given",
    detector_model: DetectorModelOption = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Write faces of any readable format as images/ and landmarks.csv, without loss."""
    from lmopt.data.export import write_dataset
    from lmopt.errors import UsageError
    from lmopt.flow.evaluation import detected
    from lmopt.flow.events import Activity

    if box not in {"given", "detector"}:
        raise UsageError(f"'{box}' is no box", where="--box", hint="choose given, detector")
    by_detector = check_detector(box, detector_model)
    faces = _faces(paths, labels, only, strict)
    with ProgressView() as show:
        if by_detector and detector_model is not None:
            faces = detected(faces, detector_model, show)
        write_dataset(
            faces,
            out,
            on_progress=lambda done: show(Activity("writing faces", done, len(faces))),
        )
    _written(out, _about(faces), json, f"{len(faces)} faces")


@app.command()
def synth(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder.")],
    faces: Annotated[
        int, typer.Option("--faces", min=1, help="How many; a tenth each to validate and test.")
    ] = 1000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Render faces with exact landmarks and labels into images/ and landmarks.csv."""
    from lmopt.data.load import load_dataset
    from lmopt.data.synthetic.dataset import render_into
    from lmopt.flow.events import Activity

    held = faces // 10
    with ProgressView() as show:
        render_into(
            out,
            {"train": faces - 2 * held, "validation": held, "test": held},
            seed,
            lambda done: show(Activity("rendering faces", done, faces)),
        )
    made = load_dataset([out], strict=True)
    _written(out, {**_about(made), "seed": seed}, json, f"{len(made)} rendered faces")


def _faces(
    paths: list[Path] | None, labels: Path | None, only: str | None, strict: bool
) -> Dataset:
    from lmopt.data.labels import having
    from lmopt.flow.sources import as_faces

    with ProgressView() as show:
        faces = as_faces(paths, None, show, labels=labels, strict=strict)
    return faces if only is None else having(faces, only)


def _about(faces: Dataset) -> dict[str, Any]:
    return {
        "name": faces.name,
        "faces": len(faces),
        "landmarks": faces.scheme.count,
        "scheme": faces.scheme.name,
        "digest": faces.digest,
        "skipped": [{"where": error.where, "what": error.what} for error in faces.skipped],
    }


def _written(out: Path, about: dict[str, Any], json: bool, what: str) -> None:
    if json:
        print_json({**about, "out": str(out)})
        return
    note(f"{what}, digest {about['digest']}")
    typer.echo(str(out))
