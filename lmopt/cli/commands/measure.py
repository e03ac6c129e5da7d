"""`lmopt measure`: latency on this host, on its CUDA device, or on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmopt.cli.options import BenchmarkModelOption, DataOption, JsonOption
from lmopt.cli.terminal import ProgressView, console, note, print_json, table

if TYPE_CHECKING:
    from lmopt.flow.measuring import Measured
    from lmopt.latency.harness import Sustained


def measure(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .tflite; SavedModel folders are measured on CUDA, XLA on and off.",
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
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="auto|host|adb[:SERIAL]|cuda[:N]",
            help="adb: an Android phone on the cable; cuda: a card; auto: by the kind of file.",
        ),
    ] = "auto",
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="T",
            help="Profile whose engine the phone is to use; default its own CPU profile.",
            show_default=False,
        ),
    ] = None,
    benchmark_model: BenchmarkModelOption = None,
    data: DataOption = None,
    per_op: Annotated[
        bool, typer.Option("--per-op", help="Show where the time goes on the phone, node by node.")
    ] = False,
    sustained: Annotated[
        float,
        typer.Option(
            "--sustained",
            metavar="MINUTES",
            help="Also run the file on this host without a pause: does it become slower?",
        ),
    ] = 0.0,
    json: JsonOption = False,
) -> None:
    """Measure a .tflite on this host or a phone, or a SavedModel on this host's CUDA device.

    With --data, the landmarks a phone finds are compared with those found here.
    """
    import lmopt

    counts = _counts(threads)
    with ProgressView() as view:
        found = lmopt.measure(
            file,
            against=against,
            threads=counts,
            max_seconds=max_seconds,
            device=device,
            target=target,
            benchmark_model=benchmark_model,
            data=data,
            per_op=per_op,
            sustained_minutes=sustained,
            listen=view,
        )
    if json:
        print_json(found.to_json())
        return
    rows = [(found.model, m) for m in found.measurements.values()]
    rows += [(str(found.against), m) for m in found.against_measurements.values()]
    varied = "threads" if found.best.xla is None else "XLA"
    numbers = (varied, "median ms", "95 % interval", "p90 ms", "runs")
    shown = table("file", *numbers, title=f"measured on {rows[0][1].where}", right=numbers)
    for name, m in rows:
        low, high = m.interval
        shown.add_row(
            name,
            m.xla or str(m.threads),
            f"{m.p50:.3f}",
            f"{low:.3f} .. {high:.3f}",
            f"{m.p90:.3f}",
            str(len(m.samples_ms) if m.conditions is None else m.conditions.inferences),
        )
    console().print(shown)
    for way, speedup in found.speedups.items():
        ran = _threads(way) if isinstance(way, int) else f"XLA {way}"
        typer.echo(f"{ran}: {found.model} is {speedup} times as fast as {found.against}")
    if found.best.xla is not None:
        _show_best(found)
    if found.phone is not None:
        _show_phone(found)
        return
    for name, m in rows:
        if m.start is not None:
            grown = m.start.memory_mb
            memory = "" if grown is None else f", {grown:.3g} MiB more in memory"
            typer.echo(
                f"{name}, {_threads(m.threads)}: loaded in "
                f"{m.start.load_ms:.3g} ms, first inference {m.start.first_ms:.3g} ms{memory}"
            )
    if found.sustained is not None:
        _show_sustained(found.sustained, found.best.threads)
    if any(m.busy for _, m in rows):
        note("note: other work kept this machine busy meanwhile; the numbers may be high")


def _show_best(found: Measured) -> None:
    """Prints how a SavedModel runs fastest, and what is to be said of XLA."""
    best = f"best: {found.model} with XLA {found.best.xla}"
    if found.best_against is None:
        typer.echo(best)
    else:
        other = f"{found.against} with XLA {found.best_against.xla}"
        typer.echo(f"{best} is {found.best_speedup} times as fast as {other}")
    for text in found.notes:
        typer.echo(f"  {text}")


def _show_sustained(found: Sustained, threads: int) -> None:
    typer.echo(
        f"{found.seconds[-1]:.0f} s without a pause, {_threads(threads)}: {found.start_ms:.3f} ms "
        f"at first, {found.sustained_ms:.3f} ms in the last quarter ({found.slowdown:.2f} times)"
    )
    if found.busy:
        note(f"note: other work took {found.other_load:.1f} cores meanwhile")


def _show_phone(found: Measured) -> None:
    """Prints the conditions, what was compared, and what is to be doubted."""
    best = found.best
    here = best.conditions
    assert here is not None
    first = "" if here.first_ms is None else f", first inference {here.first_ms:.3g} ms"
    init = "" if here.init_ms is None else f"loading {here.init_ms:.3g} ms{first}"
    memory = "" if here.memory_mb is None else f", {here.memory_mb:.3g} MB"
    typer.echo(f"  tool         {best.tool}")
    if init:
        typer.echo(f"  start        {init}{memory}")
    typer.echo(f"  cpus         {here.mask or 'all'}, governor {', '.join(here.governors) or '?'}")
    before, after = here.temperature_before_c, here.temperature_after_c
    typer.echo(f"  temperature  {_degrees(before)} before, {_degrees(after)} after")
    for text in found.notes:
        typer.echo(f"  {text}")
    if found.profile:
        shown = table("node", "kind", "ms", "%", right=("ms", "%"))
        for op in found.profile:
            shown.add_row(op.name, op.kind, f"{op.mean_ms:.3f}", f"{op.percent:.1f}")
        console().print(shown)
    for doubt in dict.fromkeys(d for m in found.all for d in m.doubts):
        note(f"note: {doubt}")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _degrees(celsius: float | None) -> str:
    return "unknown" if celsius is None else f"{celsius:.1f} C"


def _counts(text: str) -> tuple[int, ...]:
    from lmopt.errors import UsageError

    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(
            f"'{text}' is no list of thread counts", where="--threads", hint="like 1,2"
        ) from None
