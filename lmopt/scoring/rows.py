"""What a protocol reports: a row per condition, measured or not testable with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmopt.scoring import metrics
from lmopt.scoring.metrics import Difference
from lmopt.scoring.protocols import Score, difference
from lmopt.scoring.stamp import Stamp

WORST = 10
CED_LIMITS = tuple(k / 4 for k in range(61))  # 0..15 %
MIN_FACES = 10
"""Below so many faces no difference is called significant."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The errors of some landmarks of some faces under one condition.

    Attributes:
        score: The NME of these faces and landmarks, with the protocol it was found by.
        ids: The faces, in the score's order.
        landmarks: NME in percent of each landmark, by its number.
        accuracy: Share of coordinates on the true pixel of the network's input, 0..1.
        rmse_px: Root of the mean squared error of a coordinate, in pixels of the input.
        side_px: Median of the crop's longer side in the picture as it was shown.
    """

    score: Score
    ids: tuple[str, ...]
    landmarks: Mapping[int, float]
    accuracy: float
    rmse_px: float
    side_px: float

    @property
    def stamp(self) -> Stamp:
        """Returns the protocol this was found by."""
        return self.score.stamp

    @property
    def condition(self) -> str:
        """Returns the condition the faces were shown under."""
        return self.score.condition

    @property
    def per_face(self) -> tuple[float, ...]:
        """Returns each face's NME in percent."""
        return self.score.per_face

    @property
    def mean_percent(self) -> float:
        """Returns the NME in percent."""
        return self.score.nme_percent

    def ced(self) -> tuple[tuple[float, float], ...]:
        """Returns points (limit in percent, share of faces within it) of the cumulative curve."""
        shares = metrics.ced_curve(np.array(self.per_face), np.array(CED_LIMITS))
        return tuple(zip(CED_LIMITS, shares.tolist(), strict=True))

    def worst(self, count: int = WORST) -> tuple[tuple[str, float], ...]:
        """Returns the faces with the largest errors, worst first, and their NME in percent."""
        order = np.argsort(self.per_face)[::-1][:count]
        return tuple((self.ids[k], self.per_face[k]) for k in order)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "condition": self.condition,
            **self.score.to_json(),
            "accuracy": self.accuracy,
            "rmse_px": self.rmse_px,
            "side_px": self.side_px,
            "landmarks": self.landmarks,
            "ced": self.ced(),
            "worst": [{"face": face, "nme_percent": nme} for face, nme in self.worst()],
        }


@dataclass(frozen=True, eq=False)
class Spread:
    """How much a detector's answer moves while nothing does.

    Attributes:
        stamp: The protocol this was found by.
        per_face: STD in percent of each face, the mean over its landmarks.
        ids: The faces.
        looks: How often each was looked at.
        digest: 32 hex digits over the model file's bytes.
    """

    stamp: Stamp
    per_face: tuple[float, ...]
    ids: tuple[str, ...]
    looks: int
    digest: str

    @property
    def condition(self) -> str:
        """Returns the condition the face was looked at under."""
        return self.stamp.condition

    @cached_property
    def mean_percent(self) -> float:
        """Returns the mean STD in percent."""
        return float(np.mean(self.per_face))

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        stamp = self.stamp
        return {
            "condition": self.condition,
            "protocol": stamp.protocol,
            "std_percent": self.mean_percent,
            "faces": stamp.faces,
            "looks": self.looks,
            "normaliser": stamp.normaliser,
            "crop": stamp.crop,
            "box": stamp.box,
            "digest": self.digest,
            "dataset_digest": stamp.dataset_digest,
            "split": stamp.split,
        }


@dataclass(frozen=True)
class NotTestable:
    """A condition that these faces cannot show, and why."""

    condition: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {"condition": self.condition, "not_testable": self.reason}


Row = Scored | Spread | NotTestable


@dataclass(frozen=True)
class Comparison:
    """One condition's errors of a model minus those of another, face by face.

    Attributes:
        difference: In percentage points, with its 95 % interval.
        significant: Whether the interval leaves out 0; None where fewer than 10 faces were seen.
        changed: The faces that changed most and by how much, largest change first.
    """

    difference: Difference
    significant: bool | None
    changed: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        words = {True: "significant", False: "not significant", None: "too few faces to tell"}
        return f"{self.difference} ({words[self.significant]})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        gap = self.difference
        return {
            "change": {"mean": gap.mean, "low": gap.low, "high": gap.high},
            "significant": self.significant,
            "changed": [{"face": face, "change": change} for face, change in self.changed],
        }


def compare(row: Row, other: Row, seed: int = 0) -> Comparison | None:
    """Returns the errors of `row` minus those of `other`; None where one is not testable.

    Raises:
        InputError: They were not found by one protocol on the same faces.
    """
    if isinstance(row, NotTestable) or isinstance(other, NotTestable):
        return None
    gap = difference(row, other, seed)
    change = np.subtract(row.per_face, other.per_face)
    order = np.argsort(-np.abs(change), kind="stable")[:WORST]
    return Comparison(
        gap,
        bool(gap.low > 0 or gap.high < 0) if len(change) >= MIN_FACES else None,
        tuple((row.ids[k], float(change[k])) for k in order),
    )
