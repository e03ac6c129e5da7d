"""Recipes: how a detector is trained from faces alone, one small TOML per zoo detector.

A recipe file holds any fields of `TrainingRecipe`, and tables of `Stage` where there are some::

    epochs = 40.0                  # with batch norms
    folded_epochs = 40.0           # more of them, with the batch norms folded
    learning_rate = 3e-3
    folded_learning_rate = 1e-3
    batch = 64
    loss = "wing"
    augmentation = "default"       # default, thesis or none
    weight_average = 0.998
    heatmap_sigma = 1.5            # for losses on heatmaps, in cells
    keep = "best"                  # the folded epoch with the least validation NME, or "last"
    seed = 0
    teacher = "pfld-1.0@300w"      # leave out for none
    teacher_weight = 0.5
    start = "dan1@dan1.npz"        # detector whose weights the layers of same name start from

    [[stages]]                     # the epochs with batch norms, part by part
    share = 0.5
    answer = "stage1_landmarks"    # node that learns the landmarks; leave out for the output
    frozen = ["stage2_*"]          # nodes that stay as they are
    size = 128                     # side of the input meanwhile; leave out for the detector's own
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import TypeAdapter, ValidationError

from lmopt import zoo
from lmopt.data.augment import Augmentation
from lmopt.errors import InputError, UsageError, did_you_mean
from lmopt.pipeline.services import Loss, Teacher, TrainingPlan

LOSSES: tuple[str, ...] = get_args(Loss)
"""Every loss a recipe can name."""

Keep = Literal["best", "last"]

_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class Stage:
    """A part of the training with batch norms.

    Attributes:
        share: Of the epochs with batch norms; those of all stages make 1.
        answer: Node that learns the landmarks; None is the contract's output.
        frozen: Nodes that stay as they are; `*` stands for any characters.
        size: Height and width of the input meanwhile, for detectors whose weights do not depend on
            it; None is the contract's.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    share: float = 1.0
    answer: str | None = None
    frozen: tuple[str, ...] = ()
    size: int | None = None


class Phase(NamedTuple):
    """A plan and the side of the input meanwhile; None is the contract's."""

    plan: TrainingPlan
    size: int | None


@dataclass(frozen=True)
class TrainingRecipe:
    """How `train` trains: first with batch norms, then folded, which is nearly twice as fast.

    Attributes:
        epochs: Passes over the training faces with batch norms.
        folded_epochs: Further passes with the batch norms folded.
        learning_rate: Peak rate of the first phase.
        folded_learning_rate: Peak rate of the second phase.
        batch: Faces per step.
        loss: Loss on coordinates in input pixels, on heatmaps, or PFLD's.
        augmentation: How faces are varied: default, thesis or none.
        weight_average: Decay of the running mean of weights that is kept; 0 keeps the last.
        heatmap_sigma: Width of the Gaussians of losses on heatmaps, in cells.
        keep: Weights of the best epoch of the folded phase by the validation faces, or of the last.
        seed: Of weights, order and augmentation.
        teacher: Detector with weights whose answers join the loss, or None.
        teacher_weight: Part of the loss that goes to the teacher's answers.
        start: Detector with weights that the layers of same name and shapes start from, or None.
            A stage that would only train such layers is left out.
        stages: Parts of the first phase, one after the other.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _STRICT
    epochs: float = 40.0
    folded_epochs: float = 40.0
    learning_rate: float = 3e-3
    folded_learning_rate: float = 1e-3
    batch: int = 64
    loss: Loss = "wing"
    augmentation: Augmentation = "default"
    weight_average: float = 0.998
    heatmap_sigma: float = 1.5
    keep: Keep = "best"
    seed: int = 0
    teacher: str | None = None
    teacher_weight: float = 0.5
    start: str | None = None
    stages: tuple[Stage, ...] = (Stage(),)

    def __post_init__(self) -> None:
        for name in ("epochs", "folded_epochs"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name):g}; wanted at least 0")
        if self.epochs + self.folded_epochs == 0:
            raise UsageError("nothing to train: both phases have 0 epochs")
        if self.batch < 1 or self.learning_rate <= 0 or self.folded_learning_rate <= 0:
            raise UsageError("batch and learning rates must be above 0")
        if not 0 <= self.weight_average < 1 or self.heatmap_sigma <= 0:
            raise UsageError("weight_average must be 0 to below 1, heatmap_sigma above 0")
        shares = [stage.share for stage in self.stages]
        if min(shares, default=0.0) <= 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise UsageError(f"the stages' shares are {shares}; wanted parts above 0 that make 1")

    def phases(self, teacher: Teacher | None = None) -> tuple[Phase, ...]:
        """Returns the phases with batch norms, one per stage, and the folded one last."""
        norms = [(self.epochs * stage.share, self.learning_rate, stage) for stage in self.stages]
        folded = (self.folded_epochs, self.folded_learning_rate, Stage())
        return tuple(
            Phase(
                TrainingPlan(
                    epochs=epochs,
                    learning_rate=rate,
                    batch=self.batch,
                    loss=self.loss,
                    weight_average=self.weight_average,
                    teacher=teacher,
                    frozen=stage.frozen,
                    answer=stage.answer,
                    heatmap_sigma=self.heatmap_sigma,
                ),
                stage.size,
            )
            for epochs, rate, stage in (*norms, folded)
        )


_READER = TypeAdapter(TrainingRecipe)


def recipe_for(detector: str) -> TrainingRecipe:
    """Returns the recipe of a zoo detector, with or without weights; pfld-0.25's for a model file.

    >>> recipe_for("basic@none").batch, recipe_for("mine.keras").batch
    (120, 64)
    """
    path = zoo.RECIPES / f"{detector.partition('@')[0]}.toml"
    return load_recipe(path) if path.is_file() else TrainingRecipe()


def load_recipe(path: Path) -> TrainingRecipe:
    """Returns the recipe in a TOML file.

    Raises:
        InputError: The file cannot be read, or is no recipe; names the file and the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"the recipe cannot be read: {error.strerror}",
            where=str(path),
            hint="name a recipe file (TOML)",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"no TOML: {error}", where=str(path), hint="correct it") from error
    try:
        # As JSON, because strict reading takes lists for tuples only there.
        return _READER.validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise _complaint(error, path) from error
    except UsageError as error:
        raise InputError(error.what, where=str(path), hint="correct the recipe") from error


def _complaint(error: ValidationError, path: Path) -> InputError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "unexpected_keyword_argument":
        owner = Stage if "stages" in problem["loc"] else TrainingRecipe
        known = [field.name for field in fields(owner)]
        guess = did_you_mean(str(problem["loc"][-1]), known)
        hint = guess or f"there are: {', '.join(known)}"
        return InputError(f"unknown key '{key}'", where=str(path), hint=hint)
    wanted = problem["msg"].replace("Input should be", "wanted")
    return InputError(
        f"'{key}' is {problem['input']!r}: {wanted}", where=str(path), hint="correct the recipe"
    )
