"""One model before the faces of one dataset: turns what it found into rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmopt.data.dataset import Dataset
from lmopt.detector.scheme import LandmarkScheme
from lmopt.scoring.loaded import LoadedModel
from lmopt.scoring.metrics import (
    Normaliser,
    normalising_distance,
    pixel_accuracy,
    point_errors,
)
from lmopt.scoring.protocols import Score, split_of
from lmopt.scoring.rows import NotTestable, Row, Scored
from lmopt.scoring.settings import Settings
from lmopt.scoring.views import Found, View

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Panel:
    """A loaded model, the faces, and what was found in their views so far.

    Attributes:
        model: The model.
        dataset: The faces.
        normaliser: What errors are divided by.
        plain: The view of the faces as they are.
        settings: The numbers in the protocols.
        report: Receives progress.
        found: Answers by view.
    """

    model: LoadedModel
    dataset: Dataset
    normaliser: Normaliser
    plain: View
    settings: Settings
    report: Report
    found: dict[View, Found] = field(default_factory=dict)
    _parts: dict[bytes, Dataset] = field(default_factory=dict)

    @property
    def scheme(self) -> LandmarkScheme:
        """Returns the meaning of the landmarks."""
        return self.model.contract.scheme

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """Returns the true landmarks in picture pixels, [faces, landmarks, 2]."""
        return np.stack([face.landmarks for face in self.dataset.faces])

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """Returns each face's size in picture pixels."""
        return normalising_distance(self.truth, self.scheme, self.normaliser)

    def row(
        self,
        protocol: str,
        condition: str,
        view: View,
        faces: Mask | None = None,
        landmarks: Sequence[int] | None = None,
    ) -> Row:
        """Returns the row of some faces (all) and some landmarks (all) seen in a view."""
        wanted = np.ones(len(self.dataset), bool) if faces is None else faces
        found = self.found[view]
        kept = wanted & found.shown
        if not kept.any():
            shown = "has a given box" if view.box == "given" else "is labelled so"
            return NotTestable(condition, f"none of the {len(self.dataset)} faces {shown}")
        points = list(range(self.scheme.count)) if landmarks is None else list(landmarks)
        chosen = np.ix_(np.flatnonzero(kept), np.array(points))
        errors = point_errors(found.picture[chosen], self.truth[chosen])
        distance = self.distance[kept]
        each = (100.0 * errors / distance[:, None]).mean(axis=0)
        part = self.part(kept)
        contract = self.model.contract
        size = np.array([contract.width, contract.height])
        predicted, true = (unit[chosen] * size - 0.5 for unit in (found.unit, found.truth_unit))
        score = Score(
            per_face=tuple((100.0 * errors.mean(axis=1) / distance).tolist()),
            normaliser=self.normaliser,
            crop=view.crop_rule(contract.crop),
            box=view.box,
            digest=self.model.digest,
            dataset=self.dataset.name,
            dataset_digest=part.digest,
            split=split_of(part),
            skipped=int(np.count_nonzero(wanted & ~found.shown)),
            protocol=protocol,
            condition=stated(condition, view.seed),
        )
        return Scored(
            score=score,
            ids=tuple(face.id for face in part.faces),
            landmarks=dict(zip(points, each.tolist(), strict=True)),
            accuracy=pixel_accuracy(predicted, true),
            rmse_px=float(np.sqrt(np.mean((predicted - true) ** 2))),
            side_px=float(np.median(found.side_px[kept])),
        )

    def part(self, kept: Mask) -> Dataset:
        """Returns some of the faces."""
        if kept.all():
            return self.dataset
        key = kept.tobytes()
        if key not in self._parts:
            chosen = {face.id for face, keep in zip(self.dataset.faces, kept, strict=True) if keep}
            self._parts[key] = self.dataset.keep(lambda face: face.id in chosen)
        return self._parts[key]


def stated(condition: str, seed: int) -> str:
    """Returns a condition with the seed of what is random in it, unless that is the usual 0."""
    return f"{condition}, seed {seed}" if seed else condition
