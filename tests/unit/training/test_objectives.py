"""Real trainings of small graphs on PFLD's loss, on heatmaps, and of parts of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lmopt.errors import PassError
from lmopt.ir.edit import Edit
from lmopt.ir.graph import Graph
from lmopt.ir.interp import run
from lmopt.ir.ops import Conv2D, Dense, Reshape
from lmopt.pipeline.services import Loss, TrainingPlan, TrainingProgress
from lmopt.training.checkpoint import load_checkpoint
from tests.support.training_graphs import CONTRACT, SIZE, Blobs, detector, fill

pytestmark = pytest.mark.slow

PLAN = TrainingPlan(epochs=10, learning_rate=1e-2, batch=16, warmup_steps=5, weight_average=0.9)
PFLD = replace(PLAN, loss="pfld")
CELLS = SIZE // 2


class Cut(Exception):
    """Stands for whatever interrupts a training."""


@dataclass(frozen=True)
class PosedBlobs(Blobs):
    """Blobs whose places tell a pose; `cut` is the batch that fails."""

    cut: int | None = None

    def batches(
        self, batch: int, seed: int, start: int = 0
    ) -> Iterator[tuple[NDArray[np.generic], ...]]:
        for index, (pixels, targets) in enumerate(super().batches(batch, seed, start), start):
            if index == self.cut:
                raise Cut
            points = targets.reshape(-1, 4)
            angles = np.stack([points[:, 0], points[:, 1], points[:, 2]], axis=1) - 0.5
            yield pixels, targets, angles, np.ones(batch, np.float32)


def mapper() -> Graph:
    """Returns a graph with heatmaps of half the input's size, and coordinates made of them."""
    edit = Edit("mapper")
    image = edit.input("image", (None, SIZE, SIZE, 3))
    x = edit.add("stem", Conv2D(8, (3, 3), (2, 2), activation="relu"), image)
    x = edit.add("middle", Conv2D(8, (3, 3), activation="relu"), x)
    maps = edit.add("maps", Conv2D(2, (1, 1)), x)
    flat = edit.add("flat", Reshape((-1,)), maps)
    edit.output("landmarks", edit.add("landmarks", Dense(4), flat))
    return fill(edit.done())


def changed(before: Graph, after: Graph) -> set[str]:
    """Returns the nodes whose weights differ."""
    old, new = before.weights(), after.weights()
    assert set(old) == set(new)
    return {key.partition("/")[0] for key in old if old[key] != new[key]}


def error_of(graph: Graph) -> float:
    pixels, targets = next(Blobs().batches(64, 9))
    found = run(graph, {"image": CONTRACT.normalize(pixels)})["landmarks"]
    return float(np.sqrt(np.mean((found - targets) ** 2)))


def test_pfld_loss_trains_the_detector_and_leaves_its_branch_behind() -> None:
    from lmopt.training.loop import Course, fit

    seen: list[TrainingProgress] = []
    graph = detector(batch_norm=True)
    trained = fit(graph, Course(PosedBlobs(), CONTRACT, PFLD, 3, on_progress=seen.append))
    assert changed(graph, trained) == {"stem", "stem_bn", "depthwise", "project", "landmarks"}
    assert [node.name for node in trained.nodes] == [node.name for node in graph.nodes]
    assert error_of(trained) < 0.6 * error_of(graph)
    assert seen[-1].step == 40


def test_pfld_training_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmopt.training import loop
    from lmopt.training.loop import Course, fit

    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    graph, file = detector(batch_norm=True), tmp_path / "pfld.npz"
    whole = fit(graph, Course(PosedBlobs(), CONTRACT, PFLD, 3))
    with pytest.raises(Cut):
        fit(graph, Course(PosedBlobs(cut=17), CONTRACT, PFLD, 3, checkpoint=file))
    resumed = fit(graph, Course(PosedBlobs(), CONTRACT, PFLD, 3, checkpoint=file))
    assert resumed.weights() == whole.weights()
    # The branch is in the checkpoint: its last layer has 32 x 3 weights.
    fingerprint = str(np.load(file)["fingerprint"])
    assert (32, 3) in {array.shape for array in load_checkpoint(file, fingerprint)[1]}


def test_pose_branch_reads_the_last_map_of_a_quarter_of_the_input() -> None:
    from lmopt import zoo
    from lmopt.training.pose_branch import pose_branch, pose_features

    graph = zoo.load("pfld-0.25@none").graph
    assert pose_features(graph) == "block5_add"
    assert pose_branch((None, 28, 28, 16)).output_shape == (None, 3)
    edit = Edit("flat")
    edit.output("landmarks", edit.add("landmarks", Dense(4), edit.input("x", (None, 8))))
    with pytest.raises(PassError, match="no feature map for the pose branch"):
        pose_features(edit.done())


