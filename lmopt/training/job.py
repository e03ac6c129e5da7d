"""What passes between a program and its training process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import ValueRange
from lmopt.pipeline.base import QuantScheme, SparsityPlan, TrainingPlan

if TYPE_CHECKING:
    from lmopt.data.augment import AugmentPlan
    from lmopt.data.dataset import Dataset


@dataclass(frozen=True)
class Setup:
    """What all trainings of a process share.

    Attributes:
        dataset: Training faces only.
        contract: How faces are cropped and encoded.
        augment: How they are varied where a plan wants it.
        shares: Part of the batches that sources with weaker labels fill, by source.
        digest: Of all that.
    """

    dataset: Dataset
    contract: Contract
    augment: AugmentPlan
    shares: Mapping[str, float]
    digest: str


@dataclass(frozen=True)
class Rounding:
    """Quantization-aware training: starting ranges and the scheme to round to."""

    ranges: Mapping[Value, ValueRange]
    scheme: QuantScheme


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        graph: Initialised float graph.
        plan: How to train.
        seed: For the order and the augmentation of faces.
        method: None trains the weights; else what happens to them meanwhile.
        checkpoint: File to save to and to resume from.
    """

    graph: Graph
    plan: TrainingPlan
    seed: int
    method: SparsityPlan | Rounding | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Trained:
    """The result of a job: weights by `node/parameter`, and ranges where they were trained."""

    arrays: Mapping[str, NDArray[np.generic]]
    ranges: Mapping[Value, ValueRange] = field(default_factory=dict)
