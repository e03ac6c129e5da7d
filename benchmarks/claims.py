"""The orderings that the studies publish, compared with figures of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import studies

Figures = Mapping[str, float]
"""One detector's figures, by names like `boxes/given` and `categories/pose`."""


@dataclass(frozen=True)
class Claim:
    """An ordering that a study published, and what became of it here.

    Attributes:
        source: Table of the study.
        text: The ordering in words, smallest first.
        verdict: `reproduced`, `not reproduced` or `not testable`.
        numbers: What was compared, or what is missing.
    """

    source: str
    text: str
    verdict: str
    numbers: str


def all_claims(figures: Mapping[str, Figures], sizes: Mapping[str, float]) -> Iterator[Claim]:
    """Returns every claim, judged by the figures of trained detectors.

    Args:
        figures: By detector.
        sizes: Parameters by detector, trained or not.
    """
    yield _ordered("Table 2, parameters", studies.PARAMETERS, sizes)
    for source, published, name in (
        ("Table 4, NME in landmark boxes", studies.LANDMARK_BOXES, "boxes/landmarks"),
        ("Table 6, NME in a detector's boxes", studies.DETECTOR_BOXES, "boxes/given"),
    ):
        full = {model: row["full"] for model, row in published.items()}
        yield _ordered(source, full, _column(figures, name))
    cost = {
        model: row["full"] - studies.LANDMARK_BOXES[model]["full"]
        for model, row in studies.DETECTOR_BOXES.items()
    }
    ours = {
        model: row["boxes/given"] - row["boxes/landmarks"]
        for model, row in figures.items()
        if "boxes/given" in row
    }
    yield _ordered("Tables 4 and 6, what a detector's boxes cost", cost, ours)
    all_faces = {model: row["all"] for model, row in studies.CATEGORIES.items()}
    yield _ordered("Table 8, all faces", all_faces, _column(figures, "categories/all"))
    for column in ("frames", "sigma 0.01", "sigma 0.1", "sigma 0.2"):
        published_std = {model: row[column] for model, row in studies.STABILITY.items()}
        found = _column(figures, f"stability/{column}")
        yield _ordered(f"Table 9, STD, {column}", published_std, found)
    for column, name in (("accuracy", "accuracy"), ("loss", "rmse_px")):
        published_figure = {model: row[column] for model, row in studies.POOLED.items()}
        source = f"paper's Table 1, {column}{' (ours: RMSE in pixels)' * (column == 'loss')}"
        yield _ordered(source, published_figure, _column(figures, name))
    files = {model: row["file MB"] for model, row in studies.POOLED.items()}
    yield _ordered("paper's Table 2, file size (ours: parameters)", files, sizes)
    for model in studies.THESIS:
        row = figures.get(model)
        yield from (_within(model, row, source, names) for source, names in WITHIN)
    for model in (*studies.THESIS, *studies.PAPER):
        if model in figures:
            row = figures[model]
            yield from (_within(model, row, source, names) for source, names in DEGRADED)


WITHIN: Sequence[tuple[str, tuple[str, ...]]] = (
    ("Tables 4 and 6", ("boxes/landmarks", "boxes/given")),
    ("Tables 4 and 6", ("boxes/landmarks", "boxes/jittered 5%")),
    ("Table 4", ("categories/common", "categories/challenging")),
    ("Table 8", ("categories/female", "categories/male")),
    ("Table 8", ("categories/young", "categories/old")),
    *(
        ("Table 8", ("categories/all", f"categories/{hard}"))
        for hard in ("occlusion", "expression", "pose", "lighting")
    ),
    *(
        ("Table 8", (f"categories/{easier}", "categories/pose"))
        for easier in ("lighting", "occlusion", "expression")
    ),
    ("Table 9", ("stability/sigma 0.01", "stability/sigma 0.1", "stability/sigma 0.2")),
)
"""What the thesis' tables show of each detector alone: smaller figures first."""

_SCALES = ("x1", "x2", "x3", "x4", "x8", "x16", "x32", "x64")
DEGRADED: Sequence[tuple[str, tuple[str, ...]]] = (
    *(
        (f"finding on {kind}", tuple(f"{kind}/{scale}" for scale in scales))
        for kind in ("resolution", "blur")
        for scales in (_SCALES[:4], _SCALES[3:])
    ),
    ("finding on occlusion", tuple(f"occlusion/{part}" for part in ("0%", "10%", "20%", "30%"))),
)
"""That NME rises with the degradation: the thesis shows it in figures, without numbers."""


def _column(figures: Mapping[str, Figures], name: str) -> Figures:
    return {model: row[name] for model, row in figures.items() if name in row}


def _ordered(source: str, published: Figures, ours: Figures) -> Claim:
    order = sorted(published, key=lambda model: published[model])
    there = [model for model in order if model in ours]
    text = " < ".join(order)
    if len(there) < 2:
        missing = ", ".join(model for model in order if model not in ours)
        return Claim(source, text, "not testable", f"no figure of a trained {missing}")
    left_out = "" if there == order else f"; without {', '.join(set(order) - set(there))}"
    return _judged(source, text, [(model, ours[model]) for model in there], left_out)


def _within(model: str, row: Figures | None, source: str, names: Sequence[str]) -> Claim:
    text = f"{model}: {' < '.join(names)}"
    if row is None:
        return Claim(source, text, "not testable", f"{model} has no trained weights")
    if missing := [name for name in names if name not in row]:
        return Claim(source, text, "not testable", f"no figure of {', '.join(missing)}")
    return _judged(source, text, [(name, row[name]) for name in names], "")


def _judged(source: str, text: str, found: Sequence[tuple[str, float]], note: str) -> Claim:
    values = [value for _, value in found]
    rising = all(a < b for a, b in pairwise(values))
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in found)
    return Claim(source, text, "reproduced" if rising else "not reproduced", numbers + note)