@pytest.mark.parametrize("loss", ["heatmap-mse", "adaptive-wing"])
def test_heatmaps_get_their_peaks_at_the_landmarks(loss: Loss) -> None:
    from lmopt.training.loop import Course, fit

    plan = replace(PLAN, loss=loss, epochs=30, heatmap_sigma=1.0)
    graph = mapper()
    trained = fit(graph, Course(Blobs(), CONTRACT, plan, 3))
    # What comes after the heatmaps is not trained.
    assert changed(graph, trained) == {"stem", "middle", "maps"}
    pixels, targets = next(Blobs().batches(64, 9))
    values = run(trained, {"image": CONTRACT.normalize(pixels)}, all_values=True)
    peaks = values["maps"].reshape(64, CELLS * CELLS, 2).argmax(axis=1)
    found = np.stack([peaks % CELLS, peaks // CELLS], axis=-1) + 0.5
    gaps = np.abs(found - targets.reshape(64, 2, 2) * CELLS)
    # A peak is its landmark's own cell or the next one.
    assert np.mean(gaps < 1.01) > 0.9


def test_drawn_heatmaps_by_hand() -> None:
    from lmopt.training.geometry import draw_heatmaps

    points = np.float32([[[0.25, 0.5]]])
    maps = draw_heatmaps(points, 8, 4, 1.5).numpy()
    assert maps.shape == (1, 8, 4, 1)
    # The landmark is at x = 0.25 * 4 - 0.5 and y = 0.5 * 8 - 0.5, counted in cell centres.
    down, across = np.mgrid[:8, :4]
    wanted = np.exp(-((across - 0.5) ** 2 + (down - 3.5) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(maps[0, :, :, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("unit", ["unit", "pixel", "centered"])
@pytest.mark.parametrize("order", ["xyxy", "xxyy"])
def test_coordinates_go_both_ways_as_the_contract_says(unit: str, order: str) -> None:
    from lmopt.training.geometry import decode, encode

    contract = replace(CONTRACT, width=200, height=100, unit=unit, order=order)
    points = np.random.default_rng(0).uniform(size=(3, 2, 2)).astype(np.float32)
    answers = contract.encode(points)
    np.testing.assert_allclose(decode(answers, contract), points, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encode(points, contract), answers, rtol=1e-4, atol=1e-4)


def test_a_graph_without_heatmaps_is_refused() -> None:
    from lmopt.training.loop import Course, fit

    with pytest.raises(PassError, match=r"no heatmaps: .*\[\?, height, width, 2\]"):
        fit(detector(), Course(Blobs(), CONTRACT, replace(PLAN, loss="heatmap-mse"), 3))


def test_frozen_nodes_stay_with_their_statistics() -> None:
    from lmopt.training.loop import Course, fit

    graph = detector(batch_norm=True)
    plan = replace(PLAN, epochs=1, frozen=("stem*", "project"))
    trained = fit(graph, Course(Blobs(), CONTRACT, plan, 3))
    assert changed(graph, trained) == {"depthwise", "landmarks"}
    with pytest.raises(PassError, match="no node fits 'stage1_"):
        fit(graph, Course(Blobs(), CONTRACT, replace(plan, frozen=("stage1_*",)), 3))
    with pytest.raises(PassError, match="no weights to train"):
        fit(graph, Course(Blobs(), CONTRACT, replace(plan, frozen=("*",)), 3))


def test_only_what_leads_to_the_answer_trains() -> None:
    from lmopt.training.loop import Course, fit

    edit = detector(batch_norm=True).edit()
    early = edit.add("early", Dense(4), edit.node("pooled").value)
    graph = edit.done()
    edit = graph.edit()
    edit.output("early", early)
    graph = edit.done()
    graph = fill(graph) if not graph.is_initialized else graph
    plan = replace(PLAN, epochs=1, answer="early")
    trained = fit(graph, Course(Blobs(), CONTRACT, plan, 3))
    assert changed(graph, trained) == {"stem", "stem_bn", "depthwise", "project", "early"}
    with pytest.raises(PassError, match="%pooled: output of 8 numbers, wanted 4"):
        fit(graph, Course(Blobs(), CONTRACT, replace(plan, answer="pooled"), 3))
