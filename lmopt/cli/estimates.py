"""Estimates on the terminal: the interval, where the time goes, what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from lmopt.cli.terminal import console, table

if TYPE_CHECKING:
    from lmopt.cost.advice import Advice
    from lmopt.cost.estimate import Estimate

SHOWN_KERNELS = 12
"""Kernels in the table; `--json` lists all."""


def show_estimate(name: str, found: Estimate | str, advice: Sequence[Advice]) -> None:
    """Prints the estimate on one target, or why there is none."""
    from lmopt.units import human_bytes

    if isinstance(found, str):
        typer.echo(f"  {name:11} {found}")
        return
    memory = found.memory
    typer.echo(
        f"  {name:11} {found.latency_ms:.3g} ms [{found.low_ms:.3g}, {found.high_ms:.3g}] "
        f"(estimated), {found.threads} thread{'s' if found.threads > 1 else ''}; memory "
        f"{human_bytes(memory.arena_bytes)} and {human_bytes(memory.weight_bytes)} of weights"
    )
    for text in (*found.notes, _shares(advice), _integers(advice)):
        if text:
            typer.echo(f"  {'':11} {text}")
    _show_kernels(found, advice)


def _shares(advice: Sequence[Advice]) -> str:
    """Returns which classes of kernels the time goes to."""
    spent: Counter[str] = Counter()
    for advised in advice:
        spent[advised.time.kernel.work] += advised.time.us  # type: ignore[assignment]
    total = sum(spent.values()) or 1
    return "time: " + ", ".join(
        f"{work} {100 * us / total:.0f} %" for work, us in spent.most_common()
    )


def _integers(advice: Sequence[Advice]) -> str:
    """Returns what integers gain and lose against floating point, kernel by kernel."""
    gained = lost = 0.0
    slower = 0
    for advised in advice:
        if advised.float_us is not None:
            change = advised.float_us - advised.time.us
            gained, lost = gained + max(change, 0.0), lost + max(-change, 0.0)
            slower += change < 0
    if not gained and not lost:
        return ""
    return (
        f"integers gain {gained / 1e3:.3g} ms over floating point and lose {lost / 1e3:.3g} ms in "
        f"{slower} kernel{'s' if slower != 1 else ''}"
    )


def _show_kernels(found: Estimate, advice: Sequence[Advice]) -> None:
    shown = table(
        *("node", "op", "storage", "us", "arithmetic", "memory", "launch", "engine", "change"),
        right=("us", "arithmetic", "memory", "launch"),
    )
    slowest = sorted(advice, key=lambda advised: -advised.time.us)
    for advised in slowest[:SHOWN_KERNELS]:
        time, kernel = advised.time, advised.time.kernel
        why = "; ".join(text for text in (kernel.refused, advised.change) if text)
        fused = f" +{len(kernel.fused)}" if kernel.fused else ""
        shown.add_row(
            f"%{kernel.node}{fused}",
            kernel.kind,
            kernel.storage,
            *(f"{us:.1f}" for us in (time.us, time.arithmetic_us, time.memory_us, time.launch_us)),
            time.engine,
            why,
        )
    console().print(shown)
    rest = slowest[SHOWN_KERNELS:]
    if rest:
        us = sum(advised.time.us for advised in rest)
        typer.echo(f"  {len(rest)} more kernels take {us / 1e3:.3g} ms: --json lists them")
