"""`lmopt detectors`: the detectors there are."""

from __future__ import annotations

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import console, note, print_json, table


def detectors(json: JsonOption = False) -> None:
    """List the zoo's detectors with their parameters and the weights that come with them."""
    from lmopt import zoo

    found = [
        {
            "name": name,
            "title": entry.title,
            "parameters": zoo.load(f"{name}@{zoo.NO_WEIGHTS}").graph.parameters,
            "weights": list(zoo.shipped_weights(name)),
        }
        for name, entry in zoo.DETECTORS.items()
    ]
    if json:
        print_json({"detectors": found})
        return
    shown = table("detector", "parameters", "weights", "what it is", right=("parameters",))
    for each in found:
        weights = ", ".join(each["weights"]) or "none"
        shown.add_row(each["name"], f"{each['parameters']:,}", weights, each["title"])
    console().print(shown)
    typer.echo(
        "NAME@WEIGHTS takes weights of the list or a .npz that `lmopt train` wrote, NAME@none\n"
        "none; NAME alone takes synthetic weights where there are any."
    )
    note("next: lmopt inspect NAME; lmopt train NAME --data FACES")
