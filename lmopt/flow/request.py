"""What a user asks of `optimize`, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmopt.device.adb import is_phone
from lmopt.errors import UsageError
from lmopt.exploration.candidate import OBJECTIVES, Objective
from lmopt.exploration.study import Sampler
from lmopt.latency.cuda import is_cuda
from lmopt.target.profile import EndType

DEFAULT_DETECTOR = "pfld-0.25"
DEVICES = ("auto", "host")
"""Words of `--device` besides those that mean a phone or a card."""


@dataclass(frozen=True)
class OptimizeRequest:
    """The arguments of `lmopt optimize`.

    Attributes:
        target: Target name or TOML path; `auto` is the CPU profile of the phone on the cable.
        detector: Zoo name, or path of a .keras, .h5 or .tflite file.
        data: Annotated folders; none means rendered faces.
        passes: Pipeline texts; none means the target's own.
        contract: Contract TOML of a user's model.
        teacher: Detector that passes learn from where they distill; None is the detector itself.
        budget_minutes: No new candidate is started after this long.
        max_nme_drop: Points of validation NME a candidate may lose against the baseline.
        max_latency_ms: Latency a candidate may have.
        device: Where latency on the front comes from: `host` measures here whatever the target,
            `auto` measures when the target is this host and estimates otherwise, `adb` or
            `adb:SERIAL` measures on a phone, `cuda` or `cuda:N` on a card of this host.
        threads: CPU threads to measure with, on the phone where there is one; None tries those the
            target names.
        effort: Factor on the epochs of the target's own pipelines.
        seed: Of everything random.
        input: Element type that quantized files take; None leaves it to the pipelines, or for the
            target's own ones to what the target prefers.
        output: Element type that they give, likewise.
        out: Folder for files, journal and reports; None means out/<detector>-<target>.
        benchmark_model: TFLite's tool for the phone; None looks for it.
        compare_storage: Whether the detector itself is made in every storage form, too.
        objectives: What the front minimises besides NME and latency.
    """

    target: str
    detector: str = DEFAULT_DETECTOR
    data: tuple[Path, ...] = ()
    passes: tuple[str, ...] = ()
    contract: Path | None = None
    teacher: str | None = None
    budget_minutes: float | None = None
    max_nme_drop: float | None = None
    max_latency_ms: float | None = None
    device: str = "auto"
    threads: int | None = None
    effort: float = 1.0
    seed: int = 0
    input: EndType | None = None
    output: EndType | None = None
    out: Path | None = None
    benchmark_model: Path | None = None
    compare_storage: bool = True
    objectives: tuple[Objective, ...] = ()

    def __post_init__(self) -> None:
        _check_target(self.target, self.device)
        _check_objectives(self.objectives)
        _require_at_least_0("--max-nme-drop", self.max_nme_drop)
        _require_positive(
            {
                "--budget": self.budget_minutes,
                "--max-latency": self.max_latency_ms,
                "--threads": self.threads,
                "--effort": self.effort,
            }
        )


HowLatency = Literal["auto", "measure", "estimate"]


@dataclass(frozen=True)
class SearchRequest:
    """The arguments of `lmopt search`; what `OptimizeRequest` has too means the same there.

    Attributes:
        target: Target name or TOML path; `auto` is the CPU profile of the phone on the cable.
        detector: Zoo name, or path of a .keras, .h5 or .tflite file.
        data: Annotated folders; none means rendered faces.
        space: TOML of what may be tried; None derives it from target and detector.
        contract: Contract TOML of a user's model.
        teacher: Detector that passes learn from where they distill.
        budget_minutes: For everything, the final measurements included.
        trials: Candidates to ask for, at most.
        max_nme_drop: Points of validation NME that what ships may lose against the baseline.
        max_latency_ms: Latency a candidate may have.
        max_size_bytes: Size a file may have.
        max_memory_bytes: Estimated peak of activations and weights that a file may need.
        delegate_only: Whether every kernel has to stay on the target's engine.
        latency: Whether candidates are measured on this host or estimated for the target; `auto`
            measures when the target is this host.
        device: `adb` or `adb:SERIAL` measures on a phone whatever `latency` says; else as for
            `optimize`, but for `cuda`.
        benchmark_model: TFLite's tool for the phone; None looks for it.
        cluster: Address of a Ray cluster whose nodes make the candidates, or `auto` for the one
            this machine belongs to; None makes them here.
        sampler: Who proposes candidates.
        threads: CPU threads; None takes each file's best.
        seed: Of everything random.
        study: URL of the database; None means `study.db` in the output folder.
        resume: Whether the study must be there already.
        out: Folder for files, study and reports; None means out/<detector>-<target>-search.
        objectives: What the front minimises besides NME and latency.
    """

    target: str
    detector: str = DEFAULT_DETECTOR
    data: tuple[Path, ...] = ()
    space: Path | None = None
    contract: Path | None = None
    teacher: str | None = None
    budget_minutes: float = 60.0
    trials: int | None = None
    max_nme_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    max_memory_bytes: int | None = None
    delegate_only: bool = False
    latency: HowLatency = "auto"
    device: str = "auto"
    benchmark_model: Path | None = None
    cluster: str | None = None
    sampler: Sampler = "tpe"
    threads: int | None = None
    seed: int = 0
    study: str | None = None
    resume: bool = False
    out: Path | None = None
    objectives: tuple[Objective, ...] = ()

    def __post_init__(self) -> None:
        _check_target(self.target, self.device)
        _check_objectives(self.objectives)
        _require_at_least_0("--max-nme-drop", self.max_nme_drop)
        if is_cuda(self.device):
            raise UsageError(
                "a search measures on this host or a phone",
                where="--device",
                hint="without --device its latencies are estimated; lmopt optimize --device cuda "
                "measures pipelines that it found",
            )
        _require_positive(
            {
                "--budget": self.budget_minutes,
                "--trials": self.trials,
                "--max-latency": self.max_latency_ms,
                "--max-size": self.max_size_bytes,
                "--max-memory": self.max_memory_bytes,
                "--threads": self.threads,
            }
        )

    def final(self, pipelines: tuple[str, ...], out: Path) -> OptimizeRequest:
        """Returns what remains to be done with the pipelines of the front."""
        return OptimizeRequest(
            target=self.target,
            detector=self.detector,
            data=self.data,
            passes=pipelines,
            contract=self.contract,
            teacher=self.teacher,
            max_nme_drop=self.max_nme_drop,
            max_latency_ms=self.max_latency_ms,
            # The front is judged by what the search went by.
            device="host" if self.latency == "measure" and self.device == "auto" else self.device,
            benchmark_model=self.benchmark_model,
            threads=self.threads,
            seed=self.seed,
            out=out,
            compare_storage=False,
            objectives=self.objectives,
        )


def _check_target(target: str, device: str) -> None:
    check_device(device)
    if target == "auto" and not is_phone(device):
        raise UsageError(
            "no target is named", where="--target", hint="list: lmopt targets; or --device adb"
        )


def _check_objectives(objectives: tuple[Objective, ...]) -> None:
    for name in objectives:
        if name not in OBJECTIVES:
            raise UsageError(
                f"no objective '{name}'",
                where="--objective",
                hint=f"choose {', '.join(OBJECTIVES)}",
            )
    if len(set(objectives)) < len(objectives):
        raise UsageError("an objective is named twice", where="--objective")


def _require_positive(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise UsageError(f"{name} is {value:g}; wanted a number above 0")


def _require_at_least_0(name: str, value: float | None) -> None:
    if value is not None and value < 0:
        raise UsageError(f"{name} is {value:g}; wanted 0 or more")


def check_device(device: str) -> None:
    """Raises UsageError unless `--device` can mean this."""
    if device not in DEVICES and not is_phone(device) and not is_cuda(device):
        raise UsageError(
            f"no device '{device}'",
            where="--device",
            hint="choose auto, host, adb, adb:SERIAL, cuda or cuda:N",
        )
