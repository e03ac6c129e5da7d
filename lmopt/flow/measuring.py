"""The use case `measure`: latency of files here, interleaved when two are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmopt.errors import UsageError
from lmopt.frontend.savedmodel import is_saved_model
from lmopt.latency.cuda import compare_saved_models
from lmopt.latency.harness import Key, compare
from lmopt.latency.measurement import Measurement, Ratio, ratio

MODEL, AGAINST = "model", "against"


@dataclass(frozen=True)
class Measured:
    """Latencies of a file, and of the one it was compared with in the same interleaved run.

    Attributes:
        model: The measured file.
        measurements: By thread count.
        against: The other file, or None.
        against_measurements: Of the other file, by thread count.
        speedups: How many times the model is as fast as the other file, by thread count.
    """

    model: str
    measurements: Mapping[int, Measurement]
    against: str | None
    against_measurements: Mapping[int, Measurement]
    speedups: Mapping[int, Ratio]

    @property
    def best(self) -> Measurement:
        """Returns the measurement at the fastest thread count."""
        return min(self.measurements.values(), key=lambda m: m.p50)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for a report; times are milliseconds."""
        document: dict[str, Any] = {
            "model": self.model,
            "measurements": [m.to_json() for m in self.measurements.values()],
            "best": self.best.to_json(),
        }
        if self.against is not None:
            document["against"] = {
                "model": self.against,
                "measurements": [m.to_json() for m in self.against_measurements.values()],
            }
            document["speedups"] = [
                {"threads": threads, **found.to_json()} for threads, found in self.speedups.items()
            ]
        return document


def measure(
    model: str | Path | bytes,
    *,
    against: str | Path | bytes | None = None,
    threads: Sequence[int] = (1,),
    max_seconds: float = 20.0,
    min_runs: int = 50,
    seed: int = 0,
) -> Measured:
    """Returns measured latencies of a .tflite on this host, or of a SavedModel on its CUDA device.

    Args:
        model: The file or its bytes, or the folder of a SavedModel.
        against: Another one of the same kind, measured in the same interleaved run.
        threads: CPU thread counts; a SavedModel is measured once.
        max_seconds: When to stop although an interval is still wide.
        min_runs: Inferences of each .tflite, unless the time is up before.
        seed: Draws the order of visits.

    Raises:
        UsageError: A .tflite against a SavedModel, or CPU threads for SavedModels.
        InputError: A file that cannot be read, or a thread count the machine does not have.
        BackendError: A file crashes, hangs or is refused by the runtime, or no CUDA device is here.
    """
    files = {MODEL: _file(model)}
    if against is not None:
        files[AGAINST] = _file(against)
    found = _on_cuda(files, threads, max_seconds, seed)
    if found is None:
        found = compare(
            files, threads=tuple(threads), max_seconds=max_seconds, min_runs=min_runs, seed=seed
        )
    own = {count: found[MODEL, count] for count in threads}
    other = {count: found[AGAINST, count] for count in threads} if against is not None else {}
    return Measured(
        _name(model),
        own,
        None if against is None else _name(against),
        other,
        {count: ratio(other[count], own[count]) for count in other},
    )


def _on_cuda(
    files: Mapping[str, bytes | Path], threads: Sequence[int], max_seconds: float, seed: int
) -> dict[Key, Measurement] | None:
    """Returns measurements of SavedModels, or None when there are none among the files."""
    folders = {k: f for k, f in files.items() if isinstance(f, Path) and is_saved_model(f)}
    if not folders:
        return None
    if len(folders) < len(files):
        raise UsageError(
            "a SavedModel runs on CUDA and a .tflite on this CPU: that is no comparison",
            where="--against",
            hint="give two of one kind",
        )
    if tuple(threads) != (1,):
        raise UsageError("CPU threads do not apply to a SavedModel", where="--threads")
    found = compare_saved_models(folders, max_seconds=max_seconds, seed=seed)
    return {(label, 1): measurement for label, measurement in found.items()}


def _file(model: str | Path | bytes) -> bytes | Path:
    return model if isinstance(model, bytes) else Path(model)


def _name(model: str | Path | bytes) -> str:
    return "bytes" if isinstance(model, bytes) else str(model)
