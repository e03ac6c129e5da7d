"""The protocols by which detectors are judged, and the rows each of them reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from lmopt.data.dataset import Dataset
from lmopt.data.jitter import SIDE_SIGMA
from lmopt.detector.contract import BoxSource, Contract
from lmopt.errors import UsageError
from lmopt.scoring.loaded import LoadedModel
from lmopt.scoring.metrics import Normaliser
from lmopt.scoring.panel import Panel, Report
from lmopt.scoring.protocols import require_scorable
from lmopt.scoring.rows import NotTestable, Row
from lmopt.scoring.settings import Settings
from lmopt.scoring.stability import stability_rows
from lmopt.scoring.views import JITTERED, View, find_in_views

ProtocolName = Literal[
    "nme", "categories", "boxes", "resolution", "blur", "occlusion", "stability", "regions"
]
CATEGORIES = ("female", "male", "young", "old", "occlusion", "expression", "pose", "lighting")
"""The categories of the thesis, reported also where no face is labelled so.

Source: Haapamäki 2020, table 8.
"""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to be judged: its file's bytes, what it eats and gives, what messages call it."""

    data: bytes
    contract: Contract
    name: str


def judge(
    subjects: Sequence[Subject],
    dataset: Dataset,
    protocols: Sequence[ProtocolName],
    settings: Settings,
    *,
    normaliser: Normaliser,
    box: BoxSource | None = None,
    threads: int = 1,
    report: Report,
) -> tuple[Mapping[ProtocolName, tuple[Row, ...]], ...]:
    """Returns, for each subject, the rows of each protocol.

    Every file is loaded once and, but for the few faces of `stability`, every picture read once,
    however many protocols there are.

    Raises:
        InputError: A file or its contract does not fit the faces, or a picture cannot be read.
        BackendError: The runtime fails on a file.
    """
    for subject in subjects:
        require_scorable(dataset, subject.contract)
    with ExitStack() as stack:
        models = [
            stack.enter_context(LoadedModel(s.data, s.contract, s.name, threads=threads))
            for s in subjects
        ]
        panels = [
            Panel(
                model, dataset, normaliser, View(box or model.contract.crop.box), settings, report
            )
            for model in models
        ]
        views = [
            list(dict.fromkeys(view for p in protocols for view in PROTOCOLS[p].views(panel)))
            for panel in panels
        ]
        if any(views):
            told = partial(report, "showing faces")
            found = find_in_views(models, dataset, views, told)
            for panel, answers in zip(panels, found, strict=True):
                panel.found.update(answers)
        return tuple({p: PROTOCOLS[p].rows(panel) for p in protocols} for panel in panels)


@dataclass(frozen=True)
class _Protocol:
    views: Callable[[Panel], Sequence[View]]
    rows: Callable[[Panel], tuple[Row, ...]]


def _nme(panel: Panel) -> tuple[Row, ...]:
    return (panel.row("nme", "", panel.plain),)


def _regions(panel: Panel) -> tuple[Row, ...]:
    whole = panel.row("regions", "all", panel.plain)
    regions = panel.scheme.regions
    if not regions:
        reason = f"the scheme '{panel.scheme.name}' names no regions; a contract's [scheme] can"
        return (whole, NotTestable("regions", reason))
    return (
        whole,
        *(panel.row("regions", name, panel.plain, landmarks=k) for name, k in regions.items()),
    )


def _categories(panel: Panel) -> tuple[Row, ...]:
    labelled = categories(panel.dataset)
    rows: list[Row] = [panel.row("categories", "all", panel.plain)]
    for name in (*CATEGORIES, *(name for name in labelled if name not in CATEGORIES)):
        if name not in labelled:
            rows.append(NotTestable(name, "no face is labelled so; --labels FILE can say"))
            continue
        has = np.array([face.labels.get(name, 0.0) >= 0.5 for face in panel.dataset.faces])
        rows.append(panel.row("categories", name, panel.plain, has))
    return tuple(rows)


def categories(dataset: Dataset) -> tuple[str, ...]:
    """Returns the labels that say whether a face has something: all their values are in 0..1.

    Others are quantities, such as an angle.
    """
    values: dict[str, list[float]] = {}
    for face in dataset.faces:
        for name, value in face.labels.items():
            values.setdefault(name, []).append(value)
    return tuple(name for name, found in values.items() if 0 <= min(found) <= max(found) <= 1)


def _box_views(panel: Panel) -> tuple[View, ...]:
    return (View("landmarks"), View("given"), View(JITTERED, seed=panel.settings.seed))


def _boxes(panel: Panel) -> tuple[Row, ...]:
    # Side by side means on the same faces: those that have all boxes.
    boxed = np.array([face.box is not None for face in panel.dataset.faces])
    everywhere = boxed if boxed.any() else np.ones(len(boxed), bool)
    landmarks, given, moved = _box_views(panel)
    return (
        panel.row("boxes", "landmarks", landmarks, everywhere),
        panel.row("boxes", "given", given, boxed),
        panel.row("boxes", f"jittered {SIDE_SIGMA:.0%}", moved, everywhere),
    )


def _scaled_views(kind: str) -> Callable[[Panel], tuple[View, ...]]:
    return lambda panel: (
        panel.plain,
        *(replace(panel.plain, degradation=kind, amount=f) for f in panel.settings.factors),
    )


def _scaled(kind: str) -> Callable[[Panel], tuple[Row, ...]]:
    def rows(panel: Panel) -> tuple[Row, ...]:
        views = _scaled_views(kind)(panel)
        return tuple(panel.row(kind, f"x{view.amount:g}", view) for view in views)

    return rows


def _occlusion_views(panel: Panel) -> tuple[View, ...]:
    hidden = View(panel.plain.box, "occlusion", seed=panel.settings.seed)
    return (panel.plain, *(replace(hidden, amount=f) for f in panel.settings.fractions))


def _occlusion(panel: Panel) -> tuple[Row, ...]:
    plain, *hidden = _occlusion_views(panel)
    return (
        panel.row("occlusion", "0%", plain),
        *(panel.row("occlusion", f"{view.amount:.0%}", view) for view in hidden),
    )


def _plain(panel: Panel) -> tuple[View, ...]:
    return (panel.plain,)


PROTOCOLS: Mapping[ProtocolName, _Protocol] = {
    "nme": _Protocol(_plain, _nme),
    "categories": _Protocol(_plain, _categories),
    "boxes": _Protocol(_box_views, _boxes),
    "resolution": _Protocol(_scaled_views("resolution"), _scaled("resolution")),
    "blur": _Protocol(_scaled_views("blur"), _scaled("blur")),
    "occlusion": _Protocol(_occlusion_views, _occlusion),
    "stability": _Protocol(lambda panel: (), stability_rows),
    "regions": _Protocol(_plain, _regions),
}
"""Which views of the faces a protocol needs, and its rows from what was found in them."""


def protocols_named(name: str) -> tuple[ProtocolName, ...]:
    """Returns the protocols of a name; `all` are all of them.

    Raises:
        UsageError: No such protocol.
    """
    if name == "all":
        return tuple(PROTOCOLS)
    known: Mapping[str, ProtocolName] = {protocol: protocol for protocol in PROTOCOLS}
    if name not in known:
        raise UsageError(f"unknown protocol '{name}'", hint=f"choose {', '.join(PROTOCOLS)} or all")
    return (known[name],)
