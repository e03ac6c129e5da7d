"""`lmopt train`: weights for a detector."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from lmopt.cli.options import SOURCE, ContractOption, DataOption, JsonOption, SourceArgument
from lmopt.cli.terminal import ProgressView, note, print_json


def train(
    detector: SourceArgument,
    data: DataOption = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE.toml",
            help="How to train; default the detector's own recipe. The options below win over it.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the faces with batch norms.")
    ] = None,
    folded_epochs: Annotated[
        float | None, typer.Option("--folded-epochs", help="Further passes, batch norms folded.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak rate of the first phase.")
    ] = None,
    folded_learning_rate: Annotated[
        float | None, typer.Option("--folded-learning-rate", help="Peak rate of the second phase.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Faces per step.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="l1, l2, smooth-l1, wing, rmse, pfld; on heatmaps heatmap-mse, adaptive-wing.",
        ),
    ] = None,
    augmentation: Annotated[
        str | None, typer.Option("--augmentation", help="default, thesis or none.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Of the folded epochs: the best by validation NME, or last."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar=SOURCE,
            help="Detector with weights (pfld-1.0@weights.npz) whose answers join the loss.",
        ),
    ] = None,
    teacher_weight: Annotated[
        float | None,
        typer.Option("--teacher-weight", help="Part of the loss that goes to them, 0 to 1."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar=SOURCE,
            help="Detector with weights that layers of the same name start from: dan1@weights.npz.",
        ),
    ] = None,
    contract: ContractOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Default out/train-DETECTOR."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a detector on faces; the same command again resumes an interrupted training."""
    from dataclasses import replace
    from typing import Any, get_args

    import lmopt
    from lmopt.data.augment import AUGMENTATIONS
    from lmopt.flow.recipe import LOSSES, Keep, load_recipe, recipe_for

    _require_choice("--loss", loss, LOSSES)
    _require_choice("--keep", keep, get_args(Keep))
    _require_choice("--augmentation", augmentation, tuple(AUGMENTATIONS))
    given: dict[str, Any] = {
        "epochs": epochs,
        "folded_epochs": folded_epochs,
        "learning_rate": learning_rate,
        "folded_learning_rate": folded_learning_rate,
        "batch": batch,
        "loss": loss,
        "augmentation": augmentation,
        "keep": keep,
        "teacher": teacher,
        "teacher_weight": teacher_weight,
        "start": start,
        "seed": seed,
    }
    chosen = load_recipe(recipe) if recipe is not None else recipe_for(detector)
    chosen = replace(chosen, **{key: value for key, value in given.items() if value is not None})
    with ProgressView() as view:
        made = lmopt.train(
            detector,
            data,
            recipe=chosen,
            contract=contract,
            out=out,
            command=shlex.join(["lmopt", *sys.argv[1:]]),
            listen=view,
        )
    if json:
        print_json(made.to_json())
        return
    typer.echo(f"validation NME {made.score.nme_percent:.3f} % on {made.score.faces} faces")
    for path in (made.weights, made.note, made.model):
        typer.echo(f"wrote {path}")
    faces = "".join(f" --data {path}" for path in data or [])
    note(f"next: lmopt optimize {made.detector.name} --target host{faces}")


def _require_choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    from lmopt.errors import UsageError

    if value is not None and value not in choices:
        raise UsageError(
            f"no {option.removeprefix('--')} '{value}'",
            where=option,
            hint=f"choose {', '.join(choices)}",
        )
