"""`train` leaves weights that load again, a note of their origin, and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmopt
from lmopt import zoo
from lmopt.data import load_dataset
from lmopt.detector.detector import Detector
from lmopt.errors import GraphError, InputError
from lmopt.flow.events import Noted
from lmopt.flow.folding import folded
from lmopt.flow.recipe import Stage, TrainingRecipe, recipe_for
from lmopt.ir.edit import Edit
from lmopt.ir.ops import Conv2D, HeatmapDecode
from lmopt.ir.types import DType, TensorType
from tests.support.annotated import row, write_folder

RECIPE = TrainingRecipe(epochs=1, folded_epochs=1, batch=4)


def faces(folder: Path) -> Path:
    roles = ["train"] * 4 + ["validation"] * 2
    rng = np.random.default_rng(0)
    rows = [row(f"{k}.png", rng.uniform(8, 56, (68, 2)), role=role) for k, role in enumerate(roles)]
    return write_folder(folder, rows)


def test_faces_without_a_validation_part_are_refused_before_training(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "faces", [row("a.png", np.arange(136.0).reshape(68, 2) / 3, group="1")]
    )
    assert [face.split for face in load_dataset([folder]).faces] == ["train"]
    with pytest.raises(InputError, match="no face of split 'validation'"):
        lmopt.train("pfld-0.25@none", folder, recipe=RECIPE, out=tmp_path / "out")


@pytest.mark.slow
def test_trained_weights_load_again_and_a_second_call_takes_the_checkpoints(
    tmp_path: Path,
) -> None:
    folder, out = faces(tmp_path / "faces"), tmp_path / "out"
    made = lmopt.train("pfld-0.25@none", folder, recipe=RECIPE, out=out, seed=3, command="lmopt x")
    assert made.weights == out / "pfld-0.25.npz"
    again = lmopt.load(f"pfld-0.25@{made.weights}")
    assert made.detector.name == again.name
    assert again.graph.digest() == made.detector.graph.digest()
    assert again.graph.digest() != zoo.load("pfld-0.25@none").graph.digest()
    assert made.score.digest == lmopt.evaluate(made.model, folder, split="validation").digest
    note = made.note.read_text()
    for part in ("faces: 4 training faces", "1 with batch norms, 1 folded", "lmopt x", "Seed: 3"):
        assert part in note
    assert "* Started from: random weights\n" in note
    further = lmopt.train(again, folder, recipe=replace(RECIPE, epochs=0), out=tmp_path / "b")
    assert f"* Started from: pfld-0.25@{made.weights}\n" in further.note.read_text()
    assert f"{made.score.nme_percent:.3f} %" in note
    told: list[object] = []
    second = lmopt.train(
        "pfld-0.25@none", folder, recipe=RECIPE, out=out, seed=3, listen=told.append
    )
    assert second.score.digest == made.score.digest
    # Float weights were judged, half-precision ones are in the archive.
    (curve,) = (e.text for e in told if isinstance(e, Noted) and "kept epoch" in e.text)
    assert curve.endswith("kept epoch 1 of 1")
    judged = float(curve.split()[4])
    assert judged == pytest.approx(made.score.nme_percent, rel=1e-2)
    assert any(
        isinstance(event, Noted) and "no better than the mean shape's" in event.text
        for event in told
    )


@pytest.mark.slow
def test_layers_that_learned_a_constant_are_named(tmp_path: Path) -> None:
    start = folded(zoo.initialize(zoo.load("pfld-0.25@none").graph, 3))
    edit = start.edit()
    bias = np.full(start.node("block1_expand").weight("bias").type.shape, -1e3, np.float32)
    kernel = start.node("block1_expand").weight("kernel").real()
    edit.set_weights("block1_expand", kernel=kernel, bias=bias)
    source = zoo.load("pfld-0.25@none").with_graph(edit.done())
    heard: list[object] = []
    recipe = replace(RECIPE, epochs=0)
    lmopt.train(source, faces(tmp_path / "f"), recipe=recipe, out=tmp_path, listen=heard.append)
    told = [event.text for event in heard if isinstance(event, Noted)]
    assert any(text.startswith("%block1_expand gives the same for every face") for text in told)


@pytest.mark.slow
def test_a_teacher_and_the_pfld_loss_leave_an_ordinary_detector(tmp_path: Path) -> None:
    folder = faces(tmp_path / "faces")
    recipe = replace(RECIPE, epochs=0, loss="pfld", teacher="pfld-0.25@300w")
    made = lmopt.train("pfld-0.25@none", folder, recipe=recipe, out=tmp_path / "out", seed=3)
    start = folded(zoo.initialize(zoo.load("pfld-0.25@none").graph, 3)).weights()
    assert set(made.detector.graph.weights()) == set(start)
    assert made.detector.graph.weights() != start
    assert "teacher='pfld-0.25@300w'" in made.note.read_text()


@pytest.mark.slow
def test_a_cascade_starts_from_a_shorter_one_and_leaves_out_its_stage(tmp_path: Path) -> None:
    folder = faces(tmp_path / "faces")
    short = lmopt.train("dan1@none", folder, recipe=RECIPE, out=tmp_path / "dan1")
    first, second = recipe_for("dan2").stages
    recipe = replace(
        recipe_for("dan2"),
        epochs=2,
        folded_epochs=0,
        batch=4,
        start=short.detector.name,
        stages=(replace(first, share=0.5), replace(second, share=0.5)),
    )
    told: list[object] = []
    long = lmopt.train("dan2@none", folder, recipe=recipe, out=tmp_path / "o", listen=told.append)
    phases = [e.text for e in told if isinstance(e, Noted) and e.text.startswith("phase")]
    assert phases == ["phase 2 of 3: as built, 1 epochs"]
    theirs, ours = short.detector.graph.weights(), long.detector.graph.weights()
    assert all(np.array_equal(ours[key].real(), weight.real()) for key, weight in theirs.items())
    assert not ours.keys() <= theirs.keys()


@pytest.mark.slow
def test_a_stage_on_smaller_pictures_leaves_a_detector_of_the_full_size(tmp_path: Path) -> None:
    folder = faces(tmp_path / "faces")
    recipe = replace(
        RECIPE, folded_epochs=0, loss="heatmap-mse", stages=(Stage(size=32),), keep="last"
    )
    told: list[object] = []
    edit = Edit("heat")
    x = edit.input("image", (None, 64, 64, 3))
    x = edit.add("maps", Conv2D(68, (3, 3), (4, 4)), x)
    edit.output("landmarks", edit.add("read", HeatmapDecode(), x))
    contract = replace(zoo.load("pfld-0.25@none").require_contract(), height=64, width=64)
    source = Detector("heat.keras", edit.done(), contract)
    made = lmopt.train(source, folder, recipe=recipe, out=tmp_path / "out", listen=told.append)
    notes = [event.text for event in told if isinstance(event, Noted)]
    assert "phase 1 of 2: as built on 32x32, 1 epochs" in notes
    start = zoo.initialize(source.graph, recipe.seed).node("maps")
    trained = made.detector.graph.node("maps")
    assert trained.results == start.results == (TensorType(DType.F32, (None, 16, 16, 68)),)
    assert trained.weight("kernel") != start.weight("kernel")


def test_a_start_without_weights_and_a_size_that_does_not_fit_are_refused_at_once(
    tmp_path: Path,
) -> None:
    folder = faces(tmp_path / "faces")
    empty = replace(recipe_for("dan2"), start="dan1@none")
    with pytest.raises(InputError, match="no weights yet"):
        lmopt.train("dan2@none", folder, recipe=empty, out=tmp_path / "o")
    small = replace(RECIPE, stages=(Stage(0.5), Stage(0.5, size=96)))
    with pytest.raises(GraphError, match="made for pictures of 112x112, not 96x96"):
        lmopt.train("pfld-0.25@none", folder, recipe=small, out=tmp_path / "o")
