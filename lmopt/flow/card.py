"""CUDA devices in use cases: whether one is there, and SavedModels of candidates measured on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmopt.errors import BackendError, UsageError
from lmopt.exploration.candidate import Trained
from lmopt.flow.saved_model import takes_saved_models
from lmopt.latency.cuda import CudaRun, compare_saved_models, require_card
from lmopt.latency.measurement import Measurement
from lmopt.target.profile import Target
from lmopt.training.saved_model import FORMS

CARD_S = 4.0
"""Seconds for a SavedModel, XLA on and off."""


def card_of(device: str, target: Target) -> str:
    """Returns what the CUDA device is that `--device` means, in words.

    Raises:
        UsageError: The target takes .tflite files.
        BackendError: There is no such device here.
    """
    if not takes_saved_models(target):
        raise UsageError(
            f"the target {target.name} takes .tflite files, which do not run on CUDA",
            where="--device",
            hint="name a target that takes SavedModels: --target desktop-cuda",
        )
    return require_card(device)


@dataclass(frozen=True)
class OnCard:
    """What a CUDA device had to say of candidates; implements `OnDevice`.

    Attributes:
        run: Latencies by the path of a SavedModel, and why one has none.
        folders: SavedModels by form, by the digest of the .tflite that stands for them.
    """

    run: CudaRun
    folders: Mapping[str, Path]

    def best(self, digest: str) -> Measurement:
        """Returns the measurement in the fastest form, XLA on or off; raises BackendError."""
        return self._fastest(digest)[1]

    def ran(self, digest: str) -> str:
        """Returns the path of the SavedModel that was the fastest; raises BackendError."""
        return self._fastest(digest)[0]

    def notes(self, digest: str) -> tuple[str, ...]:
        """Returns which form was the fastest, and how fast the others were."""
        path, best = self._fastest(digest)
        measured = self.run.measurements
        others = (
            f"{form} with XLA {xla} {found.p50:.3f} ms"
            for form, label in self._labels(digest).items()
            for (name, xla), found in measured.items()
            if name == label and found is not best
        )
        return (
            ", ".join((f"CUDA: fastest as {Path(path).name} with XLA {best.xla}", *others)),
            *(
                f"CUDA: {form}: {text}"
                for form, label in self._labels(digest).items()
                for text in self.run.notes(label)
            ),
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Returns why the latencies may not be what the device can do."""
        found = self.run.measurements.values()
        return tuple(dict.fromkeys(doubt for m in found for doubt in m.doubts))

    def _labels(self, digest: str) -> Mapping[str, str]:
        """Returns the paths of the SavedModels by form."""
        if digest not in self.folders:
            raise BackendError(
                "no SavedModels were kept of it",
                where=digest,
                hint="another --out makes it anew",
            )
        return {form: str(self.folders[digest] / form) for form in FORMS}

    def _fastest(self, digest: str) -> tuple[str, Measurement]:
        labels = self._labels(digest).values()
        ran = {name for name, _ in self.run.measurements}
        found = {label: self.run.best(label) for label in labels if label in ran}
        if not found:
            raise next(e for (name, _), e in self.run.failures.items() if name in labels)
        return min(found.items(), key=lambda item: item[1].p50)


def measure_on_card(made: Iterable[Trained], device: str, seed: int) -> OnCard:
    """Returns measurements of all forms of all candidates, XLA on and off, in one run.

    Raises:
        BackendError: The device went away, or TensorFlow crashes.
    """
    kept = {one.digest: Path(one.saved_models) for one in made if one.saved_models is not None}
    paths = [folder / form for folder in kept.values() for form in FORMS]
    run = compare_saved_models(
        {str(path): path for path in paths},
        device=device,
        max_seconds=CARD_S * len(paths),
        seed=seed,
    )
    return OnCard(run, kept)
