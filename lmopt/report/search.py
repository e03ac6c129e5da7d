"""What a search tried, as a document and as a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from lmopt.exploration.result import SearchResult
from lmopt.files import write_atomically
from lmopt.report.json_document import json_text
from lmopt.report.plot import plain_ticks


@dataclass(frozen=True)
class SearchReports:
    """Absolute paths of what was written."""

    json: Path
    plot: Path


def write_search(result: SearchResult, folder: Path) -> SearchReports:
    """Returns the paths of `search.json` and `search.png`, each written whole.

    Raises:
        InputError: The folder cannot be written.
    """
    root = folder.resolve()
    reports = SearchReports(root / "search.json", root / "search.png")
    write_atomically(reports.json, (json_text(result.to_json()) + "\n").encode())
    write_atomically(reports.plot, search_png(result))
    return reports


def search_png(result: SearchResult) -> bytes:
    """Returns a PNG: every candidate at every fidelity, and how the hypervolume grew."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    points, growth = figure.subplots(1, 2)
    last = len(result.space.epochs)
    for fidelity in range(1, last + 1):
        reached = [
            (tried.findings[0].ms.value, tried.findings[fidelity].nme_percent)
            for tried in result.candidates
            if len(tried.findings) > fidelity
        ]
        if not reached:
            continue
        epochs = sum(result.space.epochs[:fidelity])
        points.scatter(
            [1 / ms for ms, _ in reached],
            [nme for _, nme in reached],
            s=18 + 10 * fidelity,
            alpha=0.3 + 0.6 * fidelity / last,
            label=f"{epochs:g} epochs",
        )
    base = result.optimized.baseline
    points.scatter([1.0], [base.trained.val_nme_percent], marker="D", label="float baseline")
    points.set_xscale("log")
    points.set_yscale("log")
    plain_ticks(points.xaxis)
    plain_ticks(points.yaxis)
    points.set_xlabel("times as fast as the float baseline")
    points.set_ylabel("validation NME, %")
    points.legend()
    steps = range(1, len(result.volumes) + 1)
    growth.plot(steps, [volume.value for volume in result.volumes])
    growth.fill_between(
        steps,
        [volume.low for volume in result.volumes],
        [volume.high for volume in result.volumes],
        alpha=0.2,
    )
    growth.set_xlabel("results")
    growth.set_ylabel("hypervolume (NME in %, log2 of latency), 95 % interval")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
