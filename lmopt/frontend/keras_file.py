"""The two file formats of Keras: an architecture as JSON and a store of weights."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lmopt.errors import InputError
from lmopt.frontend.keras_weights import ArchiveWeights, Hdf5Weights, Weights
from lmopt.trial import try_out

_SAVE = "save the whole model with model.save('model.keras')"
_DAMAGED = "the file is damaged or cut short; copy or save it again"
_WEIGHTS = "model.weights.h5"


@dataclass(frozen=True)
class KerasFile:
    """An open model file.

    Attributes:
        config: The architecture as Keras writes it, not yet checked.
        weights: Where layers find their weights.
        major: The Keras that wrote it, 2 or 3; None where it does not say.
    """

    config: Mapping[str, Any]
    weights: Weights
    major: int | None


@contextmanager
def open_model(path: Path) -> Iterator[KerasFile]:
    """Returns a context with the architecture and weights of a `.keras` or `.h5` file.

    Raises:
        InputError: No such file, another format, damaged, or without architecture or weights.
            An HDF5 file is tried out first: damage can make its library run for ever.
    """
    where = str(path)
    if path.is_dir():
        raise InputError("this is a folder; wanted a .keras or .h5 file", where=where, hint=_SAVE)
    if not path.is_file():
        raise InputError("there is no such file", where=where, hint="check the path")
    if zipfile.is_zipfile(path):
        with _open_archive(path) as file:
            yield file
    elif h5py.is_hdf5(path):
        try_out(path)
        with _hdf5(path, where) as root:
            yield _read_hdf5(root, where)
    elif path.read_bytes()[:4] == b"PK\x03\x04":
        raise InputError("this zip archive has no end", where=where, hint=_DAMAGED)
    else:
        raise InputError(
            "this is neither a zip archive (.keras) nor an HDF5 file (.h5)", where=where, hint=_SAVE
        )


@contextmanager
def _open_archive(path: Path) -> Iterator[KerasFile]:
    where = str(path)
    config = _json(_member(path, "config.json"), f"{where}: config.json")
    stored = io.BytesIO(_member(path, _WEIGHTS))
    with _hdf5(stored, f"{where}: {_WEIGHTS}") as root:
        yield KerasFile(config, ArchiveWeights(root), _archive_major(path))


def _archive_major(path: Path) -> int | None:
    with zipfile.ZipFile(path) as archive:
        if "metadata.json" not in archive.namelist():
            return None
    document = _json(_member(path, "metadata.json"), f"{path}: metadata.json")
    return _major(document.get("keras_version"))


def _major(version: object) -> int | None:
    text = version.decode(errors="replace") if isinstance(version, bytes) else version
    first = text.split(".")[0] if isinstance(text, str) else ""
    return int(first) if first.isdecimal() else None


def _member(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                raise InputError(
                    f"the archive holds no {name}", where=str(path), hint=f"not a model: {_SAVE}"
                )
            return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise InputError(
            f"{name} cannot be read from the archive: {error}", where=str(path), hint=_DAMAGED
        ) from error


@contextmanager
def _hdf5(source: Path | io.BytesIO, where: str) -> Iterator[h5py.Group]:
    try:
        root = h5py.File(source, "r")
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"the HDF5 file cannot be opened: {error}", where=where, hint=_DAMAGED
        ) from error
    with root:
        yield root


def _read_hdf5(root: h5py.Group, where: str) -> KerasFile:
    text = root.attrs.get("model_config")
    if text is None:
        raise InputError(
            "this HDF5 file holds no architecture (attribute model_config), weights at most",
            where=where,
            hint=_SAVE,
        )
    config = _json(text, f"{where}: model_config")
    if "layer_names" not in root.attrs and not isinstance(root.get("model_weights"), h5py.Group):
        raise InputError("this HDF5 file holds no weights", where=where, hint=_SAVE)
    group = root if "layer_names" in root.attrs else root["model_weights"]
    version = root.attrs.get("keras_version", group.attrs.get("keras_version"))
    return KerasFile(config, Hdf5Weights(group), _major(version))


def _json(text: object, where: str) -> Mapping[str, Any]:
    if not isinstance(text, str | bytes):
        raise InputError(f"wanted JSON text, got {type(text).__name__}", where=where, hint=_DAMAGED)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=where, hint=_DAMAGED) from error
    if not isinstance(document, dict):
        raise InputError("wanted a JSON object", where=where, hint=_DAMAGED)
    return document
