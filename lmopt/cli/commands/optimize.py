"""`lmopt optimize`: a Pareto front of files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lmopt.cli.options import (
    BenchmarkModelOption,
    ContractOption,
    DataOption,
    DetectorArgument,
    DeviceOption,
    InputOption,
    JsonOption,
    MaxLatencyOption,
    MaxNmeDropOption,
    ObjectiveOption,
    OutputOption,
    PhoneOrTargetOption,
    RunFolderOption,
    SeedOption,
    TeacherOption,
    ThreadsOption,
    end_type,
)
from lmopt.cli.storage_table import show_storage
from lmopt.cli.terminal import ProgressView, console, note, print_json, table

if TYPE_CHECKING:
    from lmopt.exploration.candidate import Objective
    from lmopt.exploration.result import OptimizeResult
    from lmopt.flow.events import Listener
    from lmopt.report.folder import Reports


REST, LONGEST = 100, 120
"""Columns of the table's rest, and of a pipeline that has a place beside it where there is room."""


def optimize(
    target: PhoneOrTargetOption = "auto",
    detector: DetectorArgument = "pfld-0.25",
    data: DataOption = None,
    passes: Annotated[
        list[str] | None,
        typer.Option(
            "--passes",
            metavar="PIPELINE",
            help="A pipeline to try instead of the target's own; repeatable.",
            show_default=False,
        ),
    ] = None,
    contract: ContractOption = None,
    teacher: TeacherOption = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="MINUTES", help="No new candidate is begun after this."),
    ] = None,
    objective: ObjectiveOption = None,
    max_nme_drop: MaxNmeDropOption = None,
    max_latency: MaxLatencyOption = None,
    device: DeviceOption = "auto",
    benchmark_model: BenchmarkModelOption = None,
    threads: ThreadsOption = None,
    effort: Annotated[
        float, typer.Option("--effort", help="Factor on the epochs of the target's pipelines.")
    ] = 1.0,
    input: InputOption = None,
    output: OutputOption = None,
    seed: SeedOption = 0,
    out: RunFolderOption = None,
    json: JsonOption = False,
) -> None:
    """Find the front of NME against latency; the same command again resumes a broken run."""
    import lmopt

    request = lmopt.OptimizeRequest(
        target=target,
        detector=detector,
        data=tuple(data or ()),
        passes=tuple(passes or ()),
        contract=contract,
        teacher=teacher,
        budget_minutes=budget,
        max_nme_drop=max_nme_drop,
        max_latency_ms=max_latency,
        device=device,
        threads=threads,
        effort=effort,
        seed=seed,
        input=end_type(input, "--input"),
        output=end_type(output, "--output"),
        out=out,
        benchmark_model=benchmark_model,
        objectives=cast("tuple[Objective, ...]", tuple(objective or ())),
    )
    with ProgressView() as view:
        result = lmopt.optimize(request, view)
        reports = write(request.data, result, view)
    if json:
        print_json({**result.to_json(), "files": asdict(reports)})
        return
    show(request.data, request.device, result, reports)


def write(data: tuple[Path, ...], result: OptimizeResult, listen: Listener) -> Reports:
    """Writes the reports of a run beside its files and returns their paths."""
    from lmopt.errors import InputError
    from lmopt.flow.events import Activity
    from lmopt.flow.sources import load_faces, load_model_file
    from lmopt.report.folder import write_reports

    listen(Activity("writing the reports"))
    _, contract = load_model_file(Path(result.baseline.trained.model))
    if contract is None:
        raise InputError("the emitted file lost its contract", where=result.baseline.trained.model)
    faces = load_faces(data, contract, listen).split("test")
    return write_reports(result, Path(result.environment["out"]), contract, faces)


def show(data: tuple[Path, ...], device: str, result: OptimizeResult, reports: Reports) -> None:
    """Prints the front, what is not on it and why, and what to do next."""
    from lmopt.report import summary

    out = console()
    rows = [
        dict(zip(summary.columns(result), summary.cells(row, result), strict=True))
        for row in summary.rows(result)
    ]
    beside = max(len(row["pipeline"]) for row in rows) <= min(out.width - REST, LONGEST)
    names_of = {} if beside else {row["pipeline"]: row[""] for row in rows}
    names = [name for name in summary.columns(result) if beside or name != "pipeline"]
    numbers = tuple(n for n in names if n == "size" or any(w in n for w in ("NME", "ms", "STD")))
    shown = table(
        *names,
        title=f"{result.detector} for {result.target}\nNME on {summary.faces(result)}\n"
        f"latency {summary.where(result)}",
        right=numbers,
    )
    for row in rows:
        shown.add_row(*(row[name] for name in names))
    out.print(shown)
    for row in rows if not beside else ():
        typer.echo(f"{row['']}: {row['pipeline']}")
    if result.storage is not None:
        show_storage(result.storage)
    if result.dominated or result.failures:
        typer.echo("not on the front:")
    for dominated in result.dominated:
        typer.echo(f"  {dominated.candidate.pipeline}: {dominated.reason}")
    for failure in result.failures:
        typer.echo(f"  {failure.pipeline}: {failure.status}: {failure.reason}")
    for path in (reports.json, reports.plot, reports.page):
        typer.echo(f"wrote {path}")
    pick, base = summary.recommended(result), result.baseline
    if result.environment.get("busy"):
        note("note: other work kept this machine busy meanwhile; latencies may be high")
    for key in ("device_notes", "doubts"):
        for text in result.environment.get(key, ()):
            note(f"note: the device: {text}")
    for choice in summary.choices(result):
        pipeline = choice.candidate.pipeline
        typer.echo(f"may lose {choice.points:g} points: {names_of.get(pipeline, pipeline)}")
        typer.echo(f"  {choice.text}")
    typer.echo(f"next: {summary.recommendation(result)}")
    typer.echo(f"  {pick.device_model or pick.trained.saved_models or pick.trained.model}")
    faces = "".join(f" --data {path}" for path in data)
    typer.echo(f"  check: lmopt evaluate {pick.trained.model}{faces}")
    if pick.trained.digest != base.trained.digest:
        there = f" --device {device}" if summary.is_on_device(base) else ""
        own, other = (c.device_model or c.trained.model for c in (pick, base))
        typer.echo(f"  check: lmopt measure {own} --against {other}{there}")
