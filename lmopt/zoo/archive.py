"""Weight archives: `.npz` files of arrays under `node/parameter`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmopt.errors import InputError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph

Arrays = Mapping[str, NDArray[np.generic]]


def read_archive(path: Path) -> Arrays:
    """Returns the arrays of a weight archive by `node/parameter`.

    Raises:
        InputError: The file cannot be read as one.
    """
    try:
        with zipfile.ZipFile(path):  # np.load also takes files that are no archives
            pass
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"not a readable weight archive (.npz): {error}", where=str(path)
        ) from error


def write_archive(graph: Graph, path: Path, *, half: bool = True) -> None:
    """Writes the weights of an initialised graph, as float16 when `half`.

    Variances keep float32: float16 would flush small ones to 0.

    Raises:
        GraphError: A weight has no values.
        InputError: The file cannot be written.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for node in graph.nodes:
        for key, weight in node.weights.items():
            dtype = np.float16 if half and key != "variance" else np.float32
            arrays[f"{node.name}/{key}"] = weight.real().astype(dtype)
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise InputError(f"cannot write the weights: {error}", where=str(path)) from error


def with_weights(graph: Graph, arrays: Arrays, where: str) -> Graph:
    """Returns `graph` holding `arrays` (by `node/parameter`) as float32 weights.

    Raises:
        InputError: A name is missing or unknown, or a shape does not fit.
    """
    wanted = {f"{n.name}/{k}": w.type.shape for n in graph.nodes for k, w in n.weights.items()}
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing or unknown:
        raise InputError(
            f"weights of another graph than '{graph.name}': "
            f"{len(missing)} missing{_first(missing)}, {len(unknown)} unknown{_first(unknown)}",
            where=where,
        )
    edit = Edit.of(graph)
    for node in graph.nodes:
        fitted: dict[str, NDArray[np.generic]] = {}
        for key, weight in node.weights.items():
            array = arrays[f"{node.name}/{key}"]
            if array.shape != weight.type.shape:
                raise InputError(
                    f"'{node.name}/{key}' has shape {list(array.shape)}, wanted "
                    f"{list(weight.type.shape)}",
                    where=where,
                )
            fitted[key] = array.astype(np.float32)
        if fitted:
            edit.set_weights(node.name, **fitted)
    return edit.done()


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""
