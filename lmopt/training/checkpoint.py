"""Checkpoints: one .npz file, replaced atomically, that only its own training accepts."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import BackendError, InputError

Array = NDArray[np.generic]


def save_checkpoint(path: Path, fingerprint: str, step: int, arrays: Sequence[Array]) -> None:
    """Writes a checkpoint; an interruption leaves the one before whole.

    Raises:
        BackendError: It cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            named: dict[str, Any] = {f"v{k}": array for k, array in enumerate(arrays)}
            np.savez(file, fingerprint=np.array(fingerprint), step=np.array(step), **named)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise BackendError(
            f"cannot write the checkpoint: {error.strerror or error}",
            where=str(path),
            hint="free some space, or give a folder that can be written",
        ) from error


def load_checkpoint(path: Path, fingerprint: str) -> tuple[int, list[Array]]:
    """Returns the steps done and the arrays in the order they were saved.

    Raises:
        InputError: The file is unreadable or belongs to another training.
    """
    hint = f"delete {path}, or train into another folder"
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["fingerprint"]) != fingerprint:
                raise InputError(
                    "it belongs to another training (graph, faces, plan or seed differ)",
                    where=str(path),
                    hint=hint,
                )
            count = len(file.files) - 2
            return int(file["step"]), [file[f"v{k}"] for k in range(count)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"the checkpoint cannot be read: {error}", where=str(path), hint=hint
        ) from error
