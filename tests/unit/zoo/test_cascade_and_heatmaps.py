"""DAN and HRNet: one file of built-in operators each, equal to what is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from lmopt import zoo
from lmopt.codegen.tflite import emit
from lmopt.detector.scheme import IBUG_68
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.pipeline.base import PassContext
from lmopt.pipeline.manager import Pipeline
from lmopt.runtime.runner import Runner
from lmopt.zoo import dan, hrnet
from lmopt.zoo.mean_shape import MEAN_SHAPE

SMALL: dict[str, Callable[[], Graph]] = {
    "dan1": lambda: dan.build("dan1", 1, 64),
    "dan2": lambda: dan.build("dan2", 2, 48),
    "dan3": lambda: dan.build("dan3", 3, 32, folded=True),
    "hrnet": lambda: hrnet.build("hrnet", 64, folded=True),
    "hrnet-soft": lambda: hrnet.build("hrnet-soft", 64, decode="softargmax", folded=True),
    "heatmaps": lambda: hrnet.build("heatmaps", 64, decode=None, folded=True),
}
FULL = ("dan1", "dan2", "hrnet-w18")


def filled(graph: Graph) -> Graph:
    """Drawn weights, with offsets as small as those of a trained cascade."""
    graph = zoo.initialize(graph, 1)
    edit = graph.edit()
    for node in graph.nodes:
        if node.name.endswith("_offset"):
            edit.set_weights(node.name, kernel=0.02 * node.weight("kernel").real())
    return edit.done()


def faces(graph: Graph, count: int) -> NDArray[np.float32]:
    shape = graph.inputs[0].results[0].shape[1:]
    return np.random.default_rng(2).uniform(size=(count, *shape)).astype(np.float32)


def operators(data: bytes) -> set[str]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    assert len(model.subgraphs) == 1
    assert not any(code.customCode for code in model.operatorCodes)
    return {names[code.builtinCode] for code in model.operatorCodes}


def compare(got: NDArray[np.generic], want: NDArray[np.generic]) -> None:
    assert got.shape == want.shape
    assert np.ptp(want, axis=0).max() > 1e-4, "the answer does not depend on the picture"
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


def in_file(graph: Graph, image: NDArray[np.float32]) -> NDArray[np.generic]:
    data = emit(graph)
    assert "CUSTOM" not in operators(data)
    with Runner(data) as runner:
        (result,) = runner.run({"image": image}).values()
    return result


@pytest.mark.parametrize("name", ["dan2", "dan3", "hrnet", "hrnet-soft"])
def test_the_file_computes_what_the_interpreter_computes(name: str) -> None:
    graph = filled(SMALL[name]())
    image = faces(graph, 2)
    (want,) = run(graph, {"image": image}).values()
    compare(in_file(graph, image), want)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *FULL])
def test_the_file_computes_what_is_trained(name: str) -> None:
    from lmopt.training.lower import lower

    graph = filled(zoo.load(f"{name}@none").graph if name in FULL else SMALL[name]())
    image = faces(graph, 2)
    (want,) = (value.numpy() for value in lower(graph).run({"image": image}).values())
    compare(in_file(graph, image), want)


@pytest.mark.slow
@pytest.mark.parametrize("joint", [True, False])
def test_the_second_stage_sends_gradients_through_the_warp(joint: bool) -> None:
    from lmopt.training.backend import tf
    from lmopt.training.lower import lower

    graph = filled(SMALL["dan2"]())
    lowered = lower(graph)
    for name, layer in lowered.layers.items():
        layer.trainable = joint or not name.startswith("stage1_")
    variables = lowered.model.trainable_variables
    with tf.GradientTape() as tape:
        points = lowered.run({"image": faces(graph, 2)}, training=True)["landmarks"]
        loss = tf.reduce_mean(tf.square(points - np.ravel(MEAN_SHAPE)))
    gradients = tape.gradient(loss, variables)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in gradients)
    names = {variable.name for variable in variables}
    assert any("stage2_offset" in name for name in names)
    assert any("stage1_conv1_1" in name for name in names) is joint


def test_a_cascade_starts_at_the_mean_shape() -> None:
    graph = zoo.initialize(dan.build("dan2", 2, 32), 1)
    edit = graph.edit()
    for stage in (1, 2):
        edit.set_weights(f"stage{stage}_offset", kernel=np.zeros((256, 136), np.float32))
    points = run(edit.done(), {"image": faces(graph, 1)})["landmarks"]
    np.testing.assert_allclose(points.reshape(68, 2), MEAN_SHAPE, atol=1e-5)


def test_the_mean_shape_is_its_own_mirror_image() -> None:
    shape = np.array(MEAN_SHAPE)
    mirrored = shape[list(IBUG_68.mirror or ())] * [-1, 1] + [1, 0]
    np.testing.assert_allclose(shape, mirrored, atol=2e-3)
    low, high = shape.min(axis=0), shape.max(axis=0)
    assert ((low > 0.1) & (high < 0.9)).all()


def test_weights_of_a_shorter_cascade_fit_a_longer_one() -> None:
    one, two = dan.build("dan1", 1), dan.build("dan2", 2)
    first = {key: w.type for key, w in two.weights().items() if not key.startswith("stage2_")}
    assert first == {key: w.type for key, w in one.weights().items()}
    assert dict(one.outputs)["landmarks"].node == dan.landmarks_of(1) == "stage1_landmarks"
    assert dict(two.outputs)["landmarks"].node == dan.landmarks_of(2)


def test_heatmaps_are_decoded_and_laid_bare_with_the_same_weights() -> None:
    bare = filled(hrnet.build("h", 64, decode=None, folded=True))
    ((name, value),) = bare.outputs
    assert (name, bare.type(value).shape) == (hrnet.HEATMAPS, (None, 16, 16, 68))
    whole = hrnet.decoded(bare)
    assert str(hrnet.bare(whole)) == str(bare)
    assert whole.node("stem1").weight("kernel") is bare.node("stem1").weight("kernel")
    image = faces(bare, 1)
    maps = run(bare, {"image": image})["heatmaps"][0]
    points = run(whole, {"image": image})["landmarks"].reshape(68, 2)
    peaks = [np.unravel_index(maps[..., k].argmax(), (16, 16)) for k in range(68)]
    centers = (np.array(peaks)[:, ::-1] + 0.5) / 16
    assert (np.abs(points - centers) < 0.3 / 16).all()
    assert (points != centers).any()


def test_branches_of_hrnet() -> None:
    graph = hrnet.build("h")
    shapes = [
        graph.node(f"stage4_3_sum{k}_{4 if k < 4 else 3}").results[0].shape for k in (1, 2, 3, 4)
    ]
    assert shapes == [(None, 64 // 2**k, 64 // 2**k, 18 * 2**k) for k in range(4)]
    assert graph.node("head_concat").results[0].shape == (None, 64, 64, 270)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dan1", "hrnet"])
@pytest.mark.parametrize("text", ["prune{amount=0.3}", "scale-width", "insert-pool"])
def test_passes_that_remove_channels_and_shrink_maps(name: str, text: str) -> None:
    graph = filled(SMALL[name]())
    pipeline = Pipeline.parse(f"fold-batchnorm,{text}")
    small = pipeline.run(graph, PassContext()).graph
    assert small.macs <= 0.7 * graph.macs
    image = faces(small, 2)
    (want,) = run(small, {"image": image}).values()
    assert want.shape == (2, 136)
    compare(in_file(small, image), want)
