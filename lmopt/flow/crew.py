"""Who makes the candidates of a search: this process, or workers elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmopt.errors import BackendError, PassError
from lmopt.exploration.candidate import Trained
from lmopt.flow.candidates import obtain
from lmopt.flow.journal import Journal
from lmopt.flow.workbench import Workbench
from lmopt.pipeline.manager import Pipeline


@dataclass(frozen=True)
class Task:
    """A candidate of a study that is to be made as it is after a fidelity."""

    number: int
    fidelity: int
    pipeline: Pipeline


@dataclass(frozen=True)
class Scored:
    """A candidate that was made, with its NME in percent on each validation face."""

    made: Trained
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: Task
    found: Scored | PassError | BackendError


class Crew(Protocol):
    """Makes candidates, one or several at a time."""

    @property
    def is_full(self) -> bool:
        """Returns whether nobody is free for another task."""

    def begin(self, task: Task) -> None:
        """Takes a task."""

    def finish(self) -> Outcome:
        """Returns what became of one of the tasks, once it is known."""


def perform(bench: Workbench, journal: Journal, task: Task) -> Outcome:
    """Returns what becomes of a task here and now."""
    try:
        made, _ = obtain(bench, journal, task.pipeline)
        score = bench.score(Path(made.model), "validation")
    except (PassError, BackendError) as error:
        return Outcome(task, error)
    return Outcome(task, Scored(made, score.per_face))


class Alone:
    """A crew of this process only."""

    def __init__(self, bench: Workbench, journal: Journal) -> None:
        """Works on `bench` and records in `journal`."""
        self._bench, self._journal = bench, journal
        self._task: Task | None = None

    @property
    def is_full(self) -> bool:
        """Returns whether there is a task."""
        return self._task is not None

    def begin(self, task: Task) -> None:
        """Takes a task."""
        self._task = task

    def finish(self) -> Outcome:
        """Performs the task and returns its outcome."""
        assert self._task is not None
        task, self._task = self._task, None
        return perform(self._bench, self._journal, task)
