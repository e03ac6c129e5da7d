"""Services for passes under test: cheap, deterministic and real in what they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lmopt.calibration.kernel_inputs import moments_of
from lmopt.detector.contract import Contract, CropRule
from lmopt.detector.scheme import scheme_for
from lmopt.ir import DType, Graph, Value, ValueRange
from lmopt.ir.interp import run
from lmopt.pipeline.base import Need, PassContext
from lmopt.pipeline.services import (
    Moments,
    Observer,
    QuantScheme,
    RangeRule,
    SparsityPlan,
    TrainingPlan,
)
from lmopt.pipeline.validation import Epoch, Validation
from lmopt.quant.assign import quantize_graph
from lmopt.target.catalog import load_target


class NudgingTrainer:
    """Trains by scaling every float weight a little, by an amount the seed decides.

    Under rounding its forward pass is the interpreter's, moved by one of `off` in every epoch.
    """

    off: tuple[float, ...] = (0.0,)

    def __init__(self, digest: str = "nudging") -> None:
        self.digest = digest
        self.calls = 0

    def finetune(
        self,
        graph: Graph,
        plan: TrainingPlan,
        *,
        seed: int,
        validation: Validation | None = None,
    ) -> Graph:
        self.calls += 1
        trained = self._nudged(graph, seed)
        if validation is not None:
            validation.errors.append(validation.error(Epoch(trained)))
        return trained

    def _nudged(self, graph: Graph, seed: int) -> Graph:
        factor = np.float32(1 + np.random.default_rng(seed).uniform(0.001, 0.01))
        edit = graph.edit()
        for node in graph.nodes:
            edit.set_weights(node.name, **{k: w.real() * factor for k, w in node.weights.items()})
        return edit.done()

    def sparsify(
        self, graph: Graph, plan: TrainingPlan, sparsity: SparsityPlan, *, seed: int
    ) -> Graph:
        return self.finetune(graph, plan, seed=seed)

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
        trained = self.finetune(graph, plan, seed=seed)
        if validation is not None:
            stored = quantize_graph(trained, ranges, scheme)
            for off in self.off:
                epoch = Epoch(trained, ranges, answers_of(stored) + np.float32(off))
                validation.errors.append(validation.error(epoch))
        return trained, ranges


def _seen(graph: Graph) -> dict[str, np.ndarray]:
    """Every value of a graph on drawn inputs, the same ones each time."""
    rng = np.random.default_rng(0)
    inputs = {
        node.name: rng.uniform(size=(4, *node.results[0].shape[1:])).astype(np.float32)
        for node in graph.inputs
    }
    return run(graph, inputs, all_values=True)


class DrawnCalibrator:
    """Observes the interpreter's values on drawn inputs; the range is their minimum and maximum."""

    digest = "drawn"
    available = 1000

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
        seen = _seen(graph)
        widen = 2.0 if augmented else 1.0
        found = {v: widen * seen[str(v)[1:]] for v in values}
        return {v: ValueRange(float(a.min()), float(a.max())) for v, a in found.items()}

    def excess_errors(
        self, graph: Graph, values: Sequence[Value], observer: Observer, *, storage: DType
    ) -> Mapping[int, float]:
        return {2: 0.5, 4: 0.25, 8: 0.21, 16: 0.1}

    def values(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, np.ndarray]:
        seen = _seen(graph)
        return {value: seen[str(value)[1:]] for value in values}

    def kernel_inputs(
        self, graph: Graph, names: Sequence[str], *, faces: int
    ) -> Mapping[str, Moments]:
        seen = _seen(graph)
        nodes = [graph.node(name) for name in names]
        return moments_of(nodes, [[seen[str(node.inputs[0])[1:]] for node in nodes]])

    def mean_landmarks(self, *, faces: int) -> np.ndarray:
        return np.linspace(0.2, 0.8, 10).reshape(5, 2)

    def means(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, np.ndarray]:
        seen = _seen(graph)
        grids = {v: graph.type(v).quant for v in values}
        arrays = {v: seen[str(v)[1:]] for v in values}
        return {
            v: (a if grids[v] is None else grids[v].dequantize(a)).astype(np.float64).mean(0)
            for v, a in arrays.items()
        }


class DistanceScorer:
    """Scores a graph by how far its output lies from a reference graph's, on drawn inputs.

    Without a reference the distance is that from zero.
    """

    digest = "distance"

    def __init__(self, reference: Graph | None = None) -> None:
        self.reference = reference

    @property
    def crops(self) -> np.ndarray:
        """No pictures: inputs are drawn to fit each graph."""
        return np.empty((4, 0, 0, 3), np.uint8)

    def nme_percent(self, graph: Graph) -> float:
        return float(self.per_face_percent(graph).mean())

    def per_face_percent(self, graph: Graph) -> np.ndarray:
        return self.per_face_percent_of(answers_of(graph))

    def per_face_percent_of(self, answers: np.ndarray) -> np.ndarray:
        wanted = 0.0 if self.reference is None else answers_of(self.reference)
        return 100 * np.abs(answers - wanted).reshape(len(answers), -1).mean(axis=1)

    def shift_percent(self, graph: Graph, reference: Graph) -> float:
        return float(100 * np.abs(answers_of(graph) - answers_of(reference)).mean())

    def expected_drop(self, graph: Graph, reference: Graph) -> float:
        return self.shift_percent(graph, reference)


def answers_of(graph: Graph) -> np.ndarray:
    """Returns the first output of a graph on drawn inputs."""
    rng = np.random.default_rng(0)
    inputs = {}
    for node in graph.inputs:
        type = node.results[0]
        drawn = rng.uniform(size=(4, *type.shape[1:])).astype(np.float32)
        grid = type.quant
        inputs[node.name] = drawn if grid is None else grid.quantize(drawn, type.dtype)
    return next(iter(run(graph, inputs).values()))


CONTRACT = Contract(
    *(16, 16, "rgb", (0.0,) * 3, (1.0,) * 3, CropRule("landmarks", 1.25, True)),
    *("landmarks", "xyxy", "unit", scheme_for(5)),
)


def full_context(seed: int = 0) -> PassContext:
    """A context with all that a registered pass may need."""
    services = {
        Need.TRAINER: NudgingTrainer(),
        Need.CALIBRATOR: DrawnCalibrator(),
        Need.SCORER: DistanceScorer(),
    }
    target = load_target("velvet-gpu")
    return PassContext(seed=seed, services=services, target=target, contract=CONTRACT)
