"""What a running use case tells its listeners: frozen events, never text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmopt.exploration.candidate import Failure, Trained
from lmopt.exploration.racing import Interval
from lmopt.exploration.space import Sketch
from lmopt.pipeline.manager import PassEvent
from lmopt.pipeline.services import TrainingProgress


@dataclass(frozen=True)
class Started:
    """A run begins; `pipelines` candidates are ahead."""

    detector: str
    target: str
    data: str
    pipelines: int


@dataclass(frozen=True)
class Activity:
    """Something that takes a while begins (`done` of `total` when it can be counted)."""

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class CandidateStarted:
    """A pipeline begins; `position` counts from 1."""

    position: int
    total: int
    pipeline: str


@dataclass(frozen=True)
class PassProgress:
    """A pass of the present pipeline begins or has ended."""

    pipeline: str
    event: PassEvent


@dataclass(frozen=True)
class Training:
    """A training step was reported."""

    progress: TrainingProgress


@dataclass(frozen=True)
class CandidateTrained:
    """A candidate was made and scored on validation faces."""

    candidate: Trained
    resumed: bool


@dataclass(frozen=True)
class CandidateFailed:
    """A pipeline gave no usable file."""

    failure: Failure


@dataclass(frozen=True)
class Noted:
    """A user should know this."""

    text: str


@dataclass(frozen=True)
class Raced:
    """A search begins to train a candidate; `fidelity` 0 of `fidelities` trains nothing."""

    number: int
    fidelity: int
    fidelities: int
    sketch: Sketch


@dataclass(frozen=True)
class Found:
    """A search knows more of a candidate; `volume` is the front's hypervolume since."""

    number: int
    nme_percent: float
    relative_ms: Interval
    volume: Interval | None = None


@dataclass(frozen=True)
class Dropped:
    """A search does not go on with a candidate."""

    number: int
    reason: str


Event = (
    Started
    | Activity
    | CandidateStarted
    | PassProgress
    | Training
    | CandidateTrained
    | CandidateFailed
    | Noted
    | Raced
    | Found
    | Dropped
)
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drops an event: the listener of callers that want none."""
