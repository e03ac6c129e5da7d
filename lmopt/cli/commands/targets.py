"""`lmopt targets`: the devices there are, and every number of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import console, note, print_json, table

if TYPE_CHECKING:
    from lmopt.target.profile import Target


def targets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A target or a TOML file.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the targets, or show every number of one with unit, kind and source."""
    from lmopt.target.catalog import installed, load_target

    if name is not None:
        from lmopt.flow.host_profile import HOST, known_host

        _show(known_host() if name == HOST else load_target(name), json)
        return
    found = [load_target(known) for known in sorted(installed())]
    if json:
        print_json({"targets": [_document(target) for target in found]})
        return
    shown = table("target", "engine", "storage, fastest first", "device")
    for target in found:
        shown.add_row(target.name, target.engine, ", ".join(target.storage), target.title)
    console().print(shown)
    note("next: lmopt targets NAME; lmopt optimize --target NAME")


def _show(target: Target, json: bool) -> None:
    if json:
        print_json(_document(target))
        return
    typer.echo(f"{target.name}: {target.title}")
    typer.echo(f"  engine    {target.engine}")
    typer.echo(f"  storage   {', '.join(target.storage)} (fastest first)")
    typer.echo(f"  threads   {', '.join(map(str, target.threads))}")
    typer.echo(f"  fallback  {target.fallback or 'none: what the engine refuses is an error'}")
    typer.echo(f"  ops       {', '.join(sorted(target.supported_ops))}")
    typer.echo("  pipelines")
    for text in target.pipelines:
        typer.echo(f"    {text}")
    for text in target.notes:
        typer.echo(f"  note: {text}")
    if not target.quantities:
        from lmopt.flow.host_profile import HOW

        note(f"no numbers of this machine yet; next: {HOW}")
        return
    shown = table("quantity", "value", "unit", "kind", "source", right=("value",))
    for key, quantity in target.quantities.items():
        shown.add_row(key, f"{quantity.value:g}", quantity.unit, quantity.kind, quantity.source)
    console().print(shown)


def _document(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "title": target.title,
        "engine": target.engine,
        "storage": list(target.storage),
        "threads": list(target.threads),
        "fallback": target.fallback,
        "supported_ops": sorted(target.supported_ops),
        "pipelines": list(target.pipelines),
        "notes": list(target.notes),
        "quantities": {
            key: {"value": q.value, "unit": q.unit, "kind": q.kind, "source": q.source}
            for key, q in target.quantities.items()
        },
    }
