"""The services a pass may ask its context for, and what they are asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lmopt.detector.contract import Contract
from lmopt.errors import UsageError
from lmopt.ir.graph import Graph, Value
from lmopt.ir.types import DType, ValueRange
from lmopt.pipeline.validation import Validation

Loss = Literal["l1", "l2", "smooth-l1", "wing", "rmse", "heatmap-mse", "adaptive-wing", "pfld"]
Observer = Literal["min-max", "percentile", "mse", "kl"]
Rounding = Literal["nearest", "reconstructed"]
"""How kernels are rounded: each value by itself, or so that what the kernel gives errs least."""
RangeRule = Literal["learned", "average", "fixed"]
"""What becomes of activation ranges in training: learned step sizes, a slow average, nothing."""
Progress = Callable[["TrainingProgress"], None]


@dataclass(frozen=True, repr=False)
class Teacher:
    """A trained detector whose answers on the same crops a student learns from.

    Attributes:
        graph: Float, with weights.
        contract: What it eats and gives: the student's crop rule and landmarks; size, colour and
            encoding may differ.
        weight: Part of the loss that goes to the teacher's answers, the rest to the annotations.
    """

    graph: Graph
    contract: Contract
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise UsageError(f"the teacher's weight is {self.weight:g}, wanted above 0 and up to 1")

    def __repr__(self) -> str:
        return f"Teacher({self.graph.digest()}, {self.contract!r}, {self.weight:g})"


@dataclass(frozen=True)
class TrainingPlan:
    """How to train: what a recipe or a training pass fixes.

    Attributes:
        epochs: Passes over the training faces (may be a fraction).
        learning_rate: Peak rate of Adam; cosine decay to 0 after `warmup_steps`.
        batch: Faces per step.
        loss: Loss on coordinates in input pixels, on heatmaps, or PFLD's with its pose branch.
        weight_average: Decay of the running mean of weights that is kept; 0 keeps the last.
        augment: Whether faces are augmented.
        teacher: A detector to learn from besides the annotations.
        frozen: Nodes that stay as they are, batch statistics included; `stage1_*` means all that
            begin so.
        answer: Node that is to give the landmarks (or the heatmaps); None means the contract's
            output (or the last value that has the shape of heatmaps). Only what leads to it trains.
        heatmap_sigma: Width of the Gaussian at a landmark, in cells of the heatmap.
    """

    epochs: float
    learning_rate: float
    batch: int = 32
    loss: Loss = "wing"
    warmup_steps: int = 50
    weight_average: float = 0.99
    augment: bool = True
    teacher: Teacher | None = None
    frozen: tuple[str, ...] = ()
    answer: str | None = None
    heatmap_sigma: float = 1.5


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands."""

    step: int
    steps: int
    loss: float
    images_per_second: float


@dataclass(frozen=True)
class SparsityPlan:
    """Magnitude pruning on tfmot's polynomial schedule, to `sparsity` of each kernel (0..1)."""

    sparsity: float


@dataclass(frozen=True)
class QuantScheme:
    """How a graph is put on integer grids.

    Attributes:
        storage: Activation storage: I8, U8 or I16.
        per_channel: Whether kernels have a scale per output channel (int8) or one (uint8).
        real: Nodes that stay in float32, besides those that have no integer form.
        wide: Nodes with 16-bit activations, whose kernels are int8 per channel; those of `real`
            stay real.
    """

    storage: DType
    per_channel: bool
    real: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()

    def on(self, storage: DType) -> QuantScheme:
        """Returns how those nodes are stored that are on `storage`: the scheme's own, or I16."""
        if storage is self.storage:
            return self
        return QuantScheme(storage, per_channel=True, real=self.real)


class Trainer(Protocol):
    """Trains graphs on the run's faces; weights come back under the same node names."""

    digest: str

    def finetune(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        validation: Validation | None = None,
    ) -> Graph:
        """Returns `graph` with float weights: the best epoch's, or the last without validation."""
        ...

    def sparsify(
        self, graph: Graph, plan: TrainingPlan, sparsity: SparsityPlan, *, seed: int
    ) -> Graph:
        """Returns `graph` trained while small kernel entries are set to 0."""
        ...

    def quantization_aware(
        self,
        graph: Graph,
        ranges: Mapping[Value, ValueRange],
        scheme: QuantScheme,
        plan: TrainingPlan,
        *,
        seed: int,
        rule: RangeRule = "average",
        validation: Validation | None = None,
    ) -> tuple[Graph, Mapping[Value, ValueRange]]:
        """Returns float weights and activation ranges trained under `scheme`'s rounding."""
        ...


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of what a kernel is multiplied with.

    Attributes:
        mean: [slices, taps]: a depthwise kernel has a slice per channel, any other one slice.
        covariance: [slices, taps, taps].
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


class Calibrator(Protocol):
    """Observes activations of a float graph on training faces."""

    digest: str

    @property
    def available(self) -> int:
        """Returns how many training faces there are; no call sees more."""
        ...

    def ranges(
        self,
        graph: Graph,
        values: Sequence[Value],
        observer: Observer,
        *,
        faces: int,
        storage: DType,
        augmented: bool = False,
    ) -> Mapping[Value, ValueRange]:
        """Returns the range of each value that `observer` would represent.

        Faces are seen upright, or (`augmented`) as training shows them.
        """
        ...

    def excess_errors(
        self, graph: Graph, values: Sequence[Value], observer: Observer, *, storage: DType
    ) -> Mapping[int, float]:
        """Returns, by number of faces, the part by which rounding errs more on others than it must.

        Numbers rise.
        """
        ...

    def means(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, NDArray[np.float64]]:
        """Returns the mean of each value over faces, as real numbers, without the batch."""
        ...

    def mean_landmarks(self, *, faces: int) -> NDArray[np.float64]:
        """Returns the mean annotation of those faces in unit coordinates, [landmarks, 2]."""
        ...

    def values(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, NDArray[np.floating]]:
        """Returns each value on every face, as real numbers."""
        ...

    def kernel_inputs(
        self, graph: Graph, names: Sequence[str], *, faces: int
    ) -> Mapping[str, Moments]:
        """Returns mean and covariance of what kernels are multiplied with, by node."""
        ...


class Scorer(Protocol):
    """Scores a graph on validation faces by its emitted file."""

    digest: str

    def nme_percent(self, graph: Graph) -> float:
        """Returns the NME in percent on the validation faces."""
        ...

    @property
    def crops(self) -> NDArray[np.uint8]:
        """Returns the validation faces as the contract crops them."""
        ...

    def per_face_percent(self, graph: Graph) -> NDArray[np.float64]:
        """Returns the NME in percent of each validation face."""
        ...

    def per_face_percent_of(self, answers: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the same for what something else than a file answers for `crops`."""
        ...

    def shift_percent(self, graph: Graph, reference: Graph) -> float:
        """Returns how far a graph's landmarks lie from another's: the NME were those the truth."""
        ...

    def expected_drop(self, graph: Graph, reference: Graph) -> float:
        """Returns the points of NME such a shift costs, averaged over its directions: no luck."""
        ...


class CostModel(Protocol):
    """Estimates latency on the run's target."""

    digest: str

    def latency_ms(self, graph: Graph) -> float:
        """Returns the estimated latency in milliseconds."""
        ...
