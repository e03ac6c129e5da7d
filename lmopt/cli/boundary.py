"""Where every error of a command ends: what, where, what next, and the exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from lmopt.errors import LmoptError, UsageError

INTERRUPTED = 130


class Boundary(TyperGroup):
    """Turns deliberate errors and interruptions into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Returns what the command returns; a deliberate error becomes an exit code."""
        try:
            return super().invoke(ctx)
        except LmoptError as error:
            place = f"{error.where}: " if error.where else ""
            typer.echo(f"error: {place}{error.what}", err=True)
            hint = error.hint
            if hint is None and isinstance(error, UsageError):
                hint = f"{ctx.command_path} {ctx.invoked_subcommand} --help"
            if hint:
                typer.echo(f"hint: {hint}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted; the same command goes on with what is kept", err=True)
            raise typer.Exit(INTERRUPTED) from error
