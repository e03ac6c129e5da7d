"""`train` leaves weights that load again, a note of their origin, and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmopt
from lmopt import zoo
from lmopt.data import load_dataset
from lmopt.errors import InputError
from lmopt.flow.events import Noted
from lmopt.flow.folding import folded
from lmopt.flow.recipe import TrainingRecipe
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
def test_a_teacher_and_the_pfld_loss_leave_an_ordinary_detector(tmp_path: Path) -> None:
    folder = faces(tmp_path / "faces")
    recipe = replace(RECIPE, epochs=0, loss="pfld", teacher="pfld-0.25@300w")
    made = lmopt.train("pfld-0.25@none", folder, recipe=recipe, out=tmp_path / "out", seed=3)
    start = folded(zoo.initialize(zoo.load("pfld-0.25@none").graph, 3)).weights()
    assert set(made.detector.graph.weights()) == set(start)
    assert made.detector.graph.weights() != start
    assert "teacher='pfld-0.25@300w'" in made.note.read_text()
