"""Kernels fitted behind a change: what they answer, and what is left alone."""

import numpy as np
import pytest

from lmopt import zoo
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Add, Conv2D, Dense, DepthwiseConv2D, Mean, Reshape
from lmopt.pipeline.base import Need, PassContext
from lmopt_passes import map_fit
from lmopt_passes.drop_block import DropBlock
from lmopt_passes.insert_pool import InsertPool
from lmopt_passes.map_fit import fit_behind
from lmopt_passes.resize_input import ResizeInput
from tests.support.services import DistanceScorer, DrawnCalibrator, _seen


def net() -> Graph:
    """Convolutions of every kind and a head that reads a whole map."""
    edit = Edit("net")
    image = edit.input("image", (None, 16, 16, 3))
    x = edit.add("stem", Conv2D(6, activation="relu"), image)
    x = edit.add("deep", DepthwiseConv2D(activation="relu"), x)
    x = edit.add("point", Conv2D(6, (1, 1), use_bias=False), x)
    x = edit.add("down", Conv2D(4, stride=(2, 2), activation="relu"), x)
    whole = edit.add("flat", Reshape(), edit.add("whole", Conv2D(5, (8, 8), padding="valid"), x))
    edit.output("landmarks", edit.add("landmarks", Dense(4), whole))
    return zoo.initialize(edit.done(), 2)


class ManyFaces(DrawnCalibrator):
    """Shows enough smooth pictures for a fit to hold on others."""

    def values(self, graph, values, *, faces):
        seen = run(graph, {"image": smooth(faces, 1)}, all_values=True)
        return {value: seen[str(value)[1:]] for value in values}


def smooth(faces: int, seed: int) -> np.ndarray:
    """Returns pictures whose every 4x4 pixels are alike, but for a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(size=(faces, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + 0.05 * rng.normal(size=coarse.shape)).astype(np.float32)


def missed(graph: Graph, other: Graph) -> float:
    """Returns the part of the answers' variance on other pictures that a graph does not give."""
    image = {"image": smooth(60, 9)}
    wanted, found = run(graph, image)["landmarks"], run(other, image)["landmarks"]
    return float(((found - wanted) ** 2).mean() / wanted.var(axis=0).mean())


def test_a_fit_on_faces_brings_the_start_nearer() -> None:
    graph = net()
    faces = PassContext(services={Need.CALIBRATOR: ManyFaces()})
    ruled = InsertPool("stem", reconstruct=False).apply(graph, faces)
    fitted = InsertPool("stem", faces=150).apply(graph, faces)
    assert missed(graph, fitted.graph) < 0.4 * missed(graph, ruled.graph)
    assert fitted.notes[:-1] == ruled.notes
    assert fitted.notes[-1].startswith("5 kernels fitted on up to 150 faces; they explain at least")
    assert faces.reads == {str(Need.CALIBRATOR): "drawn"}
    assert ruled.graph == InsertPool("stem").apply(graph, PassContext()).graph
    assert fitted.graph.node("point").op.use_bias
    assert fitted.graph.node("stem").weights == graph.node("stem").weights


@pytest.mark.parametrize("size", [12, 8])
def test_kernels_behind_a_smaller_picture_are_fitted(size: int) -> None:
    graph = net()
    faces = PassContext(services={Need.CALIBRATOR: ManyFaces()})
    ruled = ResizeInput(size, reconstruct=False).apply(graph, faces)
    fitted = ResizeInput(size, faces=150).apply(graph, faces)
    assert missed(graph, fitted.graph) < 0.6 * missed(graph, ruled.graph)
    assert fitted.notes[:-1] == ruled.notes
    assert fitted.notes[-1].startswith("6 kernels fitted on up to 150 faces")
    assert ruled.graph == ResizeInput(size).apply(graph, PassContext()).graph


def test_kernels_behind_a_dropped_block_make_up_for_it() -> None:
    """A block that only mixes channels can be had from the 1x1 convolution behind it."""
    edit = Edit("net")
    x = edit.add("stem", Conv2D(3, activation="relu"), edit.input("image", (None, 8, 8, 2)))
    x = edit.add("sum", Add(), x, edit.add("branch", Conv2D(3, (1, 1)), x))
    x = edit.add("mean", Mean(), edit.add("behind", Conv2D(5, (1, 1), activation="relu"), x))
    edit.output("landmarks", edit.add("landmarks", Dense(10), x))
    graph = zoo.initialize(edit.done(), 0)
    services = {Need.CALIBRATOR: DrawnCalibrator(), Need.SCORER: DistanceScorer(graph)}
    context = PassContext(services=services)
    ruled = DropBlock(reconstruct=False).apply(graph, context)
    fitted = DropBlock(faces=30).apply(graph, context)
    assert "branch" not in fitted.graph and "branch" not in ruled.graph
    assert fitted.notes[0] == ruled.notes[0]
    assert fitted.notes[1].startswith("2 kernels fitted on up to 30 faces")
    wanted, before, found = (
        _seen(each)["landmarks"] for each in (graph, ruled.graph, fitted.graph)
    )
    assert np.abs(found - wanted).max() < 0.02 * np.abs(before - wanted).max()


def test_without_change_nothing_is_fitted() -> None:
    graph = net()
    assert fit_behind(graph, graph, DrawnCalibrator(), faces=4) == (graph, ())


def test_layers_that_give_no_map_are_fitted_exactly_where_they_can_be() -> None:
    edit = Edit("net")
    x = edit.add("stem", Conv2D(3, (1, 1)), edit.input("image", (None, 8, 8, 2)))
    edit.output("landmarks", edit.add("landmarks", Dense(3), edit.add("mean", Mean(), x)))
    graph = zoo.initialize(edit.done(), 0)
    pooled = InsertPool("stem", reconstruct=False).apply(graph, PassContext()).graph
    fitted, notes = fit_behind(graph, pooled, DrawnCalibrator(), faces=4)
    assert notes[0].startswith("1 kernels fitted")
    wanted, found = (_seen(each)["landmarks"] for each in (graph, fitted))
    before = _seen(pooled)["landmarks"]
    assert np.abs(found - wanted).max() < 0.2 * np.abs(before - wanted).max()


def test_answers_are_fetched_in_parts_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = net()
    pooled = InsertPool("stem").apply(graph, PassContext()).graph
    whole, _ = fit_behind(graph, pooled, ManyFaces(), faces=20)
    monkeypatch.setattr(map_fit, "MOST_VALUES", 1)
    parts, _ = fit_behind(graph, pooled, ManyFaces(), faces=20)
    assert parts == whole


def test_large_kernels_stay_as_the_rule_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = net()
    pooled = InsertPool("stem").apply(graph, PassContext()).graph
    monkeypatch.setattr(map_fit, "MOST_ROWS", 60)
    fitted, notes = fit_behind(graph, pooled, ManyFaces(), faces=20)
    assert notes[0].startswith("4 kernels fitted")
    assert notes[1] == "too large to be fitted on faces: %whole"
    assert fitted.node("whole").weights == pooled.node("whole").weights
