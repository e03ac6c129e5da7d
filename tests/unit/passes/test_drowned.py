from collections.abc import Mapping

import numpy as np
import pytest

from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph, Value
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.services import QuantScheme
from lmopt_passes.drowned import drowned
from lmopt_passes.post_training import PostTraining
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.scheme import INT8, UINT8
from tests.support.services import DrawnCalibrator

RNG = np.random.default_rng(0)
ORDINARY = np.maximum(RNG.normal(0.1, 0.05, (100, 32)), 0).astype(np.float32)
RARE = np.where(np.arange(100)[:, None] < 3, 60.0, 1.0).astype(np.float32) * ORDINARY
SPARSE = (ORDINARY * (RNG.random((100, 32)) < 0.1)).astype(np.float32)
"""Every unit is silent on most faces, as behind a relu."""
HIDDEN = Value("hidden")


class Shown(DrawnCalibrator):
    """Shows given values of the hidden vector, and what is drawn of all else."""

    def __init__(self, hidden: np.ndarray) -> None:
        self._hidden = hidden

    def ranges(self, graph, values, observer, **rest) -> Mapping[Value, ValueRange]:
        found = super().ranges(graph, values, observer, **rest)
        low, high = float(self._hidden.min()), float(self._hidden.max())
        return {v: ValueRange(low, high) if v == HIDDEN else r for v, r in found.items()}

    def values(self, graph, values, *, faces: int) -> Mapping[Value, np.ndarray]:
        found = super().values(graph, values, faces=faces)
        return {v: self._hidden if v == HIDDEN else array for v, array in found.items()}


def detector() -> Graph:
    edit = Edit("detector")
    image = edit.input("image", (None, 6, 6, 3))

    def drawn(*shape: int) -> dict[str, np.ndarray]:
        return {"kernel": RNG.normal(size=shape).astype(np.float32)}

    maps = edit.add("maps", Conv2D(4, use_bias=False), image, weights=drawn(3, 3, 3, 4))
    pooled = edit.add("pooled", Mean(), maps)
    hidden = Dense(32, use_bias=False, activation="relu")
    behind = edit.add("hidden", hidden, pooled, weights=drawn(4, 32))
    answer = Dense(10, use_bias=False)
    edit.output("landmarks", edit.add("answer", answer, behind, weights=drawn(32, 10)))
    return edit.done()


@pytest.mark.parametrize("scheme", [INT8, UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize(
    ("seen", "lost"),
    [
        (ORDINARY, False),
        (SPARSE, False),
        (RARE, True),
        (np.ones_like(ORDINARY), False),
        (ORDINARY[:1], False),
    ],
    ids=["ordinary", "sparse", "rare", "constant", "one face"],
)
def test_a_vector_is_lost_where_rare_faces_stretch_it(
    seen: np.ndarray, lost: bool, scheme: QuantScheme
) -> None:
    graph, shown = detector(), Shown(seen)
    ranges = shown.ranges(graph, [HIDDEN], "min-max", faces=100, storage=DType.I8)
    found = drowned(graph, scheme, ranges, shown, faces=100)
    assert set(found) == ({HIDDEN} if lost else set())
    wanted = 20 * np.log10(0.05 * 255 * np.sqrt(12) / RARE.max())
    assert list(found.values()) == ([pytest.approx(wanted, abs=0.5)] if lost else [])


@pytest.mark.parametrize("seen", [ORDINARY, RARE], ids=["ordinary", "rare"])
@pytest.mark.parametrize("float_head", [True, False])
def test_what_would_be_lost_stays_real_and_the_report_says_so(
    seen: np.ndarray, float_head: bool
) -> None:
    options = QuantizeInt8("min-max", 4, equalize=False, float_head=float_head)
    made = PostTraining.of(detector(), INT8, Shown(seen), options)
    real = made.quantized().node("hidden").results[0].dtype is DType.F32
    told = [note for note in made.notes if "rare faces stretch its range" in note]
    assert real is bool(told) is (seen is RARE and float_head)
    assert made.quantized().node("maps").results[0].dtype is DType.I8
