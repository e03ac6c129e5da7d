"""What a running use case tells its listeners: frozen events, never text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lmopt.exploration.candidate import Failure, Trained
from lmopt.exploration.racer import Interval
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
    """A search begins to train a candidate; `fidelity` 0 of `fidelities` trains nothing.

    Attributes:
        number: In the order of asking.
        fidelity, fidelities: What is trained now, and the last one.
        sketch: What it does of its own, behind what it has from `parent`.
        parent: Number and fidelity of whom it goes on from; at 0 they share passes and training.
        minutes, budget: Spent and to be spent.
    """

    number: int
    fidelity: int
    fidelities: int
    sketch: Sketch
    parent: tuple[int, int] | None
    minutes: float
    budget: float


@dataclass(frozen=True)
class Found:
    """A search knows more of a candidate.

    Attributes:
        number: In the order of asking.
        nme_percent: On the validation faces.
        relative_ms: Latency over the baseline's.
        volume: The front's hypervolume since; None where it was not trained.
        more: Other objectives over the baseline's, by name.
    """

    number: int
    nme_percent: float
    relative_ms: Interval
    volume: Interval | None = None
    more: Mapping[str, float] = field(default_factory=dict)


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
