"""`lmopt train`: weights for a detector."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from lmopt.cli.options import ContractOption, DataOption, JsonOption, SeedOption, SourceArgument
from lmopt.cli.terminal import ProgressView, note, print_json


def train(
    detector: SourceArgument,
    data: DataOption = None,
    epochs: Annotated[
        float, typer.Option("--epochs", help="Passes over the faces with batch norms.")
    ] = 40.0,
    folded_epochs: Annotated[
        float, typer.Option("--folded-epochs", help="Further passes, batch norms folded.")
    ] = 40.0,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Peak rate of the first phase.")
    ] = 3e-3,
    folded_learning_rate: Annotated[
        float, typer.Option("--folded-learning-rate", help="Peak rate of the second phase.")
    ] = 1e-3,
    batch: Annotated[int, typer.Option("--batch", help="Faces per step.")] = 64,
    loss: Annotated[str, typer.Option("--loss", help="l1, l2, smooth-l1 or wing.")] = "wing",
    contract: ContractOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Default out/train-DETECTOR."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a detector on faces; the same command again resumes an interrupted training."""
    from typing import get_args

    import lmopt
    from lmopt.errors import UsageError
    from lmopt.flow.training import TrainingRecipe
    from lmopt.pipeline.base import Loss

    if loss not in get_args(Loss):
        raise UsageError(
            f"no loss '{loss}'", where="--loss", hint=f"choose {', '.join(get_args(Loss))}"
        )
    recipe = TrainingRecipe(
        epochs=epochs,
        folded_epochs=folded_epochs,
        learning_rate=learning_rate,
        folded_learning_rate=folded_learning_rate,
        batch=batch,
        loss=loss,  # type: ignore[arg-type]  # checked above
    )
    with ProgressView() as view:
        made = lmopt.train(
            detector,
            data,
            recipe=recipe,
            contract=contract,
            out=out,
            seed=seed,
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
