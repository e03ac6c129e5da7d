"""The front as a picture: validation NME against latency."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lmopt.exploration.candidate import Candidate
from lmopt.exploration.front import Front
from lmopt.exploration.result import REAL_TIME_MS, OptimizeResult
from lmopt.report.summary import is_estimated, is_on_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_FRONT, _OTHER, _BASE = "#0b6e99", "#9aa0a6", "#c0392b"


def front_png(result: OptimizeResult) -> bytes:
    """Returns a PNG of front, dominated candidates and baseline, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dominated = [d.candidate for d in result.dominated]
    _points(axes, dominated, _OTHER, "o", "dominated")
    _points(axes, result.front, _FRONT, "o", "front")
    _points(axes, [result.baseline], _BASE, "D", "float baseline")
    corners = Front.of(result.front, lambda c: c.objectives)  # of more objectives it may hold more
    line = sorted(c.objectives for c in corners.points)
    axes.plot(
        [ms for _, ms in line],
        [nme for nme, _ in line],
        color=_FRONT,
        lw=1.2,
        zorder=1,
        drawstyle="steps-post",
    )
    for number, candidate in enumerate(result.front, start=1):
        axes.annotate(
            str(number),
            (candidate.latency.ms, candidate.trained.val_nme_percent),
            textcoords="offset points",
            xytext=(6, 6),
            color=_FRONT,
            fontsize=9,
        )
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    errors = [c.trained.val_nme_percent for c in (*dominated, *result.front, result.baseline)]
    if max(errors) > 4 * min(errors):
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    low, high = axes.get_xlim()
    for name, budget in REAL_TIME_MS.items():
        if low < budget < high:
            axes.axvline(budget, color="#555", ls=":", lw=1)
            axes.text(budget, axes.get_ylim()[1], f" {name}", va="top", fontsize=8, color="#555")
    axes.set_xlabel(_latency_axis(result))
    axes.set_ylabel("validation NME in percent")
    axes.set_title(
        f"{result.detector} for {result.target}: {result.data['kind']} ({result.data['name']})",
        fontsize=11,
    )
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    stored = io.BytesIO()
    figure.savefig(stored, format="png", dpi=130, metadata={"Software": "lmopt"})
    return stored.getvalue()


def plain_ticks(axis: Axis) -> None:
    """Puts few round numbers on a logarithmic axis."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _latency_axis(result: OptimizeResult) -> str:
    if is_estimated(result):
        return f"latency in ms, ESTIMATED for {result.target} (bars: stated error)"
    if is_on_device(result.baseline):
        return "latency in ms, measured on the device (bars: 95 % interval of the median)"
    return "latency in ms, measured on this host (bars: 95 % interval of the median)"


def _points(
    axes: Axes, found: list[Candidate] | tuple[Candidate, ...], color: str, marker: str, label: str
) -> None:
    if not found:
        return
    x = [c.latency.ms for c in found]
    spread = [
        [max(0.0, c.latency.ms - c.latency.low) for c in found],
        [max(0.0, c.latency.high - c.latency.ms) for c in found],
    ]
    y = [c.trained.val_nme_percent for c in found]
    axes.errorbar(
        x, y, xerr=spread, fmt=marker, color=color, ecolor=color, elinewidth=0.8, ms=6, label=label
    )
