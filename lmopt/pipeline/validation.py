"""Validation of a training: every epoch is judged, and the best one is what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import ValueRange


@dataclass(frozen=True, eq=False)
class Epoch:
    """What a training would give back if it ended with this epoch.

    Attributes:
        graph: With the weights.
        ranges: Activation ranges, where they are trained.
        answers: What the training's own forward pass answers for `Validation.crops`,
            [faces, 2 * landmarks], encoded as the contract says; None without crops.
    """

    graph: Graph
    ranges: Mapping[Value, ValueRange] = field(default_factory=dict)
    answers: NDArray[np.float32] | None = None


@dataclass(eq=False)
class Validation:
    """Judges the epochs of a training by an error that is to be small, and remembers it.

    Attributes:
        error: Returns the error of an epoch: the NME in percent of its emitted file; infinity
            leaves the epoch out.
        digest: Of what that depends on besides the epoch.
        crops: Faces for `Epoch.answers`, uint8[faces, height, width, channels], or None.
        errors: Of every epoch so far, those before an interruption included.
    """

    error: Callable[[Epoch], float]
    digest: str
    crops: NDArray[np.uint8] | None = None
    errors: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        kept = int(np.argmin(self.errors))
        curve = ", ".join(
            f"{error:.3f}" if np.isfinite(error) else "left out" for error in self.errors
        )
        return f"validation NME by epoch {curve} %; kept epoch {kept + 1} of {len(self.errors)}"
