"""Graphs as files: text, weights and provenance in one .npz, without pickles."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lmopt.errors import GraphError, InputError
from lmopt.ir.graph import Graph, Loc
from lmopt.ir.text import parse_graph, print_graph, weights_of
from lmopt.ir.types import Quant, Weight

_FORMAT = 1


def save_graph(graph: Graph, path: Path) -> None:
    """Writes a graph; the file appears whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    weights = weights_of(graph)
    header = {
        "format": _FORMAT,
        "text": print_graph(graph),
        "grids": {key: _grid(w.type.quant) for key, w in weights.items() if w.type.quant},
        "locs": {node.name: [node.loc.source, *node.loc.passes] for node in graph.nodes},
    }
    arrays: dict[str, Any] = {key: weight.array for key, weight in weights.items()}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_graph(path: Path) -> Graph:
    """Returns the graph in a file that `save_graph` wrote, its weights checked by digest.

    Raises:
        InputError: The file is missing, damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(archive["header"].tobytes())
            if header["format"] != _FORMAT:
                raise InputError(f"format {header['format']}, wanted {_FORMAT}", where=str(path))
            weights = {
                key: Weight.of(archive[key], _quant(header["grids"].get(key)))
                for key in archive.files
                if key != "header"
            }
        for key, weight in weights.items():
            if weight.digest != key:
                raise InputError(f"weight {key} is damaged", where=str(path))
        graph = parse_graph(header["text"], weights, where=str(path))
        return _with_locs(graph, header["locs"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"not a stored graph: {error}", where=str(path)) from error
    except GraphError as error:
        raise InputError(f"not a stored graph: {error.what}", where=str(path)) from error


def _with_locs(graph: Graph, locs: Mapping[str, list[str]]) -> Graph:
    nodes = (
        replace(node, loc=Loc(locs[node.name][0], tuple(locs[node.name][1:])))
        for node in graph.nodes
    )
    return Graph(graph.name, tuple(nodes), graph.outputs)


def _grid(quant: Quant) -> list[Any]:
    return [quant.scale, quant.zero_point, quant.axis]


def _quant(grid: list[Any] | None) -> Quant | None:
    return None if grid is None else Quant(tuple(grid[0]), tuple(grid[1]), grid[2])
