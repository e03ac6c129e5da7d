"""`lmopt passes`: the passes there are."""

from __future__ import annotations

from dataclasses import asdict

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import note, print_json


def passes(json: JsonOption = False) -> None:
    """List the installed passes with their options and defaults."""
    from lmopt.pipeline.catalog import installed

    found = installed().descriptions()
    if json:
        print_json({"passes": [asdict(info) for info in found]})
        return
    for info in found:
        typer.echo(f"{info.name}: {info.summary}")
        needs = f"needs {', '.join(info.needs)}; " if info.needs else ""
        typer.echo(f"    {needs}preserves {info.preserves}; from {info.owner}")
        for option in info.options:
            default = "required" if option.default is None else f"default {option.default}"
            typer.echo(f"    {option.name} ({option.type}, {default}): {option.summary}")
    note("next: lmopt compile DETECTOR --passes 'NAME{option=value},NAME' --out FILE.tflite")
