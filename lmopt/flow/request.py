"""What a user asks of `optimize`, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmopt.device.adb import is_phone
from lmopt.errors import UsageError
from lmopt.target.profile import EndType

DEFAULT_DETECTOR = "pfld-0.25"
DEVICES = ("auto", "host")
"""Words of `--device` besides those that mean a phone."""


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
            `adb:SERIAL` measures on a phone.
        threads: CPU threads to measure with, on the phone where there is one; None tries those the
            target names.
        effort: Factor on the epochs of the target's own pipelines.
        seed: Of everything random.
        input: Element type that quantized files take; None leaves it to the pipelines, or for the
            target's own ones to what the target prefers.
        output: Element type that they give, likewise.
        out: Folder for files, journal and reports; None means out/<detector>-<target>.
        benchmark_model: TFLite's tool for the phone; None looks for it.
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

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.target == "auto" and not is_phone(self.device):
            raise UsageError(
                "no target is named", where="--target", hint="list: lmopt targets; or --device adb"
            )
        for name, value in (
            ("--budget", self.budget_minutes),
            ("--max-nme-drop", self.max_nme_drop),
            ("--max-latency", self.max_latency_ms),
            ("--threads", self.threads),
            ("--effort", self.effort),
        ):
            if value is not None and value <= 0:
                raise UsageError(f"{name} is {value:g}; wanted a number above 0")


def check_device(device: str) -> None:
    """Raises UsageError unless `--device` can mean this."""
    if device not in DEVICES and not is_phone(device):
        raise UsageError(
            f"no device '{device}'",
            where="--device",
            hint="choose auto, host, adb or adb:SERIAL",
        )
