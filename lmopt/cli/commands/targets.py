"""`lmopt targets`: the devices there are, and every number of one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmopt.cli.options import BenchmarkModelOption, JsonOption
from lmopt.cli.terminal import ProgressView, console, note, print_json, table
from lmopt.errors import UsageError

if TYPE_CHECKING:
    from lmopt.flow.calibrating import Calibration
    from lmopt.flow.events import Listener
    from lmopt.target.profile import Target

NEW, CALIBRATE = "new", "calibrate"
"""In place of a target's name: write one; time small networks on a machine."""


def targets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A target or a TOML file; `new` writes one, `calibrate` times a machine.",
            show_default=False,
        ),
    ] = None,
    made: Annotated[
        str | None,
        typer.Argument(
            metavar="WHICH",
            help="After `new`: the target's name; after `calibrate`: host, or adb[:SERIAL].",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option("--minutes", metavar="M", help="How long `calibrate` times networks."),
    ] = 10.0,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="T",
            help="Whose engine `calibrate adb` is about; default the phone's own CPU profile.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", help="Of `calibrate adb`; default 4.", show_default=False
        ),
    ] = None,
    benchmark_model: BenchmarkModelOption = None,
    json: JsonOption = False,
) -> None:
    """List the targets, or show every number of one.

    `lmopt targets new board` starts a target. `lmopt targets calibrate host` times about a thousand
    small networks on this machine, `calibrate adb` some of them on a phone, so that estimates can
    be trusted.
    """
    from lmopt.target.catalog import installed, load_target

    if name == NEW:
        _start(made)
        return
    if name == CALIBRATE:
        with ProgressView() as view:
            calibration = _calibrated(made, minutes, target, threads, benchmark_model, view)
        _show_calibration(calibration, json)
        return
    if made is not None:
        raise UsageError(f"unexpected '{made}'", hint=f"lmopt targets {NEW} {made} starts a target")
    if name is not None:
        from lmopt.flow.host_profile import target_named

        _show(target_named(name), json)
        return
    found = [load_target(known) for known in sorted(installed())]
    if json:
        print_json({"targets": [_document(listed) for listed in found]})
        return
    shown = table("target", "engine", "storage, fastest first", "device")
    for listed in found:
        shown.add_row(listed.name, listed.engine, ", ".join(listed.storage), listed.title)
    console().print(shown)
    note("next: lmopt targets NAME; lmopt optimize --target NAME")


def _start(name: str | None) -> None:
    from lmopt.target.draft import write_draft

    if name is None:
        raise UsageError("the new target wants a name", hint=f"lmopt targets {NEW} board")
    path = write_draft(name, Path())
    typer.echo(str(path))
    note(f"next: put its numbers in; lmopt targets ./{path}")


def _calibrated(
    name: str | None,
    minutes: float,
    target: str | None,
    threads: int | None,
    tool: Path | None,
    listen: Listener,
) -> Calibration:
    from lmopt.device.adb import is_phone
    from lmopt.flow.calibrating import calibrate_host, calibrate_phone
    from lmopt.flow.host_profile import HOST

    if name is not None and is_phone(name):
        return calibrate_phone(
            name,
            target=target,
            threads=threads,
            benchmark_model=tool,
            minutes=minutes,
            listen=listen,
        )
    if name != HOST:
        raise UsageError(
            f"cannot calibrate '{name}'" if name else "what to calibrate is missing",
            hint=f"lmopt targets {CALIBRATE} {HOST}, or adb for a phone on the cable",
        )
    if target is not None or threads is not None or tool is not None:
        raise UsageError(
            "a target, a thread count or a tool are for calibrating a phone",
            hint=f"leave them out: {HOST} is timed at all its thread counts",
        )
    return calibrate_host(minutes=minutes, listen=listen)


def _show_calibration(found: Calibration, json: bool) -> None:
    if json:
        print_json(found.to_json())
        return
    shown = table(
        *("left out of the fit", "threads", "measured ms", "estimated ms", "off by"),
        right=("threads", "measured ms", "estimated ms", "off by"),
    )
    for row in found.left_out:
        estimated = f"{row.estimated_ms:.3g} [{row.low_ms:.3g}, {row.high_ms:.3g}]"
        measured = f"{row.measured_ms:.3g}"
        shown.add_row(row.name, str(row.threads), measured, estimated, f"{row.error:+.1%}")
    console().print(shown)
    for threads, error in found.fold_error.items():
        note(
            f"{threads} thread(s): mixed small networks left out of the fit "
            f"are off by {error:.1%} (median); estimates state {found.stated[threads]:.0%}"
        )
    note(f"{found.machine}: {found.networks} networks, {found.rounds} rounds; kept in {found.path}")
    note(f"next: lmopt inspect MODEL --target {found.target}")


