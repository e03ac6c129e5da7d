"""The `lmopt` program."""

from __future__ import annotations

import typer

from lmopt.cli.boundary import Boundary
from lmopt.cli.commands.compile import compile
from lmopt.cli.commands.data import app as data
from lmopt.cli.commands.detectors import detectors
from lmopt.cli.commands.evaluate import evaluate
from lmopt.cli.commands.inspect import inspect
from lmopt.cli.commands.measure import measure
from lmopt.cli.commands.optimize import optimize
from lmopt.cli.commands.passes import passes
from lmopt.cli.commands.search import search
from lmopt.cli.commands.sensitivity import sensitivity
from lmopt.cli.commands.storage import storage
from lmopt.cli.commands.targets import targets
from lmopt.cli.commands.train import train

app = typer.Typer(
    name="lmopt",
    cls=Boundary,
    help="Optimizes facial-landmark detectors for phones.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    *(optimize, search, storage, compile, inspect, measure, evaluate, sensitivity, train),
    *(detectors, passes, targets),
):
    app.command()(command)
app.add_typer(data, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        import lmopt

        typer.echo(f"lmopt {lmopt.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Optimizes facial-landmark detectors for phones."""


def main() -> None:
    """Runs the program."""
    app()
