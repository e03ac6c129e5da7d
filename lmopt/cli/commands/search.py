"""`lmopt search`: the best front that a budget buys."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lmopt.cli.commands.optimize import show, write
from lmopt.cli.options import (
    BenchmarkModelOption,
    ContractOption,
    DataOption,
    DetectorArgument,
    DeviceOption,
    JsonOption,
    MaxLatencyOption,
    MaxNmeDropOption,
    ObjectiveOption,
    PhoneOrTargetOption,
    SeedOption,
    TeacherOption,
    ThreadsOption,
)
from lmopt.cli.terminal import ProgressView, print_json
from lmopt.errors import UsageError

if TYPE_CHECKING:
    from lmopt.exploration.candidate import Objective
    from lmopt.exploration.study import Sampler
    from lmopt.flow.request import HowLatency

_MIB = 1024**2


def search(
    target: PhoneOrTargetOption = "auto",
    detector: DetectorArgument = "pfld-0.25",
    data: DataOption = None,
    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            metavar="MINUTES",
            help="Of this call, for everything; a call that goes on has it anew.",
        ),
    ] = 60.0,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", help="Candidates in the study, at most.")
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            metavar="FILE.toml",
            help="What may be tried; default what suits the target.",
            show_default=False,
        ),
    ] = None,
    show_space: Annotated[
        bool, typer.Option("--show-space", help="Print the space and do nothing.")
    ] = False,
    objective: ObjectiveOption = None,
    max_nme_drop: MaxNmeDropOption = None,
    max_latency: MaxLatencyOption = None,
    max_size: Annotated[
        float | None, typer.Option("--max-size", metavar="MIB", help="Size a file may have.")
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option("--max-memory", metavar="MIB", help="Peak of activations and weights."),
    ] = None,
    delegate_only: Annotated[
        bool,
        typer.Option("--delegate-only", help="Refuse what partly falls off the target's engine."),
    ] = False,
    latency: Annotated[
        str,
        typer.Option(
            "--latency",
            metavar="auto|measure|estimate",
            help="Measure candidates here, or estimate them for the target.",
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    benchmark_model: BenchmarkModelOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="auto|ADDRESS",
            help="Ray cluster whose nodes make the candidates; default this machine alone.",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", metavar="tpe|nsga2|random", help="Who proposes candidates.")
    ] = "tpe",
    teacher: TeacherOption = None,
    contract: ContractOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="URL",
            help="Database of the study; default sqlite in the output folder.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Refuse to begin a new study; go on with the old one.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Default out/DETECTOR-TARGET-search."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Search for the best front within a budget; the same command again goes on."""
    import lmopt
    from lmopt.exploration.study import SAMPLERS
    from lmopt.report.search import write_search

    for option, value, known in (
        ("--sampler", sampler, SAMPLERS),
        ("--latency", latency, ("auto", "measure", "estimate")),
    ):
        if value not in known:
            raise UsageError(f"no '{value}'", where=option, hint=f"choose {', '.join(known)}")
    request = lmopt.SearchRequest(
        target=target,
        detector=detector,
        data=tuple(data or ()),
        space=space,
        contract=contract,
        teacher=teacher,
        budget_minutes=budget,
        trials=trials,
        max_nme_drop=max_nme_drop,
        max_latency_ms=max_latency,
        max_size_bytes=_bytes(max_size),
        max_memory_bytes=_bytes(max_memory),
        delegate_only=delegate_only,
        latency=cast("HowLatency", latency),
        device=device,
        benchmark_model=benchmark_model,
        cluster=cluster,
        sampler=cast("Sampler", sampler),
        threads=threads,
        seed=seed,
        study=study,
        resume=resume,
        out=out,
        objectives=cast("tuple[Objective, ...]", tuple(objective or ())),
    )
    if show_space:
        from lmopt.flow.host_profile import target_named
        from lmopt.flow.searching import space_of

        typer.echo(space_of(request, target_named(request.target)).to_toml(), nl=False)
        return
    with ProgressView() as view:
        result = lmopt.search(request, view)
        reports = write(request.data, result.optimized, view)
    page = write_search(result, reports.json.parent)
    if json:
        print_json({**result.to_json(), "files": {**asdict(reports), **asdict(page)}})
        return
    typer.echo(
        f"{len(result.candidates)} candidates, hypervolume "
        f"{result.volumes[-1] if result.volumes else 0.0}: {result.stopped}"
    )
    show(request.data, request.device, result.optimized, reports)
    for path in (page.json, page.plot):
        typer.echo(f"wrote {path}")


def _bytes(mib: float | None) -> int | None:
    return None if mib is None else int(mib * _MIB)
