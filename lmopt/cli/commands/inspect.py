"""`lmopt inspect`: what a model is, and which contract makes sense of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmopt.cli.estimates import show_estimate
from lmopt.cli.options import SOURCE, ContractOption, DataOption, JsonOption, SourceArgument
from lmopt.cli.quantization import show_quantization
from lmopt.cli.terminal import ProgressView, console, note, print_json, table
from lmopt.errors import UsageError

if TYPE_CHECKING:
    from lmopt.flow.guessing import Guess
    from lmopt.flow.inspection import Inspection
    from lmopt.flow.quantization import QuantizationReport

SHOWN_GUESSES = 5
DOUBTED_PERCENT = 20.0
"""NME from which on a contract is doubted: a mean shape in every crop has about as much."""
CLOSE = 1.05
"""How near the second guess may come to the first before both are doubted."""


def inspect(
    detector: SourceArgument,
    contract: ContractOption = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Estimate latency there; repeatable.", show_default=False),
    ] = None,
    ir: Annotated[bool, typer.Option("--ir", help="Print the IR.")] = False,
    guess_contract: Annotated[
        bool,
        typer.Option("--guess-contract", help="Rank plausible contracts by NME on faces."),
    ] = False,
    quantization: Annotated[
        bool,
        typer.Option("--quantization", help="Show grids and, with --against, errors."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar=SOURCE,
            help="Float model the quantized one was made of; with --data, errors are measured too.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    save_contract: Annotated[
        Path | None,
        typer.Option(
            "--save-contract",
            metavar="FILE.toml",
            help="Write the best guess, or else the contract the model has.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show parameters, MACs, size, inputs, outputs and contract of a model."""
    import lmopt

    if against is not None and not quantization:
        raise UsageError("--against compares grids", hint="give --quantization with it")
    with ProgressView() as view:
        found = lmopt.inspect(detector, contract=contract, targets=target or (), listen=view)
    document: dict[str, Any] = found.to_json()
    guesses: tuple[Guess, ...] = ()
    if guess_contract:
        from lmopt.flow import guessing

        with ProgressView() as view:
            guesses = guessing.guess_contract(detector, data, listen=view)
        document["guesses"] = [guess.to_json() for guess in guesses[:SHOWN_GUESSES]]
    report: QuantizationReport | None = None
    if quantization:
        from lmopt.flow.quantization import inspect_quantization

        with ProgressView() as view:
            report = inspect_quantization(
                detector, against=against, data=data, contract=contract, listen=view
            )
        document["quantization"] = report.to_json()
    if save_contract is not None:
        _save(guesses, found, save_contract)
    if json:
        print_json({**document, "ir": str(found.graph)} if ir else document)
        return
    _show(found)
    if guesses:
        _show_guesses(guesses, saved=save_contract is not None)
    if report is not None:
        show_quantization(report)
    if ir:
        typer.echo(str(found.graph))


def _save(guesses: tuple[Guess, ...], found: Inspection, path: Path) -> None:
    from lmopt.detector.detector import no_contract
    from lmopt.detector.document import contract_to_toml
    from lmopt.files import write_atomically

    best = guesses[0].contract if guesses else found.contract
    if best is None:
        raise no_contract(found.name)
    write_atomically(path, contract_to_toml(best).encode())
    note(f"wrote {path}")


def _show(found: Inspection) -> None:
    from lmopt.units import human_bytes

    rows = {
        "parameters": f"{found.parameters:,}",
        "MACs": f"{found.macs:,}",
        "size": f"{human_bytes(found.size_bytes)} as .tflite",
        "nodes": f"{found.nodes} ("
        + ", ".join(f"{count} {kind}" for kind, count in found.ops.items())
        + ")",
        "inputs": ", ".join(f"{t.name}: {t.type}" for t in found.inputs),
        "outputs": ", ".join(f"{t.name}: {t.type}" for t in found.outputs),
        "weights": "present" if found.initialized else "none yet: train it first",
    }
    typer.echo(found.name)
    for name, text in rows.items():
        typer.echo(f"  {name:11} {text}")
    contract = found.contract
    if contract is None:
        typer.echo("  contract    none: give --contract, or try --guess-contract --data PATH")
    else:
        typer.echo(
            f"  contract    {contract.width}x{contract.height} {contract.color}, mean "
            f"{list(contract.mean)}, std {list(contract.std)}; crop {contract.crop}; output "
            f"'{contract.output}' {contract.order} in {contract.unit}; {contract.scheme.name}"
        )
    for name, estimate in found.estimates.items():
        show_estimate(name, estimate, found.advice.get(name, ()))


def _show_guesses(guesses: tuple[Guess, ...], *, saved: bool) -> None:
    shown = table(
        "NME %", "colour", "mean", "std", "margin", "output", "order", "unit", right=("NME %",)
    )
    for guess in guesses[:SHOWN_GUESSES]:
        c = guess.contract
        shown.add_row(
            f"{guess.nme_percent:.2f}",
            c.color,
            ", ".join(f"{v:g}" for v in c.mean),
            ", ".join(f"{v:g}" for v in c.std),
            f"{c.crop.margin:g}",
            c.output,
            c.order,
            c.unit,
        )
    console().print(shown)
    best, *others = guesses
    if best.nme_percent > DOUBTED_PERCENT:
        note(f"none of these fits: a trained detector has far less than {best.nme_percent:.0f} %")
    elif others and others[0].nme_percent < CLOSE * best.nme_percent:
        note("the first two are close: find out which is right before you trust either")
    if not saved:
        note("next: --save-contract FILE.toml keeps the best; check it before you trust it")
