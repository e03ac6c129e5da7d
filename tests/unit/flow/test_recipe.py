"""Recipes: read strictly, one per zoo detector, and what the command line lets win over them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

import lmopt
from lmopt import zoo
from lmopt.cli.app import app
from lmopt.data.augment import AUGMENTATIONS, Augmentation
from lmopt.errors import InputError, UsageError
from lmopt.flow.recipe import Stage, TrainingRecipe, load_recipe, recipe_for
from lmopt.pipeline.services import Teacher
from tests.support.training_graphs import CONTRACT, detector


class Asked(Exception):
    """Carries what a training was asked for."""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_zoo_detector_has_a_recipe_that_reads() -> None:
    named = {path.stem for path in zoo.RECIPES.glob("*.toml")}
    assert set(zoo.DETECTORS) <= named
    for name in named:
        document = tomllib.loads((zoo.RECIPES / f"{name}.toml").read_text())
        recipe = recipe_for(f"{name}@none")
        document.pop("stages", None)
        for key, value in document.items():
            assert getattr(recipe, key) == (tuple(value) if isinstance(value, list) else value)


def test_the_paper_and_the_defaults() -> None:
    assert recipe_for("pfld-0.25") == TrainingRecipe() == recipe_for("mine.keras")
    basic = recipe_for("basic")
    wanted = ("rmse", 120, 300.0, 7)
    assert (basic.loss, basic.batch, basic.epochs, basic.seed) == wanted
    assert set(AUGMENTATIONS) == set(get_args(Augmentation))


def test_phases_follow_the_stages() -> None:
    recipe = recipe_for("dan2")
    teacher = Teacher(detector(), CONTRACT, 0.25)
    first, second, last = plans = [phase.plan for phase in recipe.phases(teacher)]
    assert (first.epochs, first.answer, first.frozen) == (20.0, "stage1_landmarks", ())
    assert (second.epochs, second.answer, second.frozen) == (20.0, None, ("stage1_*",))
    assert (last.epochs, last.frozen) == (0.0, ())
    assert all(plan.teacher is teacher and plan.loss == "wing" for plan in plans)


def test_a_stage_may_see_smaller_pictures() -> None:
    stages = (Stage(0.75, size=128), Stage(0.25))
    recipe = TrainingRecipe(epochs=8, folded_epochs=2, stages=stages)
    assert [(phase.plan.epochs, phase.size) for phase in recipe.phases()] == [
        (6.0, 128),
        (2.0, None),
        (2.0, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'\nhint: did you mean 'epochs'"),
        ("[[stages]]\nshar = 0.5", r"unknown key 'stages\.0\.shar'"),
        ('epochs = "3"', "'epochs' is '3': wanted a valid number"),
        ("batch = 1.5", r"'batch' is 1\.5: wanted a valid integer"),
        ('loss = "wang"', "'loss' is 'wang': wanted 'l1'"),
        ("[[stages]]\nshare = 0.5", r"shares are \[0\.5\]"),
        ("stages = []", r"shares are \[\]"),
        ("epochs = 0\nfolded_epochs = 0", "nothing to train"),
        ("epochs =", "no TOML"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the recipe cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_values_that_are_no_recipe() -> None:
    for wrong in ({"weight_average": 1.0}, {"heatmap_sigma": 0.0}, {"stages": (Stage(0.5),)}):
        with pytest.raises(UsageError):
            replace(TrainingRecipe(), **wrong)  # type: ignore[arg-type]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingRecipe]:
    """Returns what `lmopt train` with some arguments would train by."""

    def train(detector: str, data: object, **given: Any) -> None:
        raise Asked(given["recipe"])

    monkeypatch.setattr(lmopt, "train", train)

    def ask(*arguments: str) -> TrainingRecipe:
        result = CliRunner().invoke(app, ["train", *arguments])
        assert isinstance(result.exception, Asked), result.output
        recipe: TrainingRecipe = result.exception.args[0]
        return recipe

    return ask


def test_options_win_over_the_recipe(asked: Callable[..., TrainingRecipe], tmp_path: Path) -> None:
    assert asked("basic") == recipe_for("basic")
    changed = asked("basic@none", "--loss", "pfld", "--epochs", "2", "--seed", "3")
    assert changed == replace(recipe_for("basic"), loss="pfld", epochs=2.0, seed=3)
    file = str(write(tmp_path, 'batch = 5\nteacher = "pfld-1.0"\n'))
    mine = asked("basic", "--recipe", file, "--teacher-weight", "0.2", "--augmentation", "thesis")
    assert mine == TrainingRecipe(
        batch=5, teacher="pfld-1.0", teacher_weight=0.2, augmentation="thesis"
    )


@pytest.mark.parametrize(("option", "word"), [("--loss", "wang"), ("--augmentation", "much")])
def test_unknown_words_name_the_choices(option: str, word: str) -> None:
    result = CliRunner().invoke(app, ["train", "basic", option, word])
    assert result.exit_code == UsageError.exit_code
    assert f"{option}: no {option[2:]} '{word}'" in result.stderr
    assert "hint: choose " in result.stderr


def test_a_teacher_needs_weights(tmp_path: Path) -> None:
    from tests.unit.flow.test_training import faces

    recipe = TrainingRecipe(teacher="pfld-1.0@none")
    with pytest.raises(InputError, match="no weights yet"):
        lmopt.train("pfld-0.25@none", faces(tmp_path / "f"), recipe=recipe, out=tmp_path / "out")
