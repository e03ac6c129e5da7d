"""Targets by name, found through the entry point group `lmopt.targets`, or by path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from lmopt.errors import UsageError
from lmopt.target.profile import Target
from lmopt.target.schema import read_target, read_target_file

GROUP = "lmopt.targets"


def load_target(name: str | Path) -> Target:
    """Returns a target by its name, or by the path of a TOML file.

    Raises:
        UsageError: No installed target has this name.
        InputError: The file cannot be read or does not fit the schema.
    """
    if isinstance(name, Path) or name.endswith(".toml"):
        return read_target_file(Path(name))
    known = installed()
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        guess = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"unknown target '{name}'",
            hint=f"{guess}list: lmopt targets; a file of your own: --target ./board.toml",
        )
    return read_target(known[name].read_text(encoding="utf-8"), name, str(known[name]))


def installed() -> Mapping[str, Traversable]:
    """Returns the TOML file of every installed target, by name.

    Raises:
        UsageError: Two packages bring a target of one name, or none is installed.
    """
    found: dict[str, Traversable] = {}
    owners: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.value):
        for file in sorted(files(point.value).iterdir(), key=lambda f: f.name):
            if not file.name.endswith(".toml"):
                continue
            name = file.name.removesuffix(".toml")
            if name in found and owners[name] != point.value:
                raise UsageError(
                    f"target '{name}' comes from both {owners[name]} and {point.value}",
                    hint="uninstall one of the two packages",
                )
            found[name], owners[name] = file, point.value
    if not found:
        raise UsageError(
            "no target is installed", hint="install lmopt itself: pip install . in its checkout"
        )
    return found
