"""Files of TensorFlow's converter are read, verified and written again with the same outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmopt.codegen.tflite import emit
from lmopt.flow.sources import load
from lmopt.frontend.tflite import read
from lmopt.ir import Graph
from lmopt.ir.interp import run
from lmopt.ir.types import DType
from lmopt.ir.verify import verify
from lmopt.pipeline.base import PassContext
from lmopt.runtime.runner import Runner
from lmopt_passes.fold_batchnorm import FoldBatchnorm
from lmopt_passes.prune import Prune
from tests.support.foreign_models import FOLDER, MODELS, write_all
from tests.support.op_zoo import on_grids

pytestmark = pytest.mark.slow
LIKE_MOBILENET = ("mobilenet_v2", "mobilenet_v3", "efficientnet_lite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_all(tmp_path_factory.mktemp("foreign"))


def graph_of(folder: Path, name: str) -> tuple[bytes, Graph]:
    data = (folder / f"{name}.tflite").read_bytes()
    return data, read(data, name)[0]


def image_for(graph: Graph) -> np.ndarray:
    (source,) = graph.inputs
    low, high = (0, 255) if "rescal" in str(graph) else (-1, 1)
    drawn = np.random.default_rng(3).uniform(low, high, (2, *source.results[0].shape[1:]))
    return drawn.astype(np.float32)


def outputs(data: bytes, image: np.ndarray) -> list[np.ndarray]:
    with Runner(data) as runner:
        (info,) = runner.inputs
        return list(runner.run({info.name: image}).values())


def assert_near(got: list[np.ndarray], want: list[np.ndarray], share: float) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.shape == other.shape and np.ptp(other) > 1e-3
        np.testing.assert_allclose(one, other, rtol=0, atol=share * np.abs(other).max())


@pytest.mark.parametrize("name", [*MODELS, "halves"])
def test_a_converted_model_comes_out_as_it_went_in(folder, name):
    data, graph = graph_of(folder, name)
    verify(graph)
    image = image_for(graph)
    want = outputs(data, image)
    assert_near(outputs(emit(graph), image), want, 1e-4)
    (source,) = graph.inputs
    assert_near(list(run(graph, {source.name: image}).values()), want, 1e-4)


def test_structure_is_found_again(folder):
    dilated = [n.op for n in graph_of(folder, "dilated")[1].nodes if n.op.kind.endswith("conv2d")]
    assert [op.dilation for op in dilated] == [(2, 2), (2, 2), (3, 3), (1, 1), (2, 2), (1, 1)]
    assert [op.padding for op in dilated[:3]] == ["same", "same", "valid"]
    assert dilated[3].groups == 4
    maps = graph_of(folder, "u_net")[1]
    ups = [n.op for n in maps.nodes if n.op.kind == "conv2d_transpose"]
    assert [(op.kernel, op.stride, op.padding) for op in ups] == [
        ((2, 2), (2, 2), "same"),
        ((2, 2), (2, 2), "same"),
        ((3, 3), (2, 2), "valid"),
    ]


@pytest.mark.parametrize("name", LIKE_MOBILENET)
def test_a_converted_model_quantizes(folder, name):
    _, graph = graph_of(folder, name)
    folded = FoldBatchnorm().apply(graph, PassContext(seed=0)).graph
    quantized = on_grids(folded, DType.I8, edge=True)
    image = np.random.default_rng(1).normal(size=(2, *graph.inputs[0].results[0].shape[1:]))
    image = image.astype(np.float32)
    want, got = outputs(emit(folded), image), outputs(emit(quantized), image)
    assert_near(got, want, 0.1)


@pytest.mark.parametrize("name", [*LIKE_MOBILENET, "u_net"])
def test_a_converted_model_is_pruned(folder, name):
    _, graph = graph_of(folder, name)
    pruned = Prune(0.3).apply(graph, PassContext(seed=0)).graph
    assert pruned.macs <= 0.7 * graph.macs
    image = image_for(graph)
    want = list(run(pruned, {pruned.inputs[0].name: image}).values())
    assert_near(outputs(emit(pruned), image), want, 1e-4)


def test_a_saved_model_is_a_detector(folder):
    detector = load(folder / FOLDER)
    data, graph = graph_of(folder, "mobilenet_v3")
    image = image_for(graph)
    (source,) = detector.graph.inputs
    assert_near(
        list(run(detector.graph, {source.name: image}).values()), outputs(data, image), 1e-4
    )
