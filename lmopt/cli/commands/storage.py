"""`lmopt storage`: which storage form a target wants, and what the others cost."""

from __future__ import annotations

from lmopt.cli.options import (
    ContractOption,
    DataOption,
    DetectorArgument,
    InputOption,
    JsonOption,
    OutputOption,
    RunFolderOption,
    SeedOption,
    TargetOption,
    ThreadsOption,
    end_type,
)
from lmopt.cli.storage_table import show_storage
from lmopt.cli.terminal import ProgressView, note, print_json


def storage(
    target: TargetOption,
    detector: DetectorArgument = "pfld-0.25",
    data: DataOption = None,
    contract: ContractOption = None,
    threads: ThreadsOption = None,
    input: InputOption = None,
    output: OutputOption = None,
    seed: SeedOption = 0,
    out: RunFolderOption = None,
    json: JsonOption = False,
) -> None:
    """Compare a detector in every form (float32, float16, int8, uint8, int16x8) on a target."""
    import lmopt

    request = lmopt.OptimizeRequest(
        target=target,
        detector=detector,
        data=tuple(data or ()),
        contract=contract,
        threads=threads,
        input=end_type(input, "--input"),
        output=end_type(output, "--output"),
        seed=seed,
        out=out,
    )
    with ProgressView() as view:
        found = lmopt.compare_storage(request, view)
    if json:
        print_json({"detector": detector, "data": request.data, **found.to_json()})
        return
    show_storage(found)
    chosen = found.row(found.chosen).candidate
    if chosen is not None:
        note(f"next: {chosen.trained.model} is the {found.chosen} file; lmopt evaluate, measure it")
