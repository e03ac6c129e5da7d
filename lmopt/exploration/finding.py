"""What a search asked for and what it found of it, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmopt.exploration.racer import Interval
from lmopt.exploration.space import Sketch


@dataclass(frozen=True)
class Finding:
    """A candidate after one fidelity.

    Attributes:
        pipeline: Its text.
        digest, size_bytes: Of the file.
        errors: NME in percent of each validation face.
        macs, parameters: Of the graph.
        ms: Latency relative to the baseline's, known from fidelity 0 on.
        more: Other objectives, relative to the baseline's.
        latency_ms: In milliseconds, measured or estimated as the search does it.
        place: In the order of all findings.
        seconds: What making it took, beyond what was had before.
    """

    pipeline: str
    digest: str
    size_bytes: int
    errors: tuple[float, ...]
    macs: int
    parameters: int
    ms: Interval
    latency_ms: float
    more: tuple[float, ...] = ()
    place: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def nme_percent(self) -> float:
        """Returns the mean NME in percent."""
        return float(np.mean(self.errors))

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; `finding_from_json` gives the finding back."""
        lists = {name: list(getattr(self, name)) for name in ("errors", "ms", "more")}
        return {**self.__dict__, **lists}


def finding_from_json(data: Mapping[str, Any]) -> Finding:
    """Returns what `Finding.to_json` made plain."""
    read = {"errors": tuple(data["errors"]), "ms": Interval(*data["ms"])}
    return Finding(**{**data, **read, "more": tuple(data.get("more", ()))})


@dataclass(frozen=True)
class Asked:
    """A candidate by its number in the study."""

    number: int
    sketch: Sketch


@dataclass(frozen=True)
class Tried:
    """A candidate of a study with everything that is known of it.

    Attributes:
        asked: Number and sketch.
        findings: By fidelity, from no training on.
        failure: Why it gave nothing, or was not trained on; empty where neither is so.
    """

    asked: Asked
    findings: tuple[Finding, ...]
    failure: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        last = self.findings[-1] if self.findings else None
        return {
            "number": self.asked.number,
            "sketch": str(self.asked.sketch),
            "pipeline": None if last is None else last.pipeline,
            "digest": None if last is None else last.digest,
            "val_nme_percent": [row.nme_percent for row in self.findings],
            "relative_latency": None if last is None else last.ms._asdict(),
            "relative_more": None if last is None else list(last.more),
            "latency_ms": None if last is None else last.latency_ms,
            "size_bytes": None if last is None else last.size_bytes,
            "failure": self.failure,
        }
