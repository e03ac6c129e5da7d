"""The journal of a run: one flushed line per finished candidate, so that a rerun resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lmopt.exploration.candidate import Trained, trained_from_json
from lmopt.files import unwritable, write_atomically
from lmopt.runtime.runner import file_digest


class Journal:
    """Finished candidates by key, kept in `journal.jsonl` of the output folder.

    Attributes:
        cache: Where results of passes are kept beside it.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what is there; a torn last line (a crash while writing) is dropped.

        Raises:
            InputError: The folder cannot be made or written.
        """
        self._path = folder / "journal.jsonl"
        self._models = folder / "models"
        self.cache = folder / "cache"
        try:
            self._models.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise unwritable(folder, error) from error
        self._finished = dict(self._read())

    def _read(self) -> list[tuple[str, Trained]]:
        rows: list[tuple[str, Trained]] = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                rows.append((record["key"], trained_from_json(record["candidate"])))
            except (ValueError, KeyError, TypeError):
                continue
        return rows

    def find(self, key: str) -> Trained | None:
        """Returns the finished candidate of a key when its file is still the very same."""
        found = self._finished.get(key)
        if found is None:
            return None
        path = Path(found.model)
        if not path.is_file() or file_digest(path.read_bytes()) != found.digest:
            return None
        if found.saved_models is not None and not Path(found.saved_models).is_dir():
            return None
        return found

    def record(self, key: str, candidate: Trained) -> None:
        """Appends a finished candidate and flushes it to the disk."""
        self._finished[key] = candidate
        line = json.dumps({"key": key, "candidate": asdict(candidate)})
        try:
            text = self._path.read_text(encoding="utf-8")
            torn = bool(text) and not text.endswith("\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self._path, error) from error

    def write_model(self, data: bytes) -> Path:
        """Returns the absolute path of a model file named by its digest, written whole."""
        path = (self._models / f"{file_digest(data)}.tflite").resolve()
        write_atomically(path, data)
        return path


def key_of(parts: Mapping[str, str]) -> str:
    """Returns a key over named parts."""
    text = json.dumps(dict(parts), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
