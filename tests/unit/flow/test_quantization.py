import numpy as np
import pytest

from lmopt.detector.detector import Detector
from lmopt.errors import InputError
from lmopt.flow.quantization import QuantizationReport, inspect_quantization
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.ops import Conv2D
from lmopt.ir.scaling import map_scales, rescale
from lmopt.ir.types import DType
from lmopt.testing import put_on_grids

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)


def two_layers() -> Graph:
    edit = Edit("two-layers")
    x = edit.input("image", (None, 8, 8, 3))
    for name, inputs, filters in (("first", 3, 8), ("second", 8, 4)):
        kernel = RNG.normal(size=(3, 3, inputs, filters)).astype(np.float32)
        op = Conv2D(filters, use_bias=False, activation="relu" if name == "first" else "none")
        x = edit.add(name, op, x, weights={"kernel": kernel})
    edit.output("answer", x)
    return edit.done()


def report(made_of: Graph, reference: Graph) -> QuantizationReport:
    stored = put_on_grids(made_of, {"image": PICTURES}, DType.I8, edge="int8")
    small, big = (Detector(g.name, g, None) for g in (stored, reference))
    return inspect_quantization(small, against=big)


def test_a_quantized_model_is_no_float_model() -> None:
    graph = two_layers()
    stored = put_on_grids(graph, {"image": PICTURES}, DType.I8, edge="int8")
    with pytest.raises(InputError, match="'two-layers' is quantized itself"):
        report(graph, stored)


def test_a_file_of_equalized_channels_is_compared_with_its_float_model() -> None:
    graph = two_layers()
    units = map_scales(graph)
    drawn = np.exp(np.random.default_rng(1).uniform(-1, 1, len(units.free)))
    equalized = rescale(graph, units, np.where(units.free, drawn, 1.0))
    rows = {row.name: row for row in report(equalized, graph).tensors}
    own = {row.name: row for row in report(equalized, equalized).tensors}
    for name in ("first", "second"):
        got, wanted = rows[name].expected_rms, own[name].expected_rms
        assert got is not None and wanted is not None
        np.testing.assert_allclose(got, wanted, rtol=0.05)
