"""`lmopt measure`: latency on this host, or on its CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmopt.cli.options import JsonOption
from lmopt.cli.terminal import console, note, print_json, table


def measure(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .tflite; SavedModel folders are measured on CUDA.",
            show_default=False,
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Another one, measured interleaved with the first.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", metavar="N[,N]", help="CPU thread counts.")
    ] = "1",
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="When to stop at the latest.")
    ] = 20.0,
    json: JsonOption = False,
) -> None:
    """Measure the latency of a .tflite on this host, or of a SavedModel on its CUDA device."""
    import lmopt

    counts = _counts(threads)
    found = lmopt.measure(file, against=against, threads=counts, max_seconds=max_seconds)
    if json:
        print_json(found.to_json())
        return
    rows = [(found.model, m) for m in found.measurements.values()]
    rows += [(str(found.against), m) for m in found.against_measurements.values()]
    numbers = ("threads", "median ms", "95 % interval", "p90 ms", "runs")
    shown = table("file", *numbers, title=f"measured on {rows[0][1].where}", right=numbers)
    for name, m in rows:
        low, high = m.interval
        shown.add_row(
            name,
            str(m.threads),
            f"{m.p50:.3f}",
            f"{low:.3f} .. {high:.3f}",
            f"{m.p90:.3f}",
            str(len(m.samples_ms)),
        )
    console().print(shown)
    for count, speedup in found.speedups.items():
        typer.echo(
            f"{count} thread{'s' if count > 1 else ''}: {found.model} is {speedup} times as fast "
            f"as {found.against}"
        )
    if any(m.busy for _, m in rows):
        note("note: other work kept this machine busy meanwhile; the numbers may be high")


def _counts(text: str) -> tuple[int, ...]:
    from lmopt.errors import UsageError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"'{text}' is no list of thread counts", where="--threads", hint="like 1,2"
        ) from None
