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

    shown = table(
        *storage.columns(found), title=storage.choice(found), right=storage.columns(found)[1:-1]
    )
    for row in found.rows:
        shown.add_row(*storage.cells(row, found))
    console().print(shown)
    for line in storage.remarks(found):
        typer.echo(line)
