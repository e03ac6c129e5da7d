"""What became of one pipeline: a candidate with its file, scores and times, or a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

LatencyKind = Literal["measured", "estimated"]
Objective = Literal["bytes", "stability"]
OBJECTIVES: tuple[Objective, ...] = ("bytes", "stability")
"""What a front may minimise besides NME and latency."""


@dataclass(frozen=True)
class Latency:
    """A latency that says how it is known.

    Attributes:
        ms: Median of a measurement, or the estimate.
        kind: `measured` or `estimated`.
        where: The machine that was measured, or the target that was estimated.
        low, high: 95 % interval of the median, or the estimate's error bounds.
        threads: CPU threads, where they apply.
    """

    ms: float
    kind: LatencyKind
    where: str
    low: float
    high: float
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """A candidate that was made and scored on validation faces, before it is timed.

    Attributes:
        pipeline: The pipeline text.
        digest: Digest of the file's bytes.
        model: Absolute path of the .tflite.
        size_bytes: Its size.
        val_nme_percent: NME on the validation faces.
        parameters, macs: Of the final graph.
        seconds: Time the pipeline took.
        notes: What passes had to say.
        saved_models: Absolute path of the folder with SavedModels by form, where the target takes
            those instead of the .tflite.
        std_percent: STD of the landmarks over noisy copies of validation faces, see
            `lmopt.scoring.stability.NoiseProtocol`; None where nobody asked for it.
    """

    pipeline: str
    digest: str
    model: str
    size_bytes: int
    val_nme_percent: float
    parameters: int
    macs: int
    seconds: float
    notes: tuple[str, ...] = ()
    saved_models: str | None = None
    std_percent: float | None = None

    def figure(self, objective: Objective) -> float:
        """Returns what an objective minimises."""
        if objective == "bytes":
            return float(self.size_bytes)
        assert self.std_percent is not None, "nobody asked for it when this was made"
        return self.std_percent


@dataclass(frozen=True)
class Candidate:
    """A candidate with everything the front needs.

    Attributes:
        trained: The file and its validation score.
        latency: On the target: measured where it can be, else estimated.
        host: Measured on this host.
        speedup: Baseline's time over this one's, each at its best thread count, measured on this
            host in one interleaved run: value and 95 % interval.
        nme_percent: NME on the test faces; only what is reported is ever scored there.
        device_speedup: Likewise measured on a phone or a card, where `latency` was; else None.
        device_model: Path of the SavedModel that was the fastest there, where it was one.
    """

    trained: Trained
    latency: Latency
    host: Latency
    speedup: tuple[float, float, float]
    nme_percent: float | None = None
    device_speedup: tuple[float, float, float] | None = None
    device_model: str | None = None

    @property
    def pipeline(self) -> str:
        """Returns the pipeline text."""
        return self.trained.pipeline

    @property
    def objectives(self) -> tuple[float, float]:
        """Returns what a front minimises: validation NME in percent and latency in ms."""
        return (self.trained.val_nme_percent, self.latency.ms)

    def minimised(self, more: Sequence[Objective]) -> tuple[float, ...]:
        """Returns validation NME in percent, more objectives, and latency in ms."""
        nme, ms = self.objectives
        return (nme, *map(self.trained.figure, more), ms)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return {
            "pipeline": self.pipeline,
            "nme_percent": self.nme_percent,
            "val_nme_percent": self.trained.val_nme_percent,
            "latency": self.latency.to_json(),
            "host_ms": self.host.ms,
            "host": self.host.to_json(),
            "host_speedup": dict(zip(("value", "low", "high"), self.speedup, strict=True)),
            "device_speedup": None
            if self.device_speedup is None
            else dict(zip(("value", "low", "high"), self.device_speedup, strict=True)),
            "device_model": self.device_model,
            "size_bytes": self.trained.size_bytes,
            "std_percent": self.trained.std_percent,
            "parameters": self.trained.parameters,
            "macs": self.trained.macs,
            "model": self.trained.model,
            "saved_models": self.trained.saved_models,
            "digest": self.trained.digest,
            "seconds": self.trained.seconds,
            "notes": list(self.trained.notes),
        }


@dataclass(frozen=True)
class Failure:
    """A pipeline that gave no usable file, and why.

    Attributes:
        pipeline: The pipeline text.
        status: `failed`, or `skipped` when it was never started.
        reason: For people.
    """

    pipeline: str
    status: Literal["failed", "skipped"]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report."""
        return asdict(self)


def trained_from_json(data: Mapping[str, Any]) -> Trained:
    """Returns the candidate a journal line holds."""
    return Trained(**{**data, "notes": tuple(data.get("notes", ()))})
