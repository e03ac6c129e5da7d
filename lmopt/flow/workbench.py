"""Where pipelines are run: a detector, its faces and target, and the services passes ask for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lmopt.calibration.observe import FaceCalibrator
from lmopt.codegen.tflite import emit
from lmopt.cost.estimate import TargetCost
from lmopt.data.crop import mean_shape
from lmopt.data.dataset import Dataset, Split
from lmopt.detector.contract import Contract
from lmopt.detector.detector import Detector
from lmopt.detector.document import CONTRACT_KEY, contract_to_json
from lmopt.flow.events import Activity, Listener, PassProgress, Training, ignore
from lmopt.ir.graph import Graph, Value
from lmopt.latency import host
from lmopt.pipeline.base import Need, PassContext
from lmopt.pipeline.cache import Depot, PipelineCache, Shelf
from lmopt.pipeline.manager import PassEvent, Pipeline, PipelineResult
from lmopt.pipeline.services import TrainingProgress
from lmopt.runtime.parity import is_quantized, prove
from lmopt.runtime.runner import file_digest
from lmopt.scoring.metrics import default_normaliser, expected_drop, nme_percent
from lmopt.scoring.protocols import Score, ScoringProtocol, to_picture
from lmopt.scoring.stability import NoiseProtocol
from lmopt.target.profile import Target
from lmopt.training.service import TrainingService

PARITY_FACES = 4
"""Faces that go through the parity gate."""


@dataclass(frozen=True)
class GraphScorer:
    """Scores graphs by their emitted files; implements `lmopt.pipeline.services.Scorer`.

    Attributes:
        protocol: Faces and rules.
        shelf: Where the landmarks that files find are kept, so that an interrupted search resumes.
        threads: Of the runtime.
    """

    protocol: ScoringProtocol
    shelf: Shelf | None = None
    threads: int = 1
    _found: dict[str, NDArray[np.float64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def digest(self) -> str:
        """Returns the digest of the faces."""
        return self.protocol.dataset.digest

    def nme_percent(self, graph: Graph) -> float:
        """Returns the validation NME in percent."""
        return float(self.per_face_percent(graph).mean())

    @property
    def crops(self) -> NDArray[np.uint8]:
        """Returns the crops of the validation faces."""
        return self.protocol.crops.pixels

    def per_face_percent(self, graph: Graph) -> NDArray[np.float64]:
        """Returns the validation NME of each face in percent."""
        return self._per_face(self.landmarks(graph), self.protocol.truth)

    def per_face_percent_of(self, answers: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns each face's NME in percent for answers, encoded as the contract says."""
        protocol = self.protocol
        found = to_picture(protocol.contract.decode(answers), protocol.crops.to_picture)
        return self._per_face(found, protocol.truth)

    def shift_percent(self, graph: Graph, reference: Graph) -> float:
        """Returns the NME in percent were the landmarks that `reference` finds the true ones."""
        return float(self._per_face(self.landmarks(graph), self.landmarks(reference)).mean())

    def expected_drop(self, graph: Graph, reference: Graph) -> float:
        """Returns the points of NME that the shift from `reference` costs on average."""
        found = self.landmarks(graph), self.landmarks(reference), self.protocol.truth
        scheme, normaliser = self.protocol.contract.scheme, self.protocol.normaliser
        return float(expected_drop(*found, scheme, normaliser).mean())

    def landmarks(self, graph: Graph) -> NDArray[np.float64]:
        """Returns the landmarks a graph's file finds, in picture pixels, each file run once."""
        data = emit(graph)
        key = file_digest(data)
        if key not in self._found:
            self._found[key] = self._predicted(data, key)
        return self._found[key]

    def _predicted(self, data: bytes, key: str) -> NDArray[np.float64]:
        truth = self.protocol.truth
        rules = (key, self.digest, repr(self.protocol.contract), str(self.protocol.box))
        kept = None if self.shelf is None else self.shelf.get("landmarks", *rules)
        if kept is not None and len(kept) == truth.nbytes:
            return np.frombuffer(kept, np.float64).reshape(truth.shape)
        found = self.protocol.predict(data, threads=self.threads)
        if self.shelf is not None:
            self.shelf.put(found.tobytes(), "landmarks", *rules)
        return found

    def _per_face(
        self, found: NDArray[np.float64], wanted: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        scheme, normaliser = self.protocol.contract.scheme, self.protocol.normaliser
        return nme_percent(found, wanted, scheme, normaliser)


class ShelvedCalibrator(FaceCalibrator):
    """A calibrator that keeps the means it measured: one for every mixture a search looks at."""

    def __init__(
        self, faces: Dataset, contract: Contract, shelf: Shelf | None, *, threads: int = 2
    ) -> None:
        """Keeps training faces, contract and shelf."""
        super().__init__(faces, contract, threads=threads)
        self._shelf = shelf

    def means(
        self, graph: Graph, values: Sequence[Value], *, faces: int
    ) -> Mapping[Value, NDArray[np.float64]]:
        """Returns the mean of each value over faces; see `FaceCalibrator.means`."""
        if self._shelf is None:
            return super().means(graph, values, faces=faces)
        key = ("means", graph.digest(), *map(str, values), str(faces), self.digest)
        kept = self._shelf.get(*key)
        if kept is not None:
            damaged = suppress(ValueError, KeyError, EOFError, OSError, BadZipFile)
            with damaged, np.load(io.BytesIO(kept), allow_pickle=False) as arrays:
                return {value: arrays[f"arr_{k}"] for k, value in enumerate(values)}
        found = super().means(graph, values, faces=faces)
        data = io.BytesIO()
        np.savez(data, *(found[value] for value in values))
        self._shelf.put(data.getvalue(), *key)
        return found


class Workbench:
    """Runs pipelines for one detector on one dataset; a context manager over its workers."""

    def __init__(
        self,
        detector: Detector,
        faces: Dataset | None,
        target: Target | None,
        *,
        seed: int = 0,
        teacher: Detector | None = None,
        cache: Path | None = None,
        listen: Listener = ignore,
        threads: int = 2,
        depot: Depot | None = None,
        turn: host.Beside | None = None,
        stability: bool = False,
    ) -> None:
        """Keeps what it is given; services start when a pass first asks for one.

        Args:
            detector: With weights; a contract is needed where there are faces.
            faces: All splits, or None to run passes that need none.
            target: For estimates, or None.
            seed: Of everything random.
            teacher: Whom passes that distill learn from; None is the detector itself.
            cache: Folder of the prefix cache, or None for none.
            listen: Receives events.
            threads: CPU threads for calibration and scoring.
            depot: Where caches of several machines share what they have.
            turn: Is held while a training runs, which gives way to measurements.
            stability: Whether it is to be known how candidates' answers move under noise.
        """
        self.detector = detector
        self.faces = faces
        self.target = target
        self.teacher = teacher
        self.seed = seed
        self._cache = None if cache is None else PipelineCache(cache, depot)
        self._turn = turn or host.Beside()
        self._shelf = None if cache is None else Shelf(cache / "findings")
        self._trainings = None if cache is None else cache / "trainings"
        self._listen = listen
        self._threads = threads
        self._stability = stability
        self._stack = ExitStack()
        self._protocols: dict[Split, ScoringProtocol] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rest()

    def rest(self) -> None:
        """Ends the training worker, so that nothing disturbs a measurement."""
        self._stack.close()
        self.__dict__.pop("_trainer", None)

    @cached_property
    def _trainer(self) -> TrainingService:
        assert self.faces is not None
        service = TrainingService(
            self.faces.split("train"),
            self.detector.require_contract(),
            on_progress=self._trained_on,
            checkpoints=self._trainings,
        )
        return self._stack.enter_context(service)

    def _trained_on(self, progress: TrainingProgress) -> None:
        self._listen(Training(progress))
        self._turn.give_way()

    @cached_property
    def _calibrator(self) -> ShelvedCalibrator:
        assert self.faces is not None
        return ShelvedCalibrator(
            self.faces.split("train"),
            self.detector.require_contract(),
            self._shelf,
            threads=self._threads,
        )

    @cached_property
    def scorer(self) -> GraphScorer:
        """Returns the scoring of graphs on validation faces."""
        return GraphScorer(self.protocol("validation"), self._shelf, self._threads)

    def context(self) -> PassContext:
        """Returns a fresh context with every service this bench can offer."""
        services: dict[Need, object] = {}
        contract = self.detector.contract
        if self.faces is not None and contract is not None:
            services[Need.TRAINER] = self._trainer
            services[Need.CALIBRATOR] = self._calibrator
            services[Need.SCORER] = self.scorer
        if self.target is not None and self.target.quantities:
            services[Need.COST] = TargetCost(self.target)
        teacher = self.teacher
        return PassContext(
            seed=self.seed,
            target=self.target,
            contract=contract,
            services=services,
            tutor=None if teacher is None else (teacher.graph, teacher.require_contract()),
            tell=lambda what, done, total: self._listen(Activity(what, done, total)),
        )

    def run(self, pipeline: Pipeline, *, verify_each: bool = False) -> PipelineResult:
        """Returns what a pipeline makes of the detector's graph.

        Raises:
            PassError: A pass cannot work on this graph or without a service.
            BackendError: Training failed.
        """

        def observe(event: PassEvent) -> None:
            self._listen(PassProgress(str(pipeline), event))

        trains = any(Need.TRAINER in item.required() for item in pipeline.passes)
        with self._turn if trains else nullcontext():
            return pipeline.run(
                self.detector.graph,
                self.context(),
                observe=observe,
                cache=self._cache,
                verify_each=verify_each,
            )

    def file(self, graph: Graph) -> bytes:
        """Returns the .tflite of a graph, the contract in its metadata."""
        contract = self.detector.contract
        return emit(
            graph,
            metadata=None if contract is None else {CONTRACT_KEY: contract_to_json(contract)},
        )

    def prove(self, graph: Graph, model: bytes) -> tuple[str, ...]:
        """Returns what the parity gate says of a graph's file; nothing where none is quantized.

        A few validation faces go through it, once per file while the cache is kept.

        Raises:
            BackendError: The file computes something else than the graph.
        """
        if self.faces is None or self.detector.contract is None or not is_quantized(graph):
            return ()
        protocol = self.protocol("validation")
        key = ("parity", file_digest(model), protocol.dataset.digest)
        kept = None if self._shelf is None else self._shelf.get(*key)
        if kept is not None:
            return (kept.decode(),)
        self._listen(Activity("comparing the file with the integer interpreter"))
        pixels = protocol.crops.pixels
        places = np.linspace(0, len(pixels) - 1, min(PARITY_FACES, len(pixels))).astype(int)
        feeds = {graph.inputs[0].name: self.detector.contract.normalize(pixels[places])}
        note = prove(graph, model, feeds, self.detector.name).note
        if self._shelf is not None:
            self._shelf.put(note.encode(), *key)
        return (note,)

    def protocol(self, split: Split) -> ScoringProtocol:
        """Returns the scoring of one split; its faces are cropped once."""
        if split not in self._protocols:
            assert self.faces is not None
            contract = self.detector.require_contract()
            self._protocols[split] = ScoringProtocol(
                contract, self.faces.split(split), default_normaliser(contract.scheme)
            )
        return self._protocols[split]

    @cached_property
    def noise(self) -> NoiseProtocol | None:
        """Returns how far answers move under noise on validation faces; None where nobody asked."""
        return NoiseProtocol(self.protocol("validation")) if self._stability else None

    def std_percent(self, model: bytes) -> float | None:
        """Returns the STD of a file's landmarks under noise in percent; None: nobody asked."""
        return None if self.noise is None else self.noise.std_percent(model, threads=self._threads)

    def untaught_nme_percent(self) -> float:
        """Returns the validation NME of who knows the training faces' mean shape and sees nothing.

        Where there are no training faces, it is the validation faces' own shape.
        """
        assert self.faces is not None
        rule = self.detector.require_contract().crop
        usable = [face for face in self.faces.faces if rule.box != "given" or face.box is not None]
        parts = ([f for f in usable if f.split == split] for split in ("train", "validation"))
        shape = mean_shape(next(filter(None, parts)), rule)
        return self.protocol("validation").shape_nme_percent(shape)

    def score(self, model: bytes | Path, split: Split) -> Score:
        """Returns the score of a file on one split of the faces."""
        return self.protocol(split).score(model, threads=self._threads)