def _show(target: Target, json: bool) -> None:
    from lmopt.target.profile import FORMS

    if json:
        print_json(_document(target))
        return
    typer.echo(f"{target.name}: {target.title}")
    typer.echo(f"  engine    {target.engine}")
    typer.echo(f"  storage   {', '.join(target.storage)} (fastest first)")
    if target.runtime is not None:
        runtime = target.runtime
        typer.echo(f"  runtime   {runtime}, takes {runtime.format} ({runtime.source})")
    for form in FORMS:
        rule = target.rule(form)
        typer.echo(f"    {form:8}  {'' if rule.legal else 'not legal: '}{rule}")
    if target.ends is not None:
        ends = target.ends
        typer.echo(f"  ends      {ends.input} in, {ends.output} out ({ends.kind}: {ends.source})")
    for key, limit in target.limits.items():
        typer.echo(f"  limit     {key} {_value(limit.value)} ({limit.kind}: {limit.source})")
    if target.device is not None:
        device = target.device
        names = ", ".join(sorted(device.names))
        typer.echo(f"  phone     {names} ({device.kind}: {device.source})")
    typer.echo(f"  threads   {', '.join(map(str, target.threads))}")
    typer.echo(f"  fallback  {target.fallback or 'none: what the engine refuses is an error'}")
    typer.echo(f"  ops       {', '.join(sorted(target.supported_ops))}")
    for cluster in target.clusters:
        rates = ", ".join(f"{rate:g} {kind}" for kind, rate in cluster.macs_per_cycle.items())
        caches = f"; {cluster.caches}" if cluster.caches else ""
        typer.echo(
            f"  cluster   {cluster.cores}x {cluster.core} {cluster.ghz:g} GHz, multiply-adds a "
            f"cycle: {rates}{caches} ({cluster.kind}: {cluster.source})"
        )
    if target.fusion is not None:
        fusion = target.fusion
        also = [word for word, so in (("pads", fusion.pads), ("sums", fusion.sums)) if so]
        fused = ", ".join((*fusion.activations, *also))
        typer.echo(f"  fuses     {fused} ({fusion.kind}: {fusion.source})")
    if target.experience is not None:
        known = target.experience
        typer.echo(
            f"  fitted    on {known.networks} networks, {known.macs[0] / 1e6:.4g} to "
            f"{known.macs[1] / 1e6:.4g} M multiply-adds, {', '.join(known.storages)}, threads "
            f"{', '.join(map(str, known.threads))} ({known.source})"
        )
    for count, priced in target.kernel_prices.items():
        typer.echo(f"  calibrated  {count} thread(s): estimates state +-{priced.error:.0%}")
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


def _value(value: float | tuple[str, ...]) -> str:
    return ", ".join(value) if isinstance(value, tuple) else f"{value:g}"


def _document(target: Target) -> dict[str, Any]:
    from lmopt.target.profile import FORMS

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
        "runtime": None if target.runtime is None else asdict(target.runtime),
        "preferred": target.preferred,
        "forms": {form: asdict(target.rule(form)) for form in FORMS},
        "limits": {
            key: {"value": limit.value, "kind": limit.kind, "source": limit.source}
            for key, limit in target.limits.items()
        },
        "ends": None if target.ends is None else asdict(target.ends),
        "clusters": [asdict(cluster) for cluster in target.clusters],
        "fusion": None if target.fusion is None else asdict(target.fusion),
        "experience": None if target.experience is None else asdict(target.experience),
        "device": None
        if target.device is None
        else {**asdict(target.device), "names": sorted(target.device.names)},
        "kernel_prices": {count: asdict(p) for count, p in target.kernel_prices.items()},
        "quantities": {
            key: {"value": q.value, "unit": q.unit, "kind": q.kind, "source": q.source}
            for key, q in target.quantities.items()
        },
    }
