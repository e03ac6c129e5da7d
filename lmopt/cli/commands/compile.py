"""`lmopt compile`: one pipeline, one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmopt.cli.options import (
    ContractOption,
    DataOption,
    InputOption,
    JsonOption,
    OutputOption,
    SeedOption,
    SourceArgument,
    TeacherOption,
    end_type,
)
from lmopt.cli.terminal import ProgressView, note, print_json

if TYPE_CHECKING:
    from lmopt.flow.events import Event, Listener
    from lmopt.pipeline.manager import Pipeline


def compile(
    detector: SourceArgument,
    passes: Annotated[
        str,
        typer.Option(
            "--passes",
            metavar="PIPELINE",
            help="fold-batchnorm,quantize-int8{observer=mse}; passes: lmopt passes.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE.tflite",
            help="Where to write; a new folder for targets that take SavedModels.",
            show_default=False,
        ),
    ],
    data: DataOption = None,
    contract: ContractOption = None,
    teacher: TeacherOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="T",
            help="Whose rules the file must keep; desktop-cuda makes SavedModels.",
            show_default=False,
        ),
    ] = None,
    input: InputOption = None,
    output: OutputOption = None,
    seed: SeedOption = 0,
    verify_each: Annotated[
        bool, typer.Option("--verify-each", help="Check what every pass promises to preserve.")
    ] = False,
    print_after: Annotated[
        list[str] | None,
        typer.Option(
            "--print-after",
            metavar="PASS",
            help="Print the IR after this pass on stderr; 'all' for every one; repeatable.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder that keeps results of passes.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compile a detector with one pipeline into a .tflite, or into SavedModels for CUDA."""
    import lmopt

    pipeline = lmopt.Pipeline.parse(passes)
    wanted = _known_passes(print_after or [], pipeline)
    with ProgressView() as view:
        made = lmopt.compile(
            detector,
            pipeline,
            data=data or None,
            contract=contract,
            teacher=teacher,
            out=out,
            target=target,
            input=end_type(input, "--input"),
            output=end_type(output, "--output"),
            seed=seed,
            verify_each=verify_each,
            cache=cache,
            listen=_printing(view, wanted),
        )
    if json:
        print_json(made.to_json())
        return
    from lmopt.units import human_bytes

    typer.echo(
        f"{made.path}: {human_bytes(len(made.data))}, {made.graph.parameters:,} parameters, "
        f"{made.graph.macs / 1e6:.1f} M MACs"
    )
    for saved in made.saved_models:
        typer.echo(f"{saved.path}: {saved}")
    model = made.saved_models[0].path if made.saved_models else made.path
    faces = "".join(f" --data {path}" for path in data or [])
    note(f"next: lmopt evaluate {model}{faces}; lmopt measure {model}")


def _known_passes(names: list[str], pipeline: Pipeline) -> frozenset[str]:
    from lmopt.errors import UsageError

    present = [item.name for item in pipeline.passes]
    for name in names:
        if name != "all" and name not in present:
            raise UsageError(
                f"no pass '{name}' in this pipeline",
                where="--print-after",
                hint=f"choose all, {', '.join(present)}",
            )
    return frozenset(present if "all" in names else names)


def _printing(view: ProgressView, wanted: frozenset[str]) -> Listener:
    def listen(event: Event) -> None:
        from lmopt.flow.events import PassProgress

        view(event)
        if isinstance(event, PassProgress) and event.event.graph is not None:
            name = event.event.text.partition("{")[0]
            if name in wanted:
                note(f"// IR after {event.event.text}\n{event.event.graph}")

    return listen
