"""Results of passes on disk, so that pipelines that begin alike pay for the beginning once.

A result lies in a slot named after the graph, the pass' text and the code that ran. Within the
slot it carries what the pass read of its context (seed, data, services, contract); it is taken
when the present context would give the very same readings.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from lmopt.errors import InputError
from lmopt.files import write_atomically
from lmopt.ir.graph import Graph
from lmopt.ir.store import load_graph, save_graph
from lmopt.pipeline.base import ENGINE, TUTOR, Need, Pass, PassContext, PassResult
from lmopt.pipeline.spec import print_pass

_VERSIONED = ("numpy", "tensorflow", "tf_keras", "tensorflow-model-optimization")


class Depot(Protocol):
    """Where caches on several machines find each other's results, by slot."""

    def fetch(self, slot: str) -> Mapping[str, bytes]:
        """Returns the files of a slot by name; none where it is not known."""

    def store(self, slot: str, files: Mapping[str, bytes]) -> None:
        """Keeps files of a slot."""


@dataclass(frozen=True)
class PipelineCache:
    """A folder of results; safe to share between processes.

    Attributes:
        folder: Holds a folder for each slot.
        depot: Has what is not here, and takes what is made here; None where there is none.
    """

    folder: Path
    depot: Depot | None = None

    def get(
        self, graph: Graph, item: Pass, ctx: PassContext
    ) -> tuple[PassResult | None, tuple[str, ...]]:
        """Returns the stored result of `item` on `graph`, or None, and notes on damaged entries."""
        notes: list[str] = []
        slot = self._slot(graph, item)
        if self.depot is not None and not slot.is_dir():
            for name, data in sorted(self.depot.fetch(slot.name).items(), reverse=True):
                write_atomically(slot / name, data)  # graphs before the records that name them
        for record in sorted(slot.glob("*.json")):
            try:
                entry = json.loads(record.read_bytes())
                reads: dict[str, str] = entry["reads"]
                if any(_current(ctx, key) != value for key, value in reads.items()):
                    continue
                stored = load_graph(record.with_suffix(".npz")) if entry["changed"] else graph
                result = PassResult(stored, bool(entry["changed"]), tuple(entry["notes"]))
            except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                notes.append(f"removed a damaged cache entry ({error})")
                record.unlink(missing_ok=True)
                record.with_suffix(".npz").unlink(missing_ok=True)
                continue
            ctx.reads.update(reads)
            return result, tuple(notes)
        return None, tuple(notes)

    def put(
        self, graph: Graph, item: Pass, reads: Mapping[str, str], result: PassResult
    ) -> tuple[str, ...]:
        """Stores a result, and returns a note when that was not possible."""
        unnamed = [key for key, value in reads.items() if not value]
        if unnamed:
            return (f"{item.name}: not cached, {', '.join(unnamed)} has no digest",)
        slot = self._slot(graph, item)
        stem = _hash(json.dumps(dict(reads), sort_keys=True))
        entry = {"reads": dict(reads), "changed": result.changed, "notes": result.notes}
        record = slot / f"{stem}.json"
        try:
            slot.mkdir(parents=True, exist_ok=True)
            if result.changed:
                save_graph(result.graph, record.with_suffix(".npz"))
            write_atomically(record, json.dumps(entry).encode())
        except (OSError, InputError) as error:
            return (f"{item.name}: not cached, {error}",)
        if self.depot is not None:
            files = sorted(slot.glob(f"{stem}.*"))
            self.depot.store(slot.name, {file.name: file.read_bytes() for file in files})
        return ()

    def _slot(self, graph: Graph, item: Pass) -> Path:
        key = json.dumps([graph.digest(), print_pass(item), code_digest([item])])
        return self.folder / _hash(key)


@dataclass(frozen=True)
class Shelf:
    """Small findings on disk, each under a key that names all it depends on besides the code.

    A folder that cannot be written keeps nothing: what is not found is found out again.
    """

    folder: Path

    def get(self, *key: str) -> bytes | None:
        """Returns what was put under a key, or None."""
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, data: bytes, *key: str) -> None:
        """Keeps data, whole or not at all."""
        with suppress(InputError):
            write_atomically(self._path(key), data)

    def _path(self, key: tuple[str, ...]) -> Path:
        return self.folder / _hash(json.dumps([*key, code_digest(())]))


def code_digest(passes: Iterable[Pass]) -> str:
    """Returns a digest of all code that decides what passes make.

    It covers the versions of the libraries and the sources of lmopt and of the passes' packages.
    """
    return code_of(type(item).__module__ for item in passes)


def code_of(modules: Iterable[str]) -> str:
    """Returns the digest of `code_digest` for the packages that modules are in."""
    packages = sorted({module.partition(".")[0] for module in modules})
    return _hash(json.dumps([_versions(), *map(_code, packages)]))


def _current(ctx: PassContext, key: str) -> str | None:
    return ctx.current(key) if key in {"seed", TUTOR, ENGINE, *Need} else None


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@cache
def _versions() -> tuple[str, ...]:
    found = [f"python {sys.version_info.major}.{sys.version_info.minor}"]
    for name in _VERSIONED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return (*found, _code("lmopt"))


@cache
def _code(package: str) -> str:
    """Returns a digest over a package's sources: a version number does not tell edits apart."""
    spec = importlib.util.find_spec(package)
    state = hashlib.blake2b(digest_size=16)
    for root in sorted((spec.submodule_search_locations if spec else None) or ()):
        for source in sorted(Path(root).rglob("*.py")):
            state.update(f"{source.relative_to(root)}\0".encode())
            state.update(source.read_bytes())
    return state.hexdigest()
