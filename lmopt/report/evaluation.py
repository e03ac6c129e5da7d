"""Evaluations as tables, CSV files and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmopt.files import write_atomically
from lmopt.report.json_document import json_text
from lmopt.scoring.evaluation import Evaluation
from lmopt.scoring.rows import Comparison, NotTestable, Row, Scored, Spread
from lmopt.scoring.suite import ProtocolName

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MODEL, _OTHER = "#0b6e99", "#c0392b"
CURVES: tuple[ProtocolName, ...] = ("resolution", "blur")


@dataclass(frozen=True)
class Column:
    """A column of a protocol's table.

    Attributes:
        heading: For people.
        name: In CSV files.
        form: How a number is written for people.
        value: The number of a row, or None.
    """

    heading: str
    name: str
    form: str
    value: Callable[[Row], float | None]


def _scored(value: Callable[[Scored], float]) -> Callable[[Row], float | None]:
    return lambda row: value(row) if isinstance(row, Scored) else None


def _spread(value: Callable[[Spread], float]) -> Callable[[Row], float | None]:
    return lambda row: value(row) if isinstance(row, Spread) else None


SCORED = (
    Column("faces", "faces", "d", _scored(lambda r: r.score.faces)),
    Column("NME %", "nme_percent", ".3f", _scored(lambda r: r.mean_percent)),
    Column("AUC 8 %", "auc", ".3f", _scored(lambda r: r.score.auc)),
    Column(
        "failures %", "failure_rate_percent", ".1f", _scored(lambda r: r.score.failure_rate_percent)
    ),
    Column("accuracy", "accuracy", ".3f", _scored(lambda r: r.accuracy)),
    Column("RMSE px", "rmse_px", ".2f", _scored(lambda r: r.rmse_px)),
    Column("crop px", "side_px", ".0f", _scored(lambda r: r.side_px)),
)
SPREAD = (
    Column("faces", "faces", "d", _spread(lambda r: r.stamp.faces)),
    Column("looks", "looks", "d", _spread(lambda r: r.looks)),
    Column("STD %", "std_percent", ".4f", _spread(lambda r: r.mean_percent)),
)


def columns(protocol: ProtocolName) -> tuple[Column, ...]:
    """Returns the columns of a protocol's table, without that of the conditions."""
    return SPREAD if protocol == "stability" else SCORED


def headings(protocol: ProtocolName, evaluation: Evaluation) -> tuple[str, ...]:
    """Returns the headings that belong to `cells`."""
    other = () if evaluation.against is None else ("against %", "change in points, 95 %")
    return ("condition", *(column.heading for column in columns(protocol)), *other)


