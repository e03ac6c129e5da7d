"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DETECTOR|FILE",
        help="Zoo detector (pfld-0.25, pfld-0.25@300w) or a .keras, .h5 or .tflite file.",
        show_default=False,
    ),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Folder of annotated faces; repeatable. 'rendered' means the embedded faces.",
        show_default=False,
    ),
]
ContractOption = Annotated[
    Path | None,
    typer.Option(
        "--contract",
        metavar="FILE.toml",
        help="What a model of your own eats and gives.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of everything random.")]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="DETECTOR|FILE",
        help="Who teaches passes that distill; default the detector itself, as it is in float.",
        show_default=False,
    ),
]
