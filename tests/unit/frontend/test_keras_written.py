"""Models that Keras 3 and tf_keras have written compute here what they predicted there."""

from __future__ import annotations

import numpy as np
import pytest

from lmopt.errors import InputError
from lmopt.frontend.keras import read
from lmopt.ir.interp import run
from lmopt.ir.text import parse_graph, weights_of
from tests.support.keras_files import FORMATS, MODELS, WRITERS, write_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("keras"))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_keras_predicts(folders, writer, suffix, name):
    graph = read(folders[writer] / f"{name}.{suffix}")
    stored = np.load(folders[writer] / f"{name}.npz")
    feeds = {node.name: stored[f"input_{k}"] for k, node in enumerate(graph.inputs)}
    results = list(run(graph, feeds).values())
    assert len(results) == sum(key.startswith("output_") for key in stored)
    for position, got in enumerate(results):
        want = stored[f"output_{position}"]
        assert got.shape == want.shape and np.ptp(want) > 0.01
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("writer", WRITERS)
def test_names_types_and_shared_weights_are_those_of_the_layers(folders, writer, suffix):
    graph = read(folders[writer] / f"everything.{suffix}")
    assert [(node.name, node.results[0].shape) for node in graph.inputs] == [
        ("image", (None, 12, 10, 3))
    ]
    assert [name for name, _ in graph.outputs] == ["landmarks", "means"]
    assert graph.node("landmarks").op.kind == "reshape"
    shared = "block.shared" if writer == "keras" else "block/shared"
    twice = [graph.node(shared), graph.node(f"{shared}_2")]
    assert [node.op.activation for node in twice] == ["relu6", "relu6"]
    assert twice[0].weight("kernel") is twice[1].weight("kernel")
    inner = [graph.node(name) for name in ("nested/slope", "nested/slope_2")]
    assert inner[0].weight("alpha") is inner[1].weight("alpha")
    assert "branches/deeper/inner" in graph and "branches/own" in graph
    assert graph.node("strided.conv").op.stride == (2, 2)
    assert not any("dropout" in node.name or "noise" in node.name for node in graph.nodes)
    assert parse_graph(str(graph), weights_of(graph)) == graph


@pytest.mark.parametrize("writer", WRITERS)
def test_both_formats_give_one_graph(folders, writer):
    texts = {str(read(folders[writer] / f"everything.{suffix}")) for suffix in FORMATS}
    assert len(texts) == 1


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("writer", WRITERS)
def test_low_precision_weights_become_float32(folders, writer, suffix):
    node = read(folders[writer] / f"low_precision.{suffix}").node("low")
    stored = np.load(folders[writer] / "low_precision.npz")
    for key in ("kernel", "bias"):
        array = node.weight(key).array
        assert array is not None and array.dtype == np.float32
        np.testing.assert_array_equal(array, stored[key])


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("name", "layer"),
    [("lambda", "'code' (Lambda)"), ("custom", "'twice' (Twice)"), ("registered", "'not_dense'")],
)
def test_code_is_refused_and_not_run(folders, writer, suffix, name, layer):
    mark = folders[writer] / "executed"
    with pytest.raises(InputError) as caught:
        read(folders[writer] / f"{name}.{suffix}")
    assert layer in str(caught.value.where) and "cut" in str(caught.value.hint)
    assert (folders[writer] / "built").exists()  # building the model ran the code
    assert not mark.exists()
