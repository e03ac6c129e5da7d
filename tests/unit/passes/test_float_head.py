import numpy as np
import pytest

from lmopt import zoo
from lmopt.flow.folding import folded
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D, Dense, Mean
from lmopt.ir.types import DType
from lmopt_passes.float_head import float_head
from lmopt_passes.post_training import PostTraining
from lmopt_passes.quantize_int8 import QuantizeInt8
from lmopt_passes.scheme import INT8
from tests.support.services import DrawnCalibrator


def detector(units: int) -> Graph:
    rng = np.random.default_rng(0)
    edit = Edit("detector")
    image = edit.input("image", (None, 16, 16, 3))
    kernel = rng.normal(size=(3, 3, 3, 16)).astype(np.float32)
    maps = edit.add("maps", Conv2D(16, use_bias=False), image, weights={"kernel": kernel})
    pooled = edit.add("pooled", Mean(), maps)
    head = rng.normal(size=(16, units)).astype(np.float32)
    answer = edit.add("answer", Dense(units, use_bias=False), pooled, weights={"kernel": head})
    edit.output("landmarks", answer)
    return edit.done()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pfld-0.25", {"s1_pool", "s2_pool", "s3_flat", "features", "landmarks"}),
        ("basic", {"landmarks"}),
        ("hrnet-w18", {"landmarks"}),
    ],
)
def test_the_head_is_what_costs_next_to_nothing(name: str, wanted: set[str]) -> None:
    graph = folded(zoo.initialize(zoo.load(f"{name}@none").graph, 0))
    assert {n for n in float_head(graph) if graph.node(n).op.kind != "constant"} == wanted


def test_a_kernel_with_many_parameters_is_no_head() -> None:
    # of 432 + 16 n parameters, 16 n may be a tenth at most: n = 3
    assert float_head(detector(3)) == {"answer", "pooled"}
    assert float_head(detector(4)) == frozenset()


@pytest.mark.parametrize(("output", "real"), [("float32", {"answer", "pooled"}), ("int8", set())])
def test_integer_answers_come_from_an_integer_head(output, real) -> None:
    options = QuantizeInt8("min-max", 4, "float32", output)
    made = PostTraining.of(detector(3), INT8, DrawnCalibrator(), options).quantized()
    kinds = {name for name in ("answer", "pooled") if made.node(name).results[0].dtype is DType.F32}
    assert kinds == real
