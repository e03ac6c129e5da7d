"""The networks of a calibration, and visits to many models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D
from lmopt.latency.micronets import FOOTPRINTS, MIXED, SHARES, design
from lmopt.latency.visits import visits

DESIGN = design()


def test_every_storage_has_its_share_of_networks() -> None:
    names = [net.name for net in DESIGN]
    assert len(set(names)) == len(names) > 900
    mixed = Counter(net.storage for net in DESIGN if net.mixed)
    assert mixed == {storage: round(MIXED * share) for storage, share in SHARES.items()}


def test_weights_of_mixed_networks_fill_every_cache() -> None:
    graphs = [net.make() for net in DESIGN if net.mixed and net.storage == "f32"]
    sizes = [sum(w.type.nbytes for node in g.nodes for w in node.weights.values()) for g in graphs]
    counts, _ = np.histogram(sizes, FOOTPRINTS)
    assert counts.tolist() == [MIXED // 5] * 5


@pytest.mark.parametrize("storage", SHARES)
def test_networks_compute_in_their_storage(storage: str) -> None:
    chosen = [net for net in DESIGN if net.storage == storage]
    for net in (*chosen[:2], chosen[-1]):
        graph = net.graph()
        assert emit(graph)
        stored = {node.results[0].dtype.value for node in graph.nodes if node.op.kind == "conv2d"}
        assert stored == {storage}


def test_visits_time_every_model_and_survive_one_that_is_none(tmp_path: Path) -> None:
    files = {}
    for name, filters in (("small", 8), ("large", 256)):
        edit = Edit(name)
        image = edit.input("image", (None, 32, 32, 16))
        edit.output("y", edit.add("conv", Conv2D(filters, (3, 3)), image))
        files[name] = tmp_path / f"{name}.tflite"
        files[name].write_bytes(emit(zoo.initialize(edit.done(), 0)))
    files["none"] = tmp_path / "none.tflite"
    files["none"].write_bytes(b"no model at all")
    order = [("none", 1), ("small", 1), ("none", 1), ("large", 1), ("small", 1)]
    found = list(visits(files, order))
    assert [(visit.name, visit.threads) for visit in found] == order
    assert [visit.us is None for visit in found] == [True, False, True, False, False]
    assert "refuses to load" in found[0].failure and not found[1].failure
    assert found[3].us > 3 * found[1].us > 0  # 32 times the work
