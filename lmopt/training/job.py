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
from lmopt.pipeline.services import QuantScheme, RangeRule, SparsityPlan, TrainingPlan

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
    """Quantization-aware training: starting ranges, the scheme to round to, what moves them."""

    ranges: Mapping[Value, ValueRange]
    scheme: QuantScheme
    rule: RangeRule = "average"


@dataclass(frozen=True, eq=False)
class Exam:
    """The program wants to judge every epoch, and answers each `Snapshot` with its error.

    Attributes:
        digest: Of what the error depends on besides the epoch.
        crops: Faces whose answers by the training's own forward pass belong into a snapshot.
    """

    digest: str
    crops: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        graph: Initialised float graph.
        plan: How to train.
        seed: For the order and the augmentation of faces.
        method: None trains the weights; else what happens to them meanwhile.
        checkpoint: File to save to and to resume from.
        exam: Whether and how the program judges every epoch; None keeps the last.
    """

    graph: Graph
    plan: TrainingPlan
    seed: int
    method: SparsityPlan | Rounding | None = None
    checkpoint: Path | None = None
    exam: Exam | None = None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a job would give if it ended with this epoch: see `lmopt.pipeline.validation.Epoch`."""

    arrays: Mapping[str, NDArray[np.generic]]
    ranges: Mapping[Value, ValueRange]
    answers: NDArray[np.float32] | None


@dataclass(frozen=True)
class Trained:
    """The result of a job.

    Attributes:
        arrays: Weights by `node/parameter`.
        ranges: Where they were trained.
        errors: Of every epoch, where the program judged them.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    ranges: Mapping[Value, ValueRange] = field(default_factory=dict)
    errors: tuple[float, ...] = ()
