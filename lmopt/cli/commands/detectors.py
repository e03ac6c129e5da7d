"""`lmopt detectors`: the detectors there are."""

from __future__ import annotations

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import console, note, print_json, table


def detectors(json: JsonOption = False) -> None:
    """List the zoo's detectors with their parameters and the weights that come with them."""
    from lmopt import zoo

    found = [
        (name, zoo.load(f"{name}@{zoo.NO_WEIGHTS}").graph.parameters, zoo.shipped_weights(name))
        for name in zoo.DETECTORS
    ]
    titles = [entry.title for entry in zoo.DETECTORS.values()]
    if json:
        listed = [
            {"name": name, "title": title, "parameters": parameters, "weights": weights}
            for (name, parameters, weights), title in zip(found, titles, strict=True)
        ]
        print_json({"detectors": listed})
        return
    shown = table("detector", "parameters", "weights", "what it is", right=("parameters",))
    for (name, parameters, weights), title in zip(found, titles, strict=True):
        shown.add_row(name, f"{parameters:,}", ", ".join(weights) or "none", title)
    console().print(shown)
    typer.echo(
        "NAME@WEIGHTS takes weights of the list or a .npz that `lmopt train` wrote, NAME@none\n"
        "none; NAME alone takes synthetic weights where there are any."
    )
    note("next: lmopt inspect NAME; lmopt train NAME --data FACES")
