"""A small detector and small annotated folders for commands to work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lmopt import zoo
from tests.support.annotated import row, write_folder


def points(seed: int) -> np.ndarray:
    """68 landmarks scattered over a 64x64 picture."""
    return np.random.default_rng(seed).uniform(8, 56, (68, 2)).round(3)


@dataclass(frozen=True)
class Bench:
    """Names and places a command line needs."""

    detector: str
    faces: Path
    model: Path
    root: Path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from lmopt.codegen.tflite import emit
    from lmopt.detector.document import CONTRACT_KEY, contract_to_json
    from lmopt.flow.folding import folded

    root = tmp_path_factory.mktemp("bench")
    detector = zoo.load("pfld-0.25@none")
    graph = zoo.initialize(detector.graph, 1)
    zoo.write_archive(graph, root / "drawn.npz")
    roles = ["train"] * 9 + ["validation"] * 3 + ["test"] * 4
    rows = [row(f"f{k}.png", points(k), role=role, group=f"g{k}") for k, role in enumerate(roles)]
    write_folder(root / "faces", rows)
    contract = contract_to_json(detector.require_contract())
    model = root / "drawn.tflite"
    model.write_bytes(emit(folded(graph), metadata={CONTRACT_KEY: contract}))
    return Bench(f"pfld-0.25@{root / 'drawn.npz'}", root / "faces", model, root)