def cells(protocol: ProtocolName, evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Returns a protocol's rows as texts for people."""
    return [
        (
            row.condition or "all faces",
            *(_text(column, row) for column in columns(protocol)),
            *_other_cells(other, comparison, evaluation),
        )
        for row, other, comparison in _lines(protocol, evaluation)
    ]


def notes(protocol: ProtocolName, evaluation: Evaluation) -> list[str]:
    """Returns why conditions are not testable, each reason once."""
    reasons: dict[str, list[str]] = {}
    for row in evaluation.rows[protocol]:
        if isinstance(row, NotTestable):
            reasons.setdefault(row.reason, []).append(row.condition)
    return [f"not testable: {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _lines(
    protocol: ProtocolName, evaluation: Evaluation
) -> Iterable[tuple[Row, Row | None, Comparison | None]]:
    rows = evaluation.rows[protocol]
    nothing: tuple[None, ...] = (None,) * len(rows)
    others: Sequence[Row | None] = evaluation.other_rows.get(protocol, nothing)
    return zip(rows, others, evaluation.comparisons.get(protocol, nothing), strict=True)


def _text(column: Column, row: Row) -> str:
    value = column.value(row)
    return "-" if value is None else format(value, column.form)


def _other_cells(
    other: Row | None, comparison: Comparison | None, evaluation: Evaluation
) -> tuple[str, ...]:
    if evaluation.against is None:
        return ()
    if other is None or isinstance(other, NotTestable) or comparison is None:
        return ("-", "-")
    return (f"{other.mean_percent:.3f}", str(comparison))


def table_csv(protocol: ProtocolName, evaluation: Evaluation) -> str:
    """Returns a protocol's rows as CSV with unrounded numbers."""
    compared = evaluation.against is not None
    other_names = ("against_percent", "change", "low", "high", "significant") if compared else ()
    names = ("condition", *(column.name for column in columns(protocol)), "note", *other_names)
    lines: list[Sequence[object]] = [names]
    for row, other, comparison in _lines(protocol, evaluation):
        note = row.reason if isinstance(row, NotTestable) else ""
        values: list[object] = [row.condition, *(c.value(row) for c in columns(protocol)), note]
        if compared and (comparison is None or other is None or isinstance(other, NotTestable)):
            values += [None] * len(other_names)
        elif comparison is not None and isinstance(other, Scored | Spread):
            gap = comparison.difference
            values += [other.mean_percent, gap.mean, gap.low, gap.high, comparison.significant]
        lines.append(values)
    return _csv(lines)


def faces_csv(evaluation: Evaluation) -> str:
    """Returns every face's error under every condition, a line each."""
    lines: list[Sequence[object]] = [("model", "protocol", "condition", "face", "error_percent")]
    models = ((evaluation.model, evaluation.rows), (evaluation.against, evaluation.other_rows))
    for model, found in models:
        for protocol, rows in found.items():
            for row in rows:
                if not isinstance(row, NotTestable):
                    pairs = zip(row.ids, row.per_face, strict=True)
                    lines += [(model, protocol, row.condition, face, e) for face, e in pairs]
    return _csv(lines)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_evaluation(evaluation: Evaluation, folder: Path) -> tuple[Path, ...]:
    """Returns the absolute paths of JSON, CSV files and plots, each written whole.

    `evaluation.json`; a CSV per protocol and `faces.csv`; `ced.png` for `nme`, and `curves.png` for
    `resolution` and `blur`.

    Raises:
        InputError: The folder cannot be written.
    """
    files = {"evaluation.json": (json_text(evaluation.to_json()) + "\n").encode()}
    files |= {f"{name}.csv": table_csv(name, evaluation).encode() for name in evaluation.rows}
    files["faces.csv"] = faces_csv(evaluation).encode()
    if "nme" in evaluation.rows:
        files["ced.png"] = ced_png(evaluation)
    if any(name in evaluation.rows for name in CURVES):
        files["curves.png"] = curves_png(evaluation)
    root = folder.resolve()
    for name, data in files.items():
        write_atomically(root / name, data)
    return tuple(root / name for name in files)


def ced_png(evaluation: Evaluation) -> bytes:
    """Returns a PNG of the cumulative error distribution of each model."""

    def draw(axes: Axes) -> None:
        for label, rows, color in _models(evaluation):
            for row in rows["nme"]:
                if isinstance(row, Scored):
                    limits, shares = zip(*row.ced(), strict=True)
                    nme = f"{label}: NME {row.mean_percent:.2f} %"
                    axes.plot(limits, [100 * s for s in shares], color=color, label=nme)
        axes.set_xlabel("NME in percent of the normalising distance")
        axes.set_ylabel("faces within it, percent")
        axes.set_ylim(0, 101)

    return _png(draw)


def curves_png(evaluation: Evaluation) -> bytes:
    """Returns a PNG of NME against down-scaling, as it is and scaled up again."""

    def draw(axes: Axes) -> None:
        for label, rows, color in _models(evaluation):
            for name, style in zip(CURVES, ("-", "--"), strict=True):
                found = [row for row in rows.get(name, ()) if isinstance(row, Scored)]
                if found:
                    factors = [float(row.condition.removeprefix("x")) for row in found]
                    nme = [row.mean_percent for row in found]
                    axes.plot(
                        factors, nme, style, marker="o", color=color, label=f"{label}: {name}"
                    )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("down-scaling of the picture")
        axes.set_ylabel("NME in percent")
        axes.set_ylim(bottom=0)

    return _png(draw)


def _models(
    evaluation: Evaluation,
) -> list[tuple[str, Mapping[ProtocolName, tuple[Row, ...]], str]]:
    found = [(evaluation.model, evaluation.rows, _MODEL)]
    if evaluation.against is not None:
        found.append((evaluation.against, evaluation.other_rows, _OTHER))
    return found


def _png(draw: Callable[[Axes], None]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    stored = io.BytesIO()
    figure.savefig(stored, format="png", dpi=130, metadata={"Software": "lmopt"})
    return stored.getvalue()
