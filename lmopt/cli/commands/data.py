"""`lmopt data`: what annotated faces there are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import ProgressView, console, print_json, table

app = typer.Typer(help="Look at annotated faces.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look at annotated faces."""


@app.command()
def stats(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Folders; none means the rendered faces."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count the faces of every source by split."""
    from lmopt.data.dataset import summary
    from lmopt.flow.sources import as_faces, kind_of_faces

    with ProgressView() as view:
        faces = as_faces(paths, None, view)
    rows = summary(faces)
    kind = kind_of_faces(paths or ())
    if json:
        print_json(
            {
                "name": faces.name,
                "kind": kind,
                "faces": len(faces),
                "landmarks": faces.scheme.count,
                "scheme": faces.scheme.name,
                "digest": faces.digest,
                "sources": [asdict(row) for row in rows],
            }
        )
        return
    numbers = ("train", "validation", "test", "with box")
    shown = table("source", *numbers, right=numbers)
    for row in rows:
        shown.add_row(row.source, *map(str, (row.train, row.validation, row.test, row.boxes)))
    console().print(shown)
    typer.echo(
        f"{len(faces)} {kind}, {faces.scheme.count} landmarks ({faces.scheme.name}), "
        f"digest {faces.digest}"
    )
