"""Where commands write: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from lmopt.flow.events import Event

PLAIN_EVERY_S = 15.0
"""How often a training or a count is reported where no progress bar can be drawn."""
WIDE = 400
"""Columns where stdout is no terminal: a file has no border to wrap at."""


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout."""
    from lmopt.report.json_document import json_text

    typer.echo(json_text(document))


def note(text: str) -> None:
    """Prints a line for people on stderr."""
    typer.echo(text, err=True)


def console() -> Console:
    """Returns the console for results, on stdout."""
    from rich.console import Console

    return Console(
        width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False, emoji=False
    )


def table(*columns: str, title: str | None = None, right: tuple[str, ...] = ()) -> Table:
    """Returns an empty table; columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


class ProgressView:
    """Shows events on stderr: lines, and a bar where stderr is a terminal.

    Use it as a context manager; it is the listener of the functions in `lmopt.flow`.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Shows nothing yet.

        Args:
            quiet: Show nothing at all.
        """
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said = 0.0
        self._counting = ""

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False, markup=False),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        if self._quiet:
            return
        from lmopt.flow import events

        match event:
            case events.Training(progress):
                self._count(
                    f"    training, loss {progress.loss:.2f}, "
                    f"{progress.images_per_second:.0f} images/s",
                    progress.step,
                    progress.steps,
                )
            case events.Activity(what, done, total) if total:
                self._count(f"  {what}", done, total)
            case _:
                self._end_count()
                for line in lines(event):
                    self._line(line)

    def _count(self, text: str, done: int, total: int) -> None:
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(text, total=total)
            self._bar.update(self._task, description=text, completed=done, total=total)
            if done >= total:
                self._end_count()
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY_S or done >= total:
            self._said = now
            self._line(f"{text}: {done} of {total}")

    def _end_count(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            note(text)


def lines(event: Event) -> list[str]:
    """Returns what an event is as lines of a log."""
    from lmopt.flow import events
    from lmopt.units import human_bytes

    match event:
        case events.Started(detector, target, data, pipelines):
            return [f"optimizing {detector} for {target} on {data}: {pipelines} pipelines"]
        case events.Activity(what):
            return [f"{what} ..."]
        case events.CandidateStarted(position, total, pipeline):
            return [f"[{position}/{total}] {pipeline}"]
        case events.PassProgress(_, inner) if inner.step is not None:
            cached = " (cached)" if inner.step.cached else ""
            notes = "".join(f"; {text}" for text in inner.step.notes)
            return [f"    {inner.text}: {inner.step.seconds:.1f} s{cached}{notes}"]
        case events.CandidateTrained(made, resumed):
            again = ", from an earlier run" if resumed else ""
            return [
                f"    validation NME {made.val_nme_percent:.2f} %, "
                f"{human_bytes(made.size_bytes)}, {made.seconds:.0f} s{again}"
            ]
        case events.CandidateFailed(failure):
            return [f"    {failure.status}: {failure.pipeline}: {failure.reason}"]
        case events.Raced(number, fidelity, fidelities, sketch, parent, minutes, budget):
            how = f"training {fidelity} of {fidelities}" if fidelity else "untrained"
            after = f" after training {parent[1]}" if parent and parent[1] else ""
            begin = f", from #{parent[0]}{after}" if parent else ""
            return [f"[{minutes:.0f}/{budget:g} min] #{number}, {how}{begin}: {sketch}"]
        case events.Found(number, nme, ms, volume, more):
            speed = f"{1 / ms.value:.2f} [{1 / ms.high:.2f}, {1 / ms.low:.2f}] times as fast"
            if ms.low == ms.high:  # as no measurement is
                speed = f"estimated {1 / ms.value:.2f} times as fast"
            others = "".join(f", {name} {value:.2f}x" for name, value in more.items())
            grown = "" if volume is None else f"; hypervolume {volume}"
            return [f"#{number}: validation NME {nme:.2f} %, {speed}{others}{grown}"]
        case events.Dropped(number, reason):
            return [f"#{number}: dropped: {reason}"]
        case events.Noted(text):
            return [text]
        case _:
            return []
