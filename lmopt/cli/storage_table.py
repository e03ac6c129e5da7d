"""The table of storage forms, as `optimize` and `storage` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lmopt.cli.terminal import console, table

if TYPE_CHECKING:
    from lmopt.exploration.storage import StorageComparison


def show_storage(found: StorageComparison) -> None:
    """Prints which form is chosen, why, and what every form costs."""
    from lmopt.report import storage

    typer.echo(storage.choice(found))
    *names, _ = storage.columns(found)
    shown = table(*names, right=tuple(names[1:]))
    rows = [storage.cells(row, found) for row in found.rows]
    for cells in rows:
        shown.add_row(*cells[:-1])
    console().print(shown)
    # Rules are sentences: they stand below, whole.
    for name, *_, reason in rows:
        typer.echo(f"  {name}: {reason}")
    for line in storage.remarks(found):
        typer.echo(line)
