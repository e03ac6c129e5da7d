"""Files that appear whole or not at all, and the folder of those that can be made again."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmopt.errors import InputError

_LEFT_AFTER_S = 24 * 3600.0


def default_cache() -> Path:
    """Returns the folder for what lmopt can make again: $LMOPT_CACHE or ~/.cache/lmopt."""
    given = os.environ.get("LMOPT_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "lmopt"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, then renames it.

    Raises:
        InputError: The folder is read-only or full; nothing half-written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """Returns the error for a place that cannot be written."""
    return InputError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        hint="free some space or give another folder with --out",
    )


def require_writable(path: Path) -> None:
    """Raises InputError unless a file at `path` could be written now: asked before long work."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    if path.is_dir():
        raise InputError("a folder, wanted a file", where=str(path), hint="add a file name to it")


def require_new(path: Path) -> None:
    """Raises InputError unless a folder could be made at `path`, or an empty one is there."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(
            "there is something already", where=str(path), hint="give a new folder with --out"
        )


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder that becomes `path` when the block ends without an error.

    What processes that were killed have left of such folders is removed a day later.

    Raises:
        InputError: There is something at `path`, or it cannot be written; nothing is left.
    """
    require_new(path)
    path = path.absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    _sweep(path)
    try:
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _sweep(path: Path) -> None:
    """Removes unfinished folders that nobody has added to for a day.

    Beside `path` those of its own name; in the cache, which is lmopt's own, those of any.
    """
    is_cache = path.is_relative_to(default_cache().absolute())
    name = "*" if is_cache else glob.escape(path.name)
    for left in path.parent.glob(f".{name}.*.part"):
        with suppress(OSError):  # another process may have been first
            touched = max(place.stat().st_mtime for place in (left, *left.iterdir()))
            if time.time() - touched > _LEFT_AFTER_S and left.suffixes[-2][1:].isdecimal():
                shutil.rmtree(left)
