"""The passes that are installed, found through the entry point group `lmopt.passes`."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from lmopt.errors import PassError, UsageError, did_you_mean
from lmopt.ir.syntax import field_types, format_value, type_text
from lmopt.pipeline.base import Pass
from lmopt.pipeline.spec import kebab_case

GROUP = "lmopt.passes"


@dataclass(frozen=True)
class OptionInfo:
    """An option of a pass, for listings; `default` is None when it must be given."""

    name: str
    type: str
    default: str | None
    summary: str


@dataclass(frozen=True)
class PassInfo:
    """A pass, for listings."""

    name: str
    summary: str
    needs: tuple[str, ...]
    preserves: str
    owner: str
    options: tuple[OptionInfo, ...]


@dataclass(frozen=True)
class Catalog:
    """Passes by name, imported when they are asked for.

    Attributes:
        targets: Name to `module:Class`.
        owners: Name to the distribution it comes from.
    """

    targets: Mapping[str, str]
    owners: Mapping[str, str]

    @classmethod
    def of(cls, points: Iterable[EntryPoint]) -> Catalog:
        """Returns the catalog of entry points, each a mapping of name to `module:Class`.

        Raises:
            UsageError: Two distributions claim a name.
        """
        targets: dict[str, str] = {}
        owners: dict[str, str] = {}
        for point in points:
            owner = f"{point.dist.name if point.dist else 'unknown'} ({point.value})"
            for name, target in point.load().items():
                if name in targets:
                    raise UsageError(
                        f"two passes are called '{name}': {owners[name]} and {owner}",
                        hint="uninstall one of the two distributions",
                    )
                targets[name], owners[name] = target, owner
        return cls(targets, owners)

    def load(self, name: str) -> type[Pass]:
        """Returns the class of a pass.

        Raises:
            UsageError: There is no such pass, or there are none at all.
            PassError: Its distribution is broken.
        """
        if not self.targets:
            raise UsageError(
                "no passes are installed", hint="install lmopt from its checkout: pip install ."
            )
        if name not in self.targets:
            close = did_you_mean(name, self.targets)
            listing = "list: lmopt passes"
            raise UsageError(
                f"unknown pass '{name}'", hint=f"{close} {listing}" if close else listing
            )
        module, _, attribute = self.targets[name].partition(":")
        broken = f"pass '{name}' of {self.owners[name]} cannot be loaded"
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise PassError(f"{broken}: {error}", hint="reinstall that distribution") from error
        if not (isinstance(found, type) and issubclass(found, Pass) and found.name == name):
            raise PassError(f"{broken}: {self.targets[name]} is not a Pass named '{name}'")
        return found

    def describe(self, name: str) -> PassInfo:
        """Returns what a listing says of a pass."""
        cls = self.load(name)
        return PassInfo(
            name,
            (cls.__doc__ or "").strip().splitlines()[0],
            tuple(sorted(cls.needs)),
            cls.preserves.value,
            self.owners[name],
            tuple(_options(cls)),
        )

    def descriptions(self) -> tuple[PassInfo, ...]:
        """Returns what a listing says of every pass, by name."""
        return tuple(self.describe(name) for name in sorted(self.targets))


@cache
def installed() -> Catalog:
    """Returns the catalog of this environment."""
    return Catalog.of(entry_points(group=GROUP))


def _options(cls: type[Pass]) -> Iterable[OptionInfo]:
    documented = _documented(cls.__doc__ or "")
    hints = field_types(cls)
    for item in dataclasses.fields(cls):
        default = item.default
        yield OptionInfo(
            kebab_case(item.name),
            type_text(hints[item.name]),
            None if default is dataclasses.MISSING else format_value(default, hints[item.name]),
            documented.get(item.name, ""),
        )


def _documented(doc: str) -> dict[str, str]:
    """Returns field to description from a docstring's `Attributes:` section."""
    section = re.search(r"^ *Attributes:\n((?:(?: {8}.*)?\n?)*)", doc, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section.group(1), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
