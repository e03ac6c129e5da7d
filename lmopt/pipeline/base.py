"""The contract of a pass, and the context it reads."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import ClassVar

import numpy as np

from lmopt.detector.contract import Contract
from lmopt.errors import PassError
from lmopt.ir.graph import Graph
from lmopt.pipeline.services import Calibrator, CostModel, Scorer, Teacher, Trainer
from lmopt.target.profile import FORMS, Target


class Preserves(Enum):
    """What a pass leaves as it was."""

    VALUES = "values"
    SHAPES = "shapes"
    NOTHING = "nothing"


class Need(StrEnum):
    """Services of the context a pass cannot work without."""

    TRAINER = "trainer"
    CALIBRATOR = "calibrator"
    SCORER = "scorer"
    COST = "cost"
    CONTRACT = "contract"


TUTOR = "tutor"
"""What a pass reads that distills, beside the seed and the services."""
ENGINE = "engine"
"""What a pass reads that fits a graph to the target's engine."""
ABSENT = "absent"
"""What a pass read that asked for something this run does not have, and did without."""

Tell = Callable[[str, int, int], None]
"""Hears what a long pass does, how much of it is done, and of how much (0 where nobody knows)."""


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


@dataclass
class PassContext:
    """What a pass may read besides its graph; every reading is recorded for the cache key.

    Attributes:
        seed: Of everything random.
        target: What is optimized for, or None.
        contract: Of the detector, or None.
        services: Present services.
        reads: What was read so far.
        tutor: Detector to learn from, its graph and contract; None takes the graph that enters
            the pipeline.
        tell: Hears of progress.
    """

    seed: int = 0
    target: Target | None = None
    contract: Contract | None = None
    services: Mapping[Need, object] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    tutor: tuple[Graph, Contract] | None = None
    tell: Tell = _silent

    def current(self, key: str) -> str:
        """Returns what a pass that reads `key` depends on; empty when there is nothing to read."""
        if key == "seed":
            return str(self.seed)
        if key == TUTOR:
            return "" if self.tutor is None else f"{self.tutor[0].digest()} {self.tutor[1]!r}"
        if key == ENGINE:
            return ABSENT if self.target is None else _engine(self.target)
        if key == Need.CONTRACT:
            return "" if self.contract is None else repr(self.contract)
        service = self.services.get(Need(key))
        return ABSENT if service is None else str(getattr(service, "digest", ""))

    def rng(self, tag: str) -> np.random.Generator:
        """Returns a generator that depends on the seed and `tag` alone."""
        self.reads["seed"] = self.current("seed")
        state = hashlib.blake2b(f"{self.seed}/{tag}".encode(), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(state, "little"))

    def derive_seed(self, tag: str) -> int:
        """Returns a 31-bit seed that depends on the seed and `tag` alone."""
        return int(self.rng(tag).integers(2**31))

    @property
    def engine(self) -> Target:
        """Returns the target for its engine's ops, or raises PassError."""
        if self.target is None:
            raise PassError("no target to fit the graph to", hint="name one with --target")
        self.reads[ENGINE] = self.current(ENGINE)
        return self.target

    @property
    def engine_if_any(self) -> Target | None:
        """Returns the target for its engine's ops, or None in a run without a target."""
        self.reads[ENGINE] = self.current(ENGINE)
        return self.target

    def _service(self, need: Need) -> object:
        service = self.services.get(need)
        if service is None:
            raise PassError(f"no {need} service in this run", hint=NEED_HINTS[need])
        self.reads[need] = self.current(need)
        return service

    @property
    def trainer(self) -> Trainer:
        """Returns the trainer, or raises PassError."""
        return self._service(Need.TRAINER)  # type: ignore[return-value]

    @property
    def calibrator(self) -> Calibrator:
        """Returns the calibrator, or raises PassError."""
        return self._service(Need.CALIBRATOR)  # type: ignore[return-value]

    @property
    def calibrator_if_any(self) -> Calibrator | None:
        """Returns the calibrator, or None in a run without faces."""
        self.reads[Need.CALIBRATOR] = self.current(Need.CALIBRATOR)
        return self.services.get(Need.CALIBRATOR)  # type: ignore[return-value]

    @property
    def scorer(self) -> Scorer:
        """Returns the scorer, or raises PassError."""
        return self._service(Need.SCORER)  # type: ignore[return-value]

    @property
    def scorer_if_any(self) -> Scorer | None:
        """Returns the scorer, or None in a run without validation faces."""
        return self.scorer if self.services.get(Need.SCORER) is not None else None

    @property
    def cost(self) -> CostModel:
        """Returns the cost model, or raises PassError."""
        return self._service(Need.COST)  # type: ignore[return-value]

    @property
    def cost_if_any(self) -> CostModel | None:
        """Returns the cost model, or None in a run without a target."""
        self.reads[Need.COST] = self.current(Need.COST)
        return self.services.get(Need.COST)  # type: ignore[return-value]

    def teacher(self, weight: float) -> Teacher | None:
        """Returns the teacher of a pass whose `distill` is `weight`; None for 0.

        Raises:
            PassError: There is nobody to learn from.
        """
        if weight == 0:
            return None
        if self.tutor is None:
            raise PassError("nobody to distill from", hint=NEED_HINTS[Need.CONTRACT])
        self.reads[TUTOR] = self.current(TUTOR)
        return Teacher(*self.tutor, weight)

    def require_contract(self) -> Contract:
        """Returns the detector contract, or raises PassError."""
        if self.contract is None:
            raise PassError("the detector has no contract", hint=NEED_HINTS[Need.CONTRACT])
        self.reads[Need.CONTRACT] = self.current(Need.CONTRACT)
        return self.contract


def _engine(target: Target) -> str:
    legal = (form for form in FORMS if target.rule(form).legal)
    return " ".join([*sorted(target.supported_ops), *legal])


NEED_HINTS: Mapping[Need, str] = {
    Need.TRAINER: "give training faces with --data (or lmopt.compile(..., data=...))",
    Need.CALIBRATOR: "give calibration faces with --data (or lmopt.compile(..., data=...))",
    Need.SCORER: "give faces with --data",
    Need.COST: "give a target with --target; host has numbers after lmopt targets calibrate host",
    Need.CONTRACT: "give --contract FILE.toml",
}


@dataclass(frozen=True)
class PassResult:
    """What a pass gives back.

    Attributes:
        graph: The new graph (the same object when nothing changed).
        changed: Whether it differs.
        notes: What a user should know, for the report.
    """

    graph: Graph
    changed: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite of graphs. Subclasses are frozen dataclasses; their fields are their options.

    Class attributes:
        name: kebab-case, verb first.
        needs: Services it cannot work without whatever its options are (see `required`).
        preserves: VALUES passes are checked by `--verify-each` to `tolerance`.
        tolerance: Largest allowed difference, relative to the output's largest magnitude.
        by_target: Whether what it makes depends on the target's engine or on its times, whatever
            its options are (see `follows_target`).
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    preserves: ClassVar[Preserves] = Preserves.NOTHING
    tolerance: ClassVar[float] = 1e-4
    by_target: ClassVar[bool] = False

    def required(self) -> frozenset[Need]:
        """Returns the services this pass needs with its present options."""
        return self.needs

    def follows_target(self) -> bool:
        """Returns whether what it makes with its present options depends on the target."""
        return self.by_target

    @abstractmethod
    def apply(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Returns the rewritten graph: valid IR in, valid IR out.

        Raises:
            PassError: A precondition does not hold.
        """
