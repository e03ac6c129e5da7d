"""What an optimization found: baseline, front, everything else, and how it was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmopt.exploration.candidate import Candidate, Failure
from lmopt.exploration.finding import Tried
from lmopt.exploration.racer import Interval
from lmopt.exploration.space import SearchSpace
from lmopt.exploration.storage import StorageComparison

REAL_TIME_MS: Mapping[str, float] = {"30 ms": 30.0, "15 ms": 15.0}
"""Frame budgets of the thesis (section 5.3): usable in real time, and comfortably so."""


@dataclass(frozen=True)
class Dominated:
    """A candidate that is not on the front, and the one that beats it."""

    candidate: Candidate
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {"status": "dominated", "reason": self.reason, **self.candidate.to_json()}


@dataclass(frozen=True)
class OptimizeResult:
    """The outcome of `lmopt optimize`.

    Attributes:
        target: Target name.
        detector: Detector as the user called it.
        data: What the numbers were measured on: name, digest, faces per split, protocol.
        baseline: The folded float file at its best thread count.
        front: Fastest first; scored on the test faces.
        dominated: Usable candidates off the front.
        failures: Pipelines without a usable file.
        environment: Versions, host, seed, command.
        storage: What the detector itself costs in each storage form.
    """

    target: str
    detector: str
    data: Mapping[str, Any]
    baseline: Candidate
    front: tuple[Candidate, ...]
    dominated: tuple[Dominated, ...]
    failures: tuple[Failure, ...]
    environment: Mapping[str, Any]
    storage: StorageComparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the document `--json` prints and `front.json` holds."""
        on_front = [{"status": "front", **c.to_json()} for c in self.front]
        return {
            "target": self.target,
            "detector": self.detector,
            "data": dict(self.data),
            "baseline": self.baseline.to_json(),
            "front": [c.to_json() for c in self.front],
            "candidates": [
                *on_front,
                *(d.to_json() for d in self.dominated),
                *(f.to_json() for f in self.failures),
            ],
            "storage": None if self.storage is None else self.storage.to_json(),
            "environment": dict(self.environment),
        }


@dataclass(frozen=True)
class SearchResult:
    """The outcome of `lmopt search`.

    Attributes:
        optimized: The front, trained as far as the budget allowed, measured anew in one run and
            scored on the test faces.
        space: What was searched.
        volumes: The hypervolume after every result.
        candidates: Everything that was asked, in order.
        stopped: Why the search ended.
    """

    optimized: OptimizeResult
    space: SearchSpace
    volumes: tuple[Interval, ...]
    candidates: tuple[Tried, ...]
    stopped: str

    def to_json(self) -> dict[str, Any]:
        """Returns the document `--json` prints and `search.json` holds."""
        return {
            **self.optimized.to_json(),
            "search": {
                "space": self.space.to_toml(),
                "stopped": self.stopped,
                "hypervolume": [volume._asdict() for volume in self.volumes],
                "candidates": [tried.to_json() for tried in self.candidates],
            },
        }


def verdict(latency_ms: float) -> str:
    """Returns the thesis' real-time verdict on a latency.

    >>> verdict(12.0), verdict(20.0), verdict(40.0)
    ('real time (15 ms)', 'real time (30 ms)', 'not real time')
    """
    for name, budget in sorted(REAL_TIME_MS.items(), key=lambda row: row[1]):
        if latency_ms <= budget:
            return f"real time ({name})"
    return "not real time"
