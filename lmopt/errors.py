"""Every deliberate error of lmopt: one tree, one exit code per branch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class LmoptError(Exception):
    """An error lmopt raises on purpose, with a place and a next step.

    Attributes:
        what: What is wrong: got against wanted.
        where: The place (file:line, layer, option), or None when the message says it.
        hint: What to do next, or None.
    """

    exit_code: ClassVar[int] = 1
    branch: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\nhint: {self.hint}" if self.hint else ""
        return f"{place}{self.what}{hint}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.hint))


def _rebuild(cls: type[LmoptError], what: str, where: str | None, hint: str | None) -> LmoptError:
    return cls(what, where=where, hint=hint)


class UsageError(LmoptError):
    """Unknown pass or target, pipeline syntax, a bad option."""

    exit_code = 2
    branch = "usage"


class InputError(LmoptError):
    """A model file, dataset, contract or target file that cannot be used."""

    exit_code = 3
    branch = "input"


class GraphError(LmoptError):
    """A graph that does not verify or parse, or whose shapes do not fit."""

    exit_code = 4
    branch = "graph"


class PassError(LmoptError):
    """A pass whose precondition or need is not met."""

    exit_code = 5
    branch = "pass"


class BackendError(LmoptError):
    """Training, conversion, running or measuring failed."""

    exit_code = 6
    branch = "backend"


class SearchError(LmoptError):
    """A search that found nothing feasible."""

    exit_code = 7
    branch = "search"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Returns a hint that names the known word closest to `word`, or None when none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else None
